//! What is left over between a socket and the core, in each direction.

use std::io::{self, ErrorKind, Read, Write};

use bytes::{Buf, BytesMut};

/// How a turn of reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadEnd {
    /// The socket is empty.
    Drained,
    /// There may be more; others have their turn first.
    Turn,
    /// Too much is left untaken; read again after it was taken.
    Full,
    /// The other side has finished sending.
    Eof,
}

/// What a turn of reading may do.
#[derive(Clone, Copy, Debug)]
pub struct ReadTurn {
    /// Not much more bytes than these are read.
    pub turn: usize,
    /// Nothing is read while so many bytes or more are left untaken.
    pub max: usize,
    /// Only a read that finds nothing shows that the socket is empty; otherwise one that does not
    /// fill the buffer does.
    pub until_empty: bool,
}

/// Bytes received and not yet taken.
#[derive(Debug, Default)]
pub struct Inbox {
    rest: BytesMut,
}

impl Inbox {
    /// How many bytes wait to be taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether no bytes wait to be taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads `source` until it is empty, within the bounds of `turn`. `take` sees all bytes that
    /// wait, and says how many it used.
    ///
    /// # Errors
    /// Those of `source`, except that it would block or was interrupted.
    pub fn read(
        &mut self,
        source: &mut impl Read,
        scratch: &mut [u8],
        ReadTurn { turn, max, until_empty }: ReadTurn,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> io::Result<ReadEnd> {
        let mut total = 0;
        loop {
            if self.rest.len() >= max {
                return Ok(ReadEnd::Full);
            }
            if total >= turn {
                return Ok(ReadEnd::Turn);
            }
            // A short rest goes in front of what is read, so that `take` sees one piece without
            // the new bytes being copied. A long one is a long frame that fills up.
            let front = if self.rest.len() <= scratch.len() / 4 { self.rest.len() } else { 0 };
            let n = match source.read(&mut scratch[front..]) {
                Ok(0) => return Ok(ReadEnd::Eof),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(ReadEnd::Drained);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            total += n;
            let short = front + n < scratch.len();
            if front == self.rest.len() {
                scratch[..front].copy_from_slice(&self.rest);
                let bytes = &scratch[..front + n];
                let used = take(bytes);
                self.keep(&bytes[used..]);
            } else {
                self.rest.extend_from_slice(&scratch[..n]);
                self.offer(&mut take);
            }
            if short && !until_empty {
                return Ok(ReadEnd::Drained);
            }
        }
    }

    /// Offers `bytes` that were read elsewhere, after what waits.
    pub fn push(&mut self, bytes: &[u8], take: impl FnOnce(&[u8]) -> usize) {
        if self.rest.is_empty() {
            let used = take(bytes);
            self.keep(&bytes[used..]);
        } else {
            self.rest.extend_from_slice(bytes);
            self.offer(take);
        }
    }

    /// Offers again what waits.
    pub fn offer(&mut self, take: impl FnOnce(&[u8]) -> usize) {
        if self.rest.is_empty() {
            return;
        }
        let used = take(&self.rest);
        self.rest.advance(used);
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            // An idle connection holds no memory.
            self.rest = BytesMut::new();
        } else {
            self.rest.clear();
            self.rest.extend_from_slice(bytes);
        }
    }
}

/// How a turn of writing ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flushed {
    /// All is sent.
    All,
    /// There may be more; others have their turn first.
    Turn,
    /// The socket is full; go on when it is writable.
    Blocked,
}

/// Bytes that the core has given and the socket has not taken.
#[derive(Debug, Default)]
pub struct Outbox {
    unsent: BytesMut,
}

impl Outbox {
    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Writes what was left over, then all that `fill` puts into `scratch` until it returns 0, but
    /// not much more than `turn` bytes: one write if the socket takes it all.
    ///
    /// # Errors
    /// Those of `sink`, except that it would block or was interrupted.
    pub fn flush(
        &mut self,
        sink: &mut impl Write,
        scratch: &mut [u8],
        turn: usize,
        mut fill: impl FnMut(&mut [u8]) -> usize,
    ) -> io::Result<Flushed> {
        if !self.is_empty() {
            let sent = write_all(sink, &self.unsent)?;
            self.unsent.advance(sent);
            if !self.unsent.is_empty() {
                return Ok(Flushed::Blocked);
            }
            *self = Self::default();
        }
        let mut total = 0;
        while total < turn {
            let mut len = 0;
            while len < scratch.len() {
                match fill(&mut scratch[len..]) {
                    0 => break,
                    n => len += n,
                }
            }
            if len == 0 {
                return Ok(Flushed::All);
            }
            let sent = write_all(sink, &scratch[..len])?;
            if sent < len {
                self.unsent.extend_from_slice(&scratch[sent..len]);
                return Ok(Flushed::Blocked);
            }
            if len < scratch.len() {
                return Ok(Flushed::All);
            }
            total += len;
        }
        Ok(Flushed::Turn)
    }
}

