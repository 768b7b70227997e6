"""Thousands of clients: each holds a session, and goes to the next member when its own is gone."""

import multiprocessing
import selectors
import socket
import statistics
import struct
import time

from . import wire

PROCESSES = 2
TIMEOUT_MS = 60000
PING_EVERY = 15.0
UNDER_WAY = 200  # connections that one process opens at a time
PING = wire.request(wire.PING_XID, wire.PING)


class Session:
    """Connecting, then live; `fell` is when it lost its server, `served` how long until it was answered again."""

    def __init__(self, at):
        self.at, self.id, self.password = at, 0, b"\0" * 16
        self.socket, self.live = None, False
        self.fell, self.buffer = time.monotonic(), b""
        self.served = None


class Driver:
    """The clients of one process. Commands come over `channel`, and are answered there."""

    def __init__(self, addresses, count, channel):
        self.addresses, self.channel = addresses, channel
        self.selector = selectors.DefaultSelector()
        self.waiting = [Session(at % len(addresses)) for at in range(count)]
        self.sessions, self.under_way, self.lost = list(self.waiting), 0, 0
        self.next_ping = time.monotonic() + PING_EVERY

    def run(self):
        self.selector.register(self.channel, selectors.EVENT_READ)
        while True:
            while self.waiting and self.under_way < UNDER_WAY:
                self.connect(self.waiting.pop())
            for key, _ in self.selector.select(0.02):
                if key.data is None:
                    if not self.command(self.channel.recv()):
                        return
                else:
                    self.advance(key.data)
            if time.monotonic() > self.next_ping:
                self.next_ping += PING_EVERY
                for session in self.sessions:
                    if session.live:
                        self.say(session, PING)

    def command(self, word):
        if word == "end":
            return False
        served = [session.served for session in self.sessions if session.served is not None]
        self.channel.send((sum(not session.live for session in self.sessions), served, self.lost))
        if word == "forget":
            for session in self.sessions:
                session.served = None
        return True

    def connect(self, session):
        self.under_way += 1
        session.socket, session.buffer = socket.socket(), b""
        session.socket.setblocking(False)
        session.socket.connect_ex(self.addresses[session.at])
        session.opening = True
        self.selector.register(session.socket, selectors.EVENT_WRITE, session)

    def say(self, session, data):
        try:
            session.socket.send(data)
        except OSError:
            self.fail(session)

    def fail(self, session):
        """Its server is gone, or refuses it: the next one."""
        if session.socket is None:
            return
        self.selector.unregister(session.socket)
        session.socket.close()
        session.socket = None
        if session.live:
            session.live, session.fell = False, time.monotonic()
        else:
            self.under_way -= 1
        session.at = (session.at + 1) % len(self.addresses)
        self.waiting.insert(0, session)

    def advance(self, session):
        if session.socket is None:
            return
        if session.opening:
            session.opening = False
            self.selector.modify(session.socket, selectors.EVENT_READ, session)
            # A read behind the handshake: being answered is being served.
            return self.say(session, wire.connect_request(TIMEOUT_MS, session.id, session.password)
                            + wire.request(1, wire.EXISTS, wire.string("/") + b"\0"))
        try:
            piece = session.socket.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        if not piece:
            return self.fail(session)
        session.buffer += piece
        while len(session.buffer) >= 4:
            (length,) = struct.unpack_from(">i", session.buffer)
            if len(session.buffer) < 4 + length:
                break
            payload, session.buffer = session.buffer[4 : 4 + length], session.buffer[4 + length :]
            if not session.live:
                self.opening(session, payload, length)
        return None

    def opening(self, session, payload, length):
        if length in (36, 37):
            _, timeout, number, _ = struct.unpack_from(">iiqi", payload)
            if timeout <= 0:
                self.lost += session.id != 0
                session.id, session.password = 0, b"\0" * 16
            else:
                session.id, session.password = number, bytes(payload[20:36])
        elif struct.unpack_from(">i", payload)[0] == 1:
            session.live = True
            self.under_way -= 1
            session.served = time.monotonic() - session.fell


def work(addresses, count, channel):
    Driver(addresses, count, channel).run()


class Crowd:
    """`with Crowd(members, 20000) as crowd: crowd.all_served(60)`."""

    def __init__(self, members, count):
        fresh = multiprocessing.get_context("spawn")
        addresses = [member.address for member in members]
        self.channels, self.processes = [], []
        for at in range(PROCESSES):
            here, there = fresh.Pipe()
            share = count // PROCESSES + (at < count % PROCESSES)
            self.channels.append(here)
            self.processes.append(fresh.Process(target=work, args=(addresses, share, there), daemon=True))

    def __enter__(self):
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, kind, error, trace):
        for channel, process in zip(self.channels, self.processes):
            try:
                channel.send("end")
            except OSError:
                pass
            process.join(2)
            process.kill()

    def ask(self, word):
        for channel in self.channels:
            channel.send(word)
        return [channel.recv() for channel in self.channels]

    def all_served(self, seconds):
        """Waits until every client is served; (median, longest) time that one of those who fell had to wait, in seconds."""
        end = time.monotonic() + seconds
        while waiting := sum(answer[0] for answer in self.ask("count")):
            assert time.monotonic() < end, f"{waiting} clients are not served within {seconds:g} s"
            time.sleep(0.1)
        served = [one for answer in self.ask("forget") for one in answer[1]]
        return (statistics.median(served), max(served)) if served else (0.0, 0.0)

    def lost(self):
        return sum(answer[2] for answer in self.ask("count"))
