//! What a turn of the loop reads and writes: of each connection a bounded piece, peers first.

use std::io::{self, Read};
use std::net::Shutdown;

use zab_proto::Input;

use super::{CloseState, Conns, Stream};
use crate::buffer::ReadTurn;
use crate::{Flushed, Inbox, NetHandler, ReadEnd};

impl<S: Stream> Conns<S> {
    /// Begins a turn of the loop: reads the sockets that had events, peers first, each for a bounded
    /// turn, and clients only as long as they do not hold up the peers.
    pub fn on_ready(&mut self, handler: &mut impl NetHandler) {
        self.write_left = self.options.clients_turn_bytes;
        let mut ready = std::mem::replace(&mut self.ready, std::mem::take(&mut self.spare));
        ready.retain(|&at| {
            let of_peer = self.slots[at].conn.as_ref().is_some_and(|conn| !conn.id.is_client());
            if of_peer {
                self.slots[at].queued = false;
                self.read(at, handler);
            }
            !of_peer
        });
        let (mut left, mut waiting) = (self.options.clients_turn_bytes, 0);
        for at in ready.drain(..) {
            if left == 0 {
                self.ready.push(at);
                waiting += 1;
            } else {
                self.slots[at].queued = false;
                left = left.saturating_sub(self.read(at, handler));
            }
        }
        // Who has had no turn now is the first to have one next time.
        self.ready.rotate_right(waiting);
        self.spare = ready;
    }

    /// Writes to all marked connections: to peers, then to clients with something new, a piece to
    /// each, then to the others in turn until a turn's bytes are written.
    pub fn flush(&mut self, handler: &mut impl NetHandler) {
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        dirty.retain(|&at| {
            let of_peer = self.slots[at].conn.as_ref().is_some_and(|conn| !conn.id.is_client());
            if of_peer {
                self.write(at, handler);
            }
            !of_peer
        });
        for at in dirty.drain(..) {
            let written = self.write(at, handler);
            self.write_left = self.write_left.saturating_sub(written);
        }
        self.spare = dirty;
        while self.write_left > 0
            && let Some(at) = self.behind.pop_front()
        {
            let written = self.write(at, handler);
            self.write_left = self.write_left.saturating_sub(written);
        }
    }

    /// Writes what waits to be sent on a connection, for a bounded turn. Returns how many bytes
    /// were fetched for it.
    fn write(&mut self, at: usize, handler: &mut impl NetHandler) -> usize {
        let Some(conn) = &mut self.slots[at].conn else { return 0 };
        conn.dirty = false;
        if conn.blocked || conn.stage == CloseState::Lingering {
            return 0;
        }
        let id = conn.id;
        // A client has one piece at a time, lest the others wait for its megabyte.
        let turn = if id.is_client() { 1 } else { self.options.write_turn_bytes };
        let mut fetched = 0;
        let fill = |buf: &mut [u8]| {
            let n = handler.transmit(id, buf);
            fetched += n;
            n
        };
        let end = conn.outbox.flush(&mut conn.stream, &mut self.scratch, turn, fill);
        let end = end.and_then(|end| {
            if end == Flushed::Blocked {
                conn.blocked = true;
                conn.stream.await_writable()?;
            }
            Ok(end)
        });
        match end {
            Ok(Flushed::All) if conn.stage == CloseState::Flushing => self.shut(at, handler, false),
            Ok(Flushed::All | Flushed::Blocked) => {}
            Ok(Flushed::Turn) if id.is_client() => {
                conn.dirty = true;
                self.behind.push_back(at);
            }
            Ok(Flushed::Turn) => self.mark_slot(at),
            Err(error) => self.broken(at, &error, handler),
        }
        fetched
    }

    /// Reads a socket for a bounded turn. Returns how many bytes there were.
    fn read(&mut self, at: usize, handler: &mut impl NetHandler) -> usize {
        let Some(conn) = &mut self.slots[at].conn else { return 0 };
        if !conn.readable || conn.eof {
            return 0;
        }
        let mut source = Counted { source: &mut conn.stream, bytes: 0 };
        let turn = ReadTurn {
            turn: self.options.read_turn_bytes,
            max: self.options.unread_max(conn.id),
            until_empty: !S::LEVEL_TRIGGERED,
        };
        let id = conn.id;
        let end = if conn.stage == CloseState::Open {
            let take = |bytes: &[u8]| handler.receive(id, bytes);
            conn.inbox.read(&mut source, &mut self.scratch, turn, take)
        } else {
            // What comes after the end is read and forgotten.
            let turn = ReadTurn { max: usize::MAX, ..turn };
            Inbox::default().read(&mut source, &mut self.scratch, turn, <[u8]>::len)
        };
        let bytes = source.bytes;
        let end = end.and_then(|end| {
            if end == ReadEnd::Drained {
                conn.readable = false;
                conn.stream.await_readable()?;
            }
            Ok(end)
        });
        match end {
            Ok(ReadEnd::Turn) => self.queue(at),
            // An event goes on, or `resume`.
            Ok(ReadEnd::Drained | ReadEnd::Full) => {}
            Ok(ReadEnd::Eof) => {
                conn.eof = true;
                if conn.stage == CloseState::Lingering {
                    self.release(at);
                } else {
                    self.ended.push((at, id));
                }
            }
            Err(error) => self.broken(at, &error, handler),
        }
        bytes
    }

    /// The last bytes are out, or took too long (`cut`).
    pub(super) fn shut(&mut self, at: usize, handler: &mut impl NetHandler, cut: bool) {
        let Some(conn) = self.conn(at) else { return };
        let id = conn.id;
        let gone = cut || conn.eof || conn.stream.shutdown(Shutdown::Write).is_err();
        conn.stage = CloseState::Lingering;
        if id.is_client() {
            self.ids.remove(&id);
            handler.input(Input::Closed { conn: id });
        }
        if gone {
            self.release(at);
        } else {
            self.set_deadline(at, Some(handler.now() + self.options.linger_timeout));
            self.queue(at);
        }
    }

    /// Reading or writing failed.
    fn broken(&mut self, at: usize, error: &io::Error, handler: &mut impl NetHandler) {
        let Some(conn) = &self.slots[at].conn else { return };
        log::debug!("Connection {:?} broke: {error}", conn.id);
        match conn.stage {
            CloseState::Open => self.ended.push((at, conn.id)),
            CloseState::Flushing => self.shut(at, handler, true),
            CloseState::Lingering => self.release(at),
        }
    }
}

/// A source whose bytes are counted.
struct Counted<'a, S> {
    source: &'a mut S,
    bytes: usize,
}

impl<S: Read> Read for Counted<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buf)?;
        self.bytes += n;
        Ok(n)
    }
}
