//! Snapshots of an application whose whole state fits into one buffer.
//!
//! An image on the wire and on disk is its length (8 bytes, big-endian) and its bytes. Copying the
//! state takes time and memory proportional to its size, so this is for states of megabytes, not of
//! gigabytes; larger ones write themselves piece by piece, as `zk-service` does.

use alloc::vec::Vec;

use crate::InstallProgress;

/// The open snapshots of an [`Application`](crate::Application), each a copy of its state.
#[derive(Clone, Debug, Default)]
pub struct Images {
    open: Vec<Image>,
    next: u32,
}

#[derive(Clone, Debug)]
struct Image {
    name: u32,
    bytes: Vec<u8>,
    read: usize,
}

impl Images {
    /// Opens an image of `state`, for `Application::snapshot_open`.
    pub fn open(&mut self, state: &[u8]) -> u32 {
        let mut bytes = Vec::with_capacity(PREFIX_LEN + state.len());
        bytes.extend_from_slice(&(state.len() as u64).to_be_bytes());
        bytes.extend_from_slice(state);
        self.next = self.next.wrapping_add(1);
        self.open.push(Image { name: self.next, bytes, read: 0 });
        self.next
    }

    /// For `Application::snapshot_read`.
    pub fn read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        let Some(image) = self.open.iter_mut().find(|image| image.name == snapshot) else {
            return 0;
        };
        let rest = &image.bytes[image.read..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        image.read += n;
        n
    }

    /// For `Application::snapshot_close`.
    pub fn close(&mut self, snapshot: u32) {
        self.open.retain(|image| image.name != snapshot);
    }
}

/// An image that arrives. It takes memory as its bytes come, whatever length it announces.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    len: Option<u64>,
    bytes: Vec<u8>,
}

impl Staged {
    /// For `Application::install`.
    pub fn install(&mut self, bytes: &[u8]) -> InstallProgress {
        let mut consumed = 0;
        let len = match self.len {
            Some(len) => len,
            None => {
                let Some(prefix) = bytes.first_chunk::<PREFIX_LEN>() else {
                    return InstallProgress { consumed, done: false };
                };
                consumed = PREFIX_LEN;
                *self.len.insert(u64::from_be_bytes(*prefix))
            }
        };
        let missing = len - self.bytes.len() as u64;
        let rest = &bytes[consumed..];
        let take = usize::try_from(missing).map_or(rest.len(), |missing| missing.min(rest.len()));
        self.bytes.extend_from_slice(&rest[..take]);
        InstallProgress { consumed: consumed + take, done: take as u64 == missing }
    }

    /// The state, for `Application::install_commit`. Nothing is staged afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        self.len = None;
        core::mem::take(&mut self.bytes)
    }
}

/// The length in front of an image.
const PREFIX_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_arrives_in_any_pieces() {
        let state: Vec<u8> = (0..100).collect();
        for piece in [1, 3, 7, 8, 9, 200] {
            let mut images = Images::default();
            let (other, image) = (images.open(b""), images.open(&state));
            let (mut staged, mut waiting, mut done) = (Staged::default(), Vec::new(), false);
            let mut buf = alloc::vec![0; piece];
            loop {
                let n = images.read(image, &mut buf);
                if n == 0 {
                    break;
                }
                waiting.extend_from_slice(&buf[..n]);
                assert!(!done);
                let progress = staged.install(&waiting);
                waiting.drain(..progress.consumed);
                done = progress.done;
            }
            assert!(done && waiting.is_empty());
            assert_eq!(staged.take(), state);
            images.close(image);
            assert_eq!((images.read(image, &mut buf), images.open.len()), (0, 1));
            images.close(other);
        }
    }

    #[test]
    fn the_next_image_begins_where_one_ends() {
        let mut staged = Staged::default();
        let bytes = [&[0; 8][..], b"more"].concat();
        assert_eq!(staged.install(&bytes), InstallProgress { consumed: 8, done: true });
        assert_eq!(staged.take(), b"");
        let huge = [&[0xff; 8][..], b"more"].concat();
        assert_eq!(staged.install(&huge), InstallProgress { consumed: 12, done: false });
        assert!(staged.bytes.capacity() < 100);
    }
}
