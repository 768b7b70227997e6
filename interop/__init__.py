"""Drives ensembles of real server processes, ours and Apache's, and compares what they hold.

`python3 -m interop --help` lists what can be run. The package needs Python 3.9, nothing else; only the
suite with stock clients (`clients.py`) needs kazoo.
"""
