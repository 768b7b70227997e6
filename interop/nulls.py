#!/usr/bin/env python3
"""Records how a server answers requests with null and empty fields.

    nulls.py HOST:PORT > zk-service/tests/vectors/nulls.txt

The server is a standalone one that has just been set up, with TTL nodes allowed
(-Dzookeeper.extendedTypesEnabled=true) and all else as by default. Each case has a connection and a
session of its own; what it creates has a name of its own. A line has:

    NAME  LOGIN  OP  RECORD  ANSWER

LOGIN is the digest login sent first, or `-`; RECORD is hexadecimal, `-` if empty; ANSWER is the error
code and the length of the body, followed by `end` if the connection is closed then, or `end` alone.
Names begin with `setup` where the cases behind need what the line makes.
"""
import socket
import struct
import sys

I = lambda n: struct.pack('>i', n)
L = lambda n: struct.pack('>q', n)
T, F = b'\1', b'\0'


def S(text):
    """A string or buffer; None is null."""
    if text is None:
        return I(-1)
    text = text.encode() if isinstance(text, str) else text
    return I(len(text)) + text


def V(items):
    """A vector of encoded items; None is null."""
    return I(-1) if items is None else I(len(items)) + b''.join(items)


def acl(scheme, ident, perms=31):
    return I(perms) + S(scheme) + S(ident)


OPEN = V([acl('world', 'anyone')])
BOTH = (('null', None), ('empty', ''))
SCHEMES = ('world', 'auth', 'digest', 'ip', 'super', 'sasl', 'x509', 'ensemble', 'foo', '', None)
MULTI_END = I(-1) + T + I(-1)
CREATES = ((1, 'create', 0, b''), (15, 'create2', 0, b''), (19, 'createContainer', 4, b''),
           (21, 'createTTL', 5, L(1000000)))


def part(op, record):
    return I(op) + F + I(-1) + record


def acl_lists():
    """Names, logins and lists, each with something null or empty in it."""
    yield 'null', None, V(None)
    yield 'empty', None, V([])
    yield 'negative', None, I(-2)
    for scheme in SCHEMES:
        for what, ident in BOTH:
            for login in (None, 'bob:pw'):
                name = f'{"null" if scheme is None else scheme or "empty"}.{what}'
                yield name, login, V([acl(scheme, ident)])
    for login in (None, 'bob:pw'):
        yield 'auth.null+world', login, V([acl('auth', None), acl('world', 'anyone')])
        yield 'world+auth.null', login, V([acl('world', 'anyone'), acl('auth', None)])
        yield 'auth.null+auth.empty', login, V([acl('auth', None), acl('auth', '')])
        yield 'world+null.null', login, V([acl('world', 'anyone'), acl(None, None)])
        yield 'world+world.null', login, V([acl('world', 'anyone'), acl('world', None)])
        yield 'auth.given', login, V([acl('auth', 'x')])


