//! Transactions of many parts, kept beyond the call that brought them.

use crate::protocol::txn::{Parts, Paths, Txn};

/// A pattern: a transaction that is applied in one step, unlike multis and the ends of sessions.
macro_rules! whole_txn {
    () => {
        $crate::protocol::txn::Txn::Create(_)
            | $crate::protocol::txn::Txn::Delete { .. }
            | $crate::protocol::txn::Txn::SetData { .. }
            | $crate::protocol::txn::Txn::SetAcl { .. }
            | $crate::protocol::txn::Txn::Check { .. }
            | $crate::protocol::txn::Txn::CreateSession { .. }
            | $crate::protocol::txn::Txn::Error(_)
    };
}
pub(crate) use whole_txn;

/// A copy of a multi, or of the end of a session.
#[derive(Debug)]
pub(crate) struct TxnBuf {
    kind: Kind,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Multi {
        count: i32,
        failed: bool,
    },
    /// `None`: the record lists no paths.
    CloseSession {
        count: Option<i32>,
    },
}

impl TxnBuf {
    /// `None`: it has no parts.
    pub(crate) fn new(txn: &Txn<'_>) -> Option<Self> {
        let (kind, bytes) = match txn {
            Txn::Multi(parts) => {
                let (count, bytes) = parts.raw();
                (Kind::Multi { count, failed: parts.is_failed() }, bytes)
            }
            Txn::CloseSession(Some(paths)) => {
                let (count, bytes) = paths.raw();
                (Kind::CloseSession { count: Some(count) }, bytes)
            }
            Txn::CloseSession(None) => (Kind::CloseSession { count: None }, &[][..]),
            whole_txn!() => return None,
        };
        Some(Self { kind, bytes: bytes.into() })
    }

    /// The transaction.
    pub(crate) fn txn(&self) -> Txn<'_> {
        let bytes = &self.bytes;
        match self.kind {
            Kind::Multi { count, failed } => Txn::Multi(Parts::from_raw((count, bytes), failed)),
            Kind::CloseSession { count } => {
                Txn::CloseSession(count.map(|count| Paths::from_raw((count, bytes))))
            }
        }
    }
}
