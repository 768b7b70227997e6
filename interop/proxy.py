"""Links between members that can be cut: one small TCP proxy per direction and port.

A server is known to the others by the address in the server line, so each member's configuration names the proxies in
place of the others. The opening message of an election connection carries the caller's own address, by which it may be
called back around the proxy: that address is replaced on the way. All ports have five digits, so lengths stay.
"""

import asyncio
import socket
import threading


def listen():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    sock.setblocking(False)
    return sock


class Link:
    """Everything one member sends to another of its own accord: an election and a quorum listener."""

    def __init__(self):
        self.quorum, self.election = listen(), listen()
        self.open = asyncio.Event()
        self.refuse = False
        self.rate = None  # bytes per second, if it is a slow one
        self.writers = set()


class Proxies:
    """All links of an ensemble, served by one thread."""

    def __init__(self, members):
        self.loop = asyncio.new_event_loop()
        self.members = members
        self.links = {(a.sid, b.sid): Link() for a in members for b in members if a is not b}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def ports(self, source, target):
        link = self.links[source.sid, target.sid]
        return link.quorum.getsockname()[1], link.election.getsockname()[1]

    def run(self):
        asyncio.set_event_loop(self.loop)
        for (source, target), link in self.links.items():
            link.open.set()
            self.loop.create_task(self.accept(link, link.quorum, source, target, False))
            self.loop.create_task(self.accept(link, link.election, source, target, True))
        self.loop.run_forever()

    async def accept(self, link, listener, source, target, election):
        while True:
            conn, _ = await self.loop.sock_accept(listener)
            if link.refuse:
                conn.close()
                continue
            self.loop.create_task(self.serve(link, conn, source, target, election))

    async def serve(self, link, conn, source, target, election):
        member = next(m for m in self.members if m.sid == target)
        port = member.election_port if election else member.quorum_port
        back = self.links[target, source]
        try:
            here = await asyncio.open_connection(sock=conn)
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            conn.close()
            return
        link.writers.update((here[1], there[1]))
        rewrite = None
        if election:
            caller = next(m for m in self.members if m.sid == source)
            rewrite = (f":{caller.election_port}".encode(), f":{back.election.getsockname()[1]}".encode())
        await asyncio.gather(
            self.pump(here[0], there[1], link, rewrite), self.pump(there[0], here[1], back, None)
        )
        link.writers.difference_update((here[1], there[1]))

    async def pump(self, reader, writer, gate, rewrite):
        """Copies until either side closes; stands still while the direction's gate is shut."""
        try:
            if rewrite is not None:
                head = await reader.readexactly(20)
                address = await reader.readexactly(int.from_bytes(head[16:20], "big"))
                writer.write(head + address.replace(*rewrite))
            while True:
                piece = await reader.read(65536)
                await gate.open.wait()
                if not piece:
                    break
                writer.write(piece)
                await writer.drain()
                if gate.rate:
                    await asyncio.sleep(len(piece) / gate.rate)
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    def call(self, function):
        done = threading.Event()

        def run():
            function()
            done.set()

        self.loop.call_soon_threadsafe(run)
        done.wait(5)

    def between(self, group, others):
        return [self.links[key] for a in group for b in others if a is not b for key in ((a.sid, b.sid), (b.sid, a.sid))]

    def hole(self, group, others):
        """Nothing passes any more, in either direction, and nobody is told (a pulled cable)."""
        links = self.between(group, others)
        self.call(lambda: [link.open.clear() for link in links])

    def cut(self, group, others):
        """Connections between the two groups are closed, and new ones refused."""
        def run():
            for link in self.between(group, others):
                link.refuse = True
                for writer in list(link.writers):
                    writer.transport.abort()
        self.call(run)

    def slow(self, source, target, rate):
        """What `source` sends to `target` passes at `rate` bytes per second; None: at once."""
        self.links[source.sid, target.sid].rate = rate

    def heal(self):
        """Everything passes again. What lay in a hole is delivered."""
        def run():
            for link in self.links.values():
                link.refuse = False
                link.open.set()
        self.call(run)

    def stop(self):
        def run():
            for link in self.links.values():
                for writer in list(link.writers):
                    writer.transport.abort()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_later(0.05, self.loop.stop)
        self.call(run)
        self.thread.join(5)
        for link in self.links.values():
            link.quorum.close()
            link.election.close()