def cases():
    """Name, login, operation and record of each."""
    yield 'setup.node', None, 1, S('/n') + S('x') + OPEN + I(0)
    yield 'setup.child', None, 1, S('/n/c') + S('x') + OPEN + I(0)
    count = 0

    def fresh():
        nonlocal count
        count += 1
        return f'/case-{count}'
    for op, name, flags, tail in CREATES:
        for what, text in BOTH:
            yield f'{name}.path.{what}', None, op, S(text) + S('x') + OPEN + I(flags) + tail
            yield f'{name}.data.{what}', None, op, S(fresh()) + S(text) + OPEN + I(flags) + tail
            yield f'{name}.path+data.{what}', None, op, S(text) + S(text) + OPEN + I(flags) + tail
            yield f'{name}.path+acl.{what}', None, op, (
                S(text) + S('x') + V(None if text is None else []) + I(flags) + tail)
        for what, login, list_ in acl_lists():
            yield f'{name}.acl.{what}', login, op, S(fresh()) + S('x') + list_ + I(flags) + tail
    for what, text in BOTH:
        yield f'delete.path.{what}', None, 2, S(text) + I(-1)
        for op, name in ((3, 'exists'), (4, 'getData'), (8, 'getChildren'), (12, 'getChildren2')):
            for watch in (F, T):
                yield f'{name}.path.{what}.{watch[0]}', None, op, S(text) + watch
        yield f'setData.path.{what}', None, 5, S(text) + S('x') + I(-1)
        yield f'setData.data.{what}', None, 5, S('/n') + S(text) + I(-1)
        yield f'setData.path+data.{what}', None, 5, S(text) + S(text) + I(-1)
        yield f'getACL.path.{what}', None, 6, S(text)
        yield f'setACL.path.{what}', None, 7, S(text) + OPEN + I(-1)
        yield f'setACL.path+acl.{what}', None, 7, (
            S(text) + V(None if text is None else []) + I(-1))
        yield f'sync.path.{what}', None, 9, S(text)
        yield f'check.path.{what}', None, 14, part(13, S(text) + I(-1)) + MULTI_END
        yield f'getEphemerals.prefix.{what}', None, 103, S(text)
        yield f'getAllChildrenNumber.path.{what}', None, 104, S(text)
        for mode in (0, 1, 2):
            yield f'addWatch.path.{what}.{mode}', None, 106, S(text) + I(mode)
        for op, name in ((17, 'checkWatches'), (18, 'removeWatches')):
            for kind in (1, 2, 3, 4, 5, 6):
                yield f'{name}.path.{what}.{kind}', None, op, S(text) + I(kind)
        for reconfig in range(3):
            fields = [S('') if i != reconfig else S(text) for i in range(3)]
            yield f'reconfig.{reconfig}.{what}', None, 16, b''.join(fields) + L(-1)
        yield f'sasl.token.{what}', None, 102, S(text)
        for login in (None, 'bob:pw'):
            yield f'auth.scheme.{what}', login, 100, I(0) + S(text) + S('x:y')
            for scheme in SCHEMES:
                name = 'null' if scheme is None else scheme or 'empty'
                yield f'auth.{name}.data.{what}', login, 100, I(0) + S(scheme) + S(text)
    for what, login, list_ in acl_lists():
        path = fresh()
        yield f'setup.setACL.{what}', None, 1, S(path) + S('x') + OPEN + I(0)
        yield f'setACL.acl.{what}', login, 7, S(path) + list_ + I(-1)
        # Read with the login that may have been given all rights.
        yield f'getACL.after.{what}', login, 6, S(path)
    for op, name, lists in ((101, 'setWatches', 3), (105, 'setWatches2', 5)):
        for at in range(lists):
            for what, list_ in (('null', V(None)), ('empty', V([])), ('negative', I(-2)),
                                ('of.null', V([S(None)])), ('of.empty', V([S('')])),
                                ('of.node+null', V([S('/n'), S(None)])),
                                ('of.node+empty', V([S('/n'), S('')]))):
                fields = [list_ if i == at else V([]) for i in range(lists)]
                yield f'{name}.{at}.{what}', None, op, L(1 << 60) + b''.join(fields)
    for op, name, records in ((100, 'auth', (b'', I(0), I(0) + S('digest'), I(0) + I(5))),
                              (102, 'sasl', (b'', I(5)))):
        for at, record in enumerate(records):
            yield f'{name}.cut.{at}', None, op, record
    yield 'multi.empty', None, 14, MULTI_END
    yield 'multi.nothing', None, 14, b''
    yield 'multiRead.empty', None, 22, MULTI_END
    yield 'multiRead.nothing', None, 22, b''
    for op, name, flags, tail in CREATES:
        for what, text in BOTH:
            for field, record in (
                    ('path', S(text) + S('x') + OPEN), ('data', S(fresh()) + S(text) + OPEN)):
                yield f'multi.{name}.{field}.{what}', None, 14, (
                    part(op, record + I(flags) + tail) + MULTI_END)
        for what, login, list_ in acl_lists():
            yield f'multi.{name}.acl.{what}', login, 14, (
                part(op, S(fresh()) + S('x') + list_ + I(flags) + tail) + MULTI_END)
    for what, text in BOTH:
        yield f'multi.delete.path.{what}', None, 14, part(2, S(text) + I(-1)) + MULTI_END
        yield f'multi.setData.path.{what}', None, 14, part(5, S(text) + S('x') + I(-1)) + MULTI_END
        yield f'multi.setData.data.{what}', None, 14, part(5, S('/n') + S(text) + I(-1)) + MULTI_END
        yield f'multi.second.{what}', None, 14, (
            part(5, S('/n') + S('y') + I(-1)) + part(2, S(text) + I(-1)) + MULTI_END)
        for op, name in ((4, 'getData'), (8, 'getChildren')):
            for watch in (F, T):
                yield f'multiRead.{name}.path.{what}.{watch[0]}', None, 22, (
                    part(op, S(text) + watch) + MULTI_END)
    for op, name in ((107, 'whoAmI'), (11, 'ping'), (-11, 'closeSession')):
        yield f'{name}.nothing', None, op, b''


class Connection:
    def __init__(self, address):
        self.socket = socket.create_connection(address, 5)
        self.socket.settimeout(1)
        connect = I(0) + L(0) + I(10000) + L(0) + S(bytes(16)) + F
        self.socket.sendall(I(len(connect)) + connect)
        assert self.frame() is not None, 'a session'

    def read(self, count):
        data = b''
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except TimeoutError:
                return b''
            except ConnectionError:
                return None
            if not more:
                return None
            data += more
        return data

    def frame(self):
        """The next frame; None at the end, b'' if nothing comes for a second."""
        length = self.read(4)
        return self.read(*struct.unpack('>i', length)) if length else length

    def call(self, xid, op, record):
        self.socket.sendall(I(8 + len(record)) + I(xid) + I(op) + record)
        while frame := self.frame():
            found, _, code = struct.unpack('>iqi', frame[:16])
            if found in (xid, -2):
                return code, len(frame) - 16
        return 'end' if frame is None else 'silence'


def answer(address, login, op, record):
    connection = Connection(address)
    if login:
        assert connection.call(3, 100, I(0) + S('digest') + S(login)) == (0, 0)
    found = connection.call(5, op, record)
    if isinstance(found, tuple):
        code, length = found
        # A connection that goes on answers a ping.
        ended = connection.call(-2, 11, b'') == 'end'
        found = f'{code} {length}' + (' end' if ended else '')
    connection.socket.close()
    return found


def main():
    host, port = sys.argv[1].rsplit(':', 1)
    print('# Made by interop/nulls.py with Apache ZooKeeper 3.8.0, standalone: see there.')
    for name, login, op, record in cases():
        found = answer((host, int(port)), login, op, record)
        print(name, login or '-', op, record.hex() or '-', found)


if __name__ == '__main__':
    main()