/// Writes until all is sent or the socket is full, as edge-triggered readiness wants.
fn write_all(sink: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match sink.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives and takes at most `step` bytes per call, and would block after `calls` calls.
    struct Socket {
        bytes: Vec<u8>,
        step: usize,
        calls: usize,
    }

    impl Socket {
        fn call(&mut self) -> io::Result<()> {
            if self.calls == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.calls -= 1;
            Ok(())
        }
    }

    impl Read for Socket {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.call()?;
            let n = buf.len().min(self.step).min(self.bytes.len());
            buf[..n].copy_from_slice(&self.bytes[..n]);
            self.bytes.drain(..n);
            Ok(n)
        }
    }

    impl Write for Socket {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.call()?;
            let n = buf.len().min(self.step);
            self.bytes.extend_from_slice(&buf[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Frames of one length byte and that many bytes.
    fn take(bytes: &[u8], frames: &mut Vec<Vec<u8>>) -> usize {
        let mut used = 0;
        while let Some(len) = bytes.get(used) {
            let end = used + 1 + usize::from(*len);
            let Some(frame) = bytes.get(used + 1..end) else { break };
            frames.push(frame.to_vec());
            used = end;
        }
        used
    }

    #[test]
    fn frames_survive_any_segmentation() {
        let sent: Vec<Vec<u8>> = (0..=255).map(|n: u8| vec![n; usize::from(n)]).collect();
        let stream: Vec<u8> = sent
            .iter()
            .flat_map(|f| [&[u8::try_from(f.len()).unwrap()], &f[..]].concat())
            .collect();
        for step in [1, 7, 64, 1000, 100_000] {
            let mut socket = Socket { bytes: stream.clone(), step, calls: usize::MAX };
            let (mut inbox, mut got, mut scratch) = (Inbox::default(), Vec::new(), [0; 300]);
            let bounds = ReadTurn { turn: usize::MAX, max: 512, until_empty: true };
            let end = inbox.read(&mut socket, &mut scratch, bounds, |b| take(b, &mut got));
            assert_eq!(end.unwrap(), ReadEnd::Eof);
            assert_eq!(got, sent, "step {step}");
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn what_is_not_taken_stops_the_reading_and_is_offered_again() {
        let mut socket = Socket { bytes: vec![7; 1000], step: 64, calls: usize::MAX };
        let (mut inbox, mut scratch) = (Inbox::default(), [0; 256]);
        let bounds = ReadTurn { turn: usize::MAX, max: 200, until_empty: true };
        let end = inbox.read(&mut socket, &mut scratch, bounds, |_| 0).unwrap();
        assert_eq!((end, inbox.len(), socket.bytes.len()), (ReadEnd::Full, 256, 744));
        let mut seen = Vec::new();
        inbox.offer(|b| {
            seen.extend_from_slice(&b[..100]);
            100
        });
        let end = inbox.read(&mut socket, &mut scratch, bounds, |b| {
            seen.extend_from_slice(b);
            b.len()
        });
        assert_eq!((end.unwrap(), seen), (ReadEnd::Eof, vec![7; 1000]));
    }

    #[test]
    fn a_short_read_may_be_the_last() {
        let mut socket = Socket { bytes: vec![7; 600], step: 256, calls: usize::MAX };
        let (mut inbox, mut scratch, mut got) = (Inbox::default(), [0; 256], 0);
        let turn = ReadTurn { turn: usize::MAX, max: 1000, until_empty: false };
        let mut read = |socket: &mut Socket| {
            inbox.read(socket, &mut scratch, turn, |bytes| {
                got += bytes.len();
                bytes.len()
            })
        };
        assert_eq!(read(&mut socket).unwrap(), ReadEnd::Drained);
        assert_eq!(read(&mut socket).unwrap(), ReadEnd::Eof);
        assert_eq!((got, socket.bytes.len()), (600, 0));
    }

    #[test]
    fn a_full_socket_keeps_the_order() {
        let mut source = (0..10_000u32).flat_map(u32::to_be_bytes).collect::<Vec<u8>>();
        let want = source.clone();
        let mut fill = |buf: &mut [u8]| {
            let n = buf.len().min(333).min(source.len());
            buf[..n].copy_from_slice(&source[..n]);
            source.drain(..n);
            n
        };
        let (mut outbox, mut scratch) = (Outbox::default(), [0; 1024]);
        let mut socket = Socket { bytes: Vec::new(), step: 100, calls: 0 };
        let mut end = Flushed::Blocked;
        for calls in (1..1000).cycle() {
            socket.calls = calls % 37;
            end = outbox.flush(&mut socket, &mut scratch, 4096, &mut fill).unwrap();
            if end == Flushed::All {
                break;
            }
        }
        assert_eq!((end, &socket.bytes, outbox.is_empty()), (Flushed::All, &want, true));
    }
}
