"""Multis with every kind of create, under a leader of ours: applied alike by all releases, whatever they know."""

import struct
import time

from . import check, scenarios, wire
from .load import Load

CREATE_CONTAINER, CREATE_TTL = 19, 21
EXTENDED = ["zookeeper.extendedTypesEnabled=true"]
# Operation, flags, and the type of the result as 3.8.2 and later write it.
CREATES = (
    *((wire.CREATE, flags, 1) for flags in range(4)), (wire.CREATE, 4, 15), *((wire.CREATE2, flags, 15) for flags in range(5)),
    *((CREATE_CONTAINER, flags, 15) for flags in range(5)), *((CREATE_TTL, flags, 1) for flags in range(4)),
    *((CREATE_TTL, flags, 15) for flags in range(4, 7)),
)


def operations(base):
    for number, (op, flags, _) in enumerate(CREATES):
        ttl = struct.pack(">q", 1 << 36) if op == CREATE_TTL else b""
        yield op, wire.create_body(f"{base}/n{number}-", b"x", flags) + ttl
    # What is behind them shows that nothing was cut off.
    yield wire.SET_DATA, wire.set_data_body(base, b"done")


def result_types(body):
    """The types of the results in the answer to a multi."""
    types, at = [], 0
    while True:
        kind, done, _ = struct.unpack_from(">ibi", body, at)
        at += 9
        if done:
            return types
        types.append(kind)
        if kind in (wire.CREATE, wire.CREATE2):
            at += 4 + struct.unpack_from(">i", body, at)[0]
        at += {wire.CREATE: 0, wire.CREATE2: 68, wire.SET_DATA: 68, -1: 4}[kind]


def creates(ensemble, rounds=10):
    """Asked of each member; then members end and come back, so that logs are read and exchanged, and all is compared."""
    wanted = [kind for _, _, kind in CREATES] + [wire.SET_DATA]
    held = []
    with Load(ensemble, sessions=False) as load:
        for member in ensemble.members:
            # Its ephemeral nodes are there until all is compared.
            client = wire.Client(member.address, timeout_ms=30000)
            held.append(client)
            client.ensure("/kinds")
            for number in range(rounds):
                base = f"/kinds/{member.sid}-{number}"
                client.create(base)
                types = result_types(client.multi(list(operations(base))).body)
                assert -1 not in types, f"{member}: {types}"
                # The others tell what is in the transaction.
                assert member.kind != "zabd" or types == wanted, f"{member}: {types}"
                assert client.get(base)[0] == b"done", member
        leader = ensemble.leader()
        for member in ensemble.members:
            if member is not leader:
                scenarios.kill_and_restart(ensemble, member)
                ensemble.settled()
        time.sleep(0.5)
    detail = check.everything(ensemble, load)
    for client in held:
        client.drop()
    return f"{rounds * len(ensemble.members)} multis of {len(wanted)} parts; {detail}"
