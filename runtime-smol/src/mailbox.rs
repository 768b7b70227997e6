//! Where everybody leaves word for the loop.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A queue with one reader, which is woken when something comes.
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    letters: Vec<T>,
    /// Something has come that is no letter.
    rung: bool,
    reader: Option<Waker>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { letters: Vec::new(), rung: false, reader: None }) }
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox")
    }
}

impl<T> Mailbox<T> {
    /// Leaves a letter.
    pub(crate) fn send(&self, letter: T) {
        self.wake(|inner| inner.letters.push(letter));
    }

    /// Wakes the reader for something else.
    pub(crate) fn ring(&self) {
        self.wake(|inner| inner.rung = true);
    }

    fn wake(&self, change: impl FnOnce(&mut Inner<T>)) {
        let mut inner = self.lock();
        change(&mut inner);
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Puts all letters into `letters`, which is empty.
    pub(crate) fn take(&self, letters: &mut Vec<T>) {
        let mut inner = self.lock();
        inner.rung = false;
        std::mem::swap(&mut inner.letters, letters);
    }

    /// Ready once something has come since the last [`take`](Self::take); else `reader` is woken
    /// when it does.
    pub(crate) fn poll(&self, reader: &Waker) -> Poll<()> {
        let mut inner = self.lock();
        if inner.rung || !inner.letters.is_empty() {
            return Poll::Ready(());
        }
        match &mut inner.reader {
            Some(known) => known.clone_from(reader),
            none => *none = Some(reader.clone()),
        }
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Every state of `Inner` is a valid one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
