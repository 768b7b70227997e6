#!/usr/bin/env python3
"""Makes the seeds of the target `server` out of those of `client`, `packet`, `handshake` and `notification`.

A piece is: whose connection (4 bits of number, 2 of the port, 2 of the server counted from the leader), what happens
besides, a length of two bytes, the bytes. See fuzz/src/server.rs.
"""

import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT, QUORUM, ELECTION, DIALLED = range(4)
DEAF, HEAR, MOMENT, TICKS, ASK, HANG_UP = 1, 2, 4, 8, 16, 32


def piece(port, number, data, server=0, also=0):
    whole = b""
    while True:
        part, data = data[:60000], data[60000:]
        whole += struct.pack(">BBH", server << 6 | port << 4 | number, also if not data else 0, len(part)) + part
        if not data:
            return whole


def packet(kind, zxid, data=None, auth=b"\xff" * 4):
    body = struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data
    return struct.pack(">iq", kind, zxid) + body + auth


def learner_info(sid, version=0x10000):
    return struct.pack(">qiq", sid, version, 0)


def vote(state, leader, zxid, round_, epoch):
    frame = struct.pack(">iqqqqii", state, leader, zxid, round_, epoch, 2, 0)
    return struct.pack(">i", len(frame)) + frame


def hello(sid):
    return struct.pack(">qqi", -65536, sid, 11) + b"127.0.0.1:1"


def read(*path):
    with open(os.path.join(HERE, *path), "rb") as file:
        return file.read()


def write(name, *pieces, alone=False):
    with open(os.path.join(HERE, "server", name), "wb") as file:
        file.write(bytes([alone]) + b"".join(pieces))


def client_pieces(data, server):
    """Those of a seed of `client`: whose, two bytes of a length, the bytes."""
    out = []
    while len(data) >= 3:
        who, length = data[0], struct.unpack(">H", data[1:3])[0]
        out.append(piece(CLIENT, who % 3, data[3:3 + length], server, HANG_UP if who & 0x80 else 0))
        data = data[3 + length:]
    return out


REQUEST, PROPOSAL, ACK, COMMIT, PING, REVALIDATE, SYNC = range(1, 8)
NEWLEADER, FOLLOWERINFO, UPTODATE, DIFF, TRUNC, SNAP, OBSERVERINFO, LEADERINFO, ACKEPOCH = 10, 11, 12, 13, 14, 15, 16, 17, 18


def joins(sid, kind=OBSERVERINFO, number=0, epoch=1, server=0):
    """A learner's introduction, promise and acknowledgements."""
    return (piece(QUORUM, number, packet(kind, epoch << 32, learner_info(sid)), server)
            + piece(QUORUM, number, packet(ACKEPOCH, 0, struct.pack(">i", 0)), server)
            + piece(QUORUM, number, packet(ACK, epoch << 32), server, ASK))


def request(session, cxid, op, record):
    return packet(REQUEST, -1, struct.pack(">qii", session, cxid, op) + record, struct.pack(">i", 0))


def main():
    os.makedirs(os.path.join(HERE, "server"), exist_ok=True)
    for number, name in enumerate(sorted(os.listdir(os.path.join(HERE, "client")))):
        data = read("client", name)
        if len(data) < 20000:
            write(f"client-{name}", *client_pieces(data, number % 3))
    create = (struct.pack(">i", 2) + b"/o" + struct.pack(">i", 1) + b"x" + struct.pack(">iii", 1, 31, 5) + b"world"
              + struct.pack(">i", 6) + b"anyone" + struct.pack(">i", 0))
    session = struct.pack(">qi", 77, 10000)
    write("observer", joins(4), piece(QUORUM, 0, request(77, 1, -10, struct.pack(">i", 10000)), also=ASK),
          piece(QUORUM, 0, request(77, 2, 1, create)), piece(QUORUM, 0, packet(REVALIDATE, -1, session)),
          piece(QUORUM, 0, request(77, 3, 9, struct.pack(">i", 1) + b"/"), also=MOMENT),
          piece(QUORUM, 0, packet(PING, 1 << 32, session), also=TICKS | ASK),
          piece(QUORUM, 0, request(77, 4, -11, b""), also=ASK))
    write("observer-deaf", joins(4), *(piece(QUORUM, 0, request(77, n, 9, struct.pack(">i", 1) + b"/"), also=DEAF)
                                       for n in range(20)), piece(QUORUM, 0, b"", also=HEAR | ASK))
    write("strangers", *(joins(sid, FOLLOWERINFO, number, 7) for number, sid in enumerate((2, 3, 9, 1, 5, 6, 7, 8))))
    write("claims", joins(3, FOLLOWERINFO, epoch=0x7FFF), joins(2, FOLLOWERINFO, 1, 0x7FFFFFFF), joins(4, epoch=5))
    write("votes", *(piece(ELECTION, sid, hello(sid) + vote(0, sid, 9 << 32, 99, 9), server, ASK)
                     for sid in (2, 3, 4, 9) for server in (0, 1)))
    write("silence", *(piece(port, number, b"", also=MOMENT) for port in (QUORUM, ELECTION) for number in range(10)))
    for name in sorted(os.listdir(os.path.join(HERE, "packet"))):
        write(f"packet-{name}", joins(4), piece(QUORUM, 0, read("packet", name), also=ASK))
    for name in sorted(os.listdir(os.path.join(HERE, "notification"))):
        write(f"vote-{name}", piece(ELECTION, 0, hello(3) + read("notification", name), also=ASK))
    # A server alone, which is told who leads by two others.
    header = struct.pack(">qiqqi", 5, 1, 3 << 32 | 1, 1, 1)
    txn = header + create
    snapshot = (struct.pack(">ii", 0, 1) + struct.pack(">qii", 1, 1, 31) + struct.pack(">i", 5) + b"world" + struct.pack(">i", 6)
                + b"anyone" + struct.pack(">i", 0) + struct.pack(">i", 0) + struct.pack(">q", 1) + bytes(60)
                + struct.pack(">i", 1) + b"/")
    follow = [piece(ELECTION, 2, hello(2) + vote(2, 2, 2 << 32, 1, 2)), piece(ELECTION, 3, hello(3) + vote(1, 2, 2 << 32, 1, 2), also=MOMENT),
              piece(DIALLED, 0, packet(LEADERINFO, 3 << 32, struct.pack(">i", 0x10000)))]
    end = [piece(DIALLED, 0, packet(NEWLEADER, 3 << 32)), piece(DIALLED, 0, packet(UPTODATE, -1), also=MOMENT)]
    live = [piece(DIALLED, 0, packet(PROPOSAL, 3 << 32 | 1, txn) + packet(COMMIT, 3 << 32 | 1)),
            piece(DIALLED, 0, packet(PING, 3 << 32 | 1), also=TICKS), *client_pieces(read("client", "crud"), 0)]
    write("follower-diff", *follow, piece(DIALLED, 0, packet(DIFF, 0)), *end, *live, alone=True)
    write("follower-snap", *follow, piece(DIALLED, 0, packet(SNAP, 2 << 32) + snapshot + struct.pack(">i", 10) + b"BenWasHere"),
          *end, *live, alone=True)
    write("follower-trunc", *follow, piece(DIALLED, 0, packet(TRUNC, 0)), *end, *live, alone=True)


if __name__ == "__main__":
    main()
