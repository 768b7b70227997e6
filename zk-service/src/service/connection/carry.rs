//! What a connection takes along through a change of the role; see `service/hold.rs`.

use zab_proto::Zxid;

use crate::service::connection::Client;
use crate::service::connection::entry::Entry;
use crate::service::connection::order::InFlight;

/// How one connection comes through a change of the role.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::service) struct Carry {
    /// Bytes of the writes in flight that are kept.
    pub(super) kept_writes_len: usize,
    /// So many requests at the end of the queue have not been submitted to the present leader yet,
    /// with this many bytes of kept records. Nothing more is read before they are.
    pub(in crate::service) again: usize,
    pub(super) again_len: usize,
    /// Bytes of the writes among them.
    pub(super) again_writes_len: usize,
    /// The handshake asks for a session that there is.
    pub(in crate::service) resumes: bool,
    /// This server is back with the leader it had: the session is asked for again before anything
    /// else.
    pub(in crate::service) rejoins: bool,
    /// Transactions of the session up to here may be those of requests to another server.
    pub(in crate::service) floor: Zxid,
    /// A transaction of the session was not asked for here: its client has gone elsewhere.
    pub(in crate::service) moved: bool,
}

impl Client {
    /// The request that must be submitted again next, unless all have been.
    pub(in crate::service) fn next_again(&self) -> Option<(InFlight, &[u8])> {
        let request = *self.queue.back(self.carry.again)?;
        let at = self.kept.len() - self.carry.again_len;
        Some((request, &self.kept[at..at + request.kept_len()]))
    }
}

impl Entry<'_> {
    /// Keeps the record of a write, if those of its connection take at most `max` bytes then and
    /// those of all `max_of_all`. Whether it does.
    pub(in crate::service) fn keep_write(
        &mut self,
        record: &[u8],
        (max, max_of_all): (usize, usize),
    ) -> bool {
        let Self { client, shared, .. } = self;
        let of_all = shared.kept_writes_len + record.len();
        let of_client = client.carry.kept_writes_len + record.len();
        let keeps = of_client <= max && of_all <= max_of_all;
        if keeps {
            client.keep(record);
            client.carry.kept_writes_len = of_client;
            shared.kept_writes_len = of_all;
        }
        keeps
    }

    /// Everything in the connection's queue must be submitted again.
    pub(in crate::service) fn begin_again(&mut self) {
        let Self { client, shared, .. } = self;
        let writes_len = client.queue.writes_len();
        client.carry.again = client.queue.len();
        client.carry.again_len = client.kept_len();
        let before = std::mem::replace(&mut client.carry.again_writes_len, writes_len);
        shared.again_writes_len = shared.again_writes_len - before + writes_len;
    }

    /// No request of the connection needs to be submitted again, for now.
    pub(in crate::service) fn end_again(&mut self) {
        let Self { client, shared, .. } = self;
        let Carry { again_writes_len, .. } = client.carry;
        client.carry = Carry { again: 0, again_len: 0, again_writes_len: 0, ..client.carry };
        shared.again_writes_len -= again_writes_len;
    }

    /// The next of the requests that must be submitted again is on its way.
    pub(in crate::service) fn went_again(&mut self, proposed: Option<Zxid>) {
        let Self { client, shared, .. } = self;
        let again = client.carry.again;
        let Some(request) = client.queue.back(again).copied() else { return };
        client.queue.resubmitted(again, proposed);
        client.carry.again -= 1;
        client.carry.again_len -= request.kept_len();
        client.carry.again_writes_len -= request.write_len();
        shared.again_writes_len -= request.write_len();
    }
}
