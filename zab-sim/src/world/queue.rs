//! Virtual time: what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::net::Side;

/// A server or client of the simulation, by index.
pub type HostIx = usize;

/// Something that happens at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A dial reaches its target's kernel.
    Syn { conn: u32 },
    /// The target's process takes the connection from its backlog.
    Accept { conn: u32 },
    /// The dialler learns how its dial went.
    SynAck { conn: u32, opened: bool },
    /// Bytes (or, after the last of them, the end of the stream) arrive at the other side.
    Arrive { conn: u32, from: Side, len: u32 },
    /// The other side learns that the connection broke.
    Reset { conn: u32, at: Side },
    /// There is room for more bytes.
    Writable { conn: u32, from: Side },
    /// The receiver reads on.
    Readable { conn: u32, at: Side },
    /// A deadline of a server may have passed.
    Timer { server: HostIx },
    /// The oldest batch of a disk is durable.
    Durable { server: HostIx, incarnation: u32 },
    /// A server's background snapshot is published.
    Published { server: HostIx, incarnation: u32 },
    /// A process starts.
    Start { server: HostIx },
    /// A paused process goes on.
    Unpause { server: HostIx },
    /// A slow disk is as fast as ever.
    Unstall { server: HostIx },
    /// A slow reader reads as fast as the others again.
    Unslow { server: HostIx },
    /// A fault of the plan.
    Fault { index: usize },
    /// A fault that a hook has triggered, for this server.
    Triggered { index: usize, server: HostIx },
    /// The server's name can be resolved again.
    Resolved { server: HostIx },
    /// What a log holds is known.
    LogReady { server: HostIx, incarnation: u32 },
    /// The link stops working.
    Cut { from: HostIx, to: HostIx },
    /// The link works again.
    Heal { from: HostIx, to: HostIx },
    /// A client does something.
    Client { client: usize },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    at: u64,
    order: u64,
    slot: u32,
}

/// Events by time; at the same time, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Key>>,
    events: Vec<Event>,
    free: Vec<u32>,
    order: u64,
}

impl Queue {
    /// Adds an event.
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        let slot = if let Some(slot) = self.free.pop() {
            self.events[slot as usize] = event;
            slot
        } else {
            self.events.push(event);
            u32::try_from(self.events.len() - 1).expect("fewer than 2^32 events are pending")
        };
        self.order += 1;
        self.heap.push(Reverse(Key { at, order: self.order, slot }));
    }

    /// Takes the next event and its time.
    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse(key) = self.heap.pop()?;
        self.free.push(key.slot);
        Some((key.at, self.events[key.slot as usize]))
    }

    /// When the next event happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(key)| key.at)
    }
}

/// A microsecond of virtual time.
pub const MICRO: u64 = 1000;
/// A millisecond of virtual time.
pub const MILLI: u64 = 1000 * MICRO;
/// A second of virtual time.
pub const SECOND: u64 = 1000 * MILLI;
