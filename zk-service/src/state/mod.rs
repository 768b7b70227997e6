//! What transactions change: the same on every server that has applied the same ones.

mod agreement;
pub(crate) mod apply;
pub(crate) mod census;
pub(crate) mod database;
pub(crate) mod listing;
pub(crate) mod snapshot;
pub(crate) mod steps;
pub mod tree;
pub(crate) mod watch;

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{BadSnapshot, DigestVerdict, InstallProgress, SnapshotDigest, Zxid};

use self::agreement::Agreement;
use self::apply::{Outcome, Trigger};
use self::database::{Database, DigestCheck};
use self::listing::Listings;
use self::snapshot::Loader;
use self::steps::{Step, Steps, Unfinished};
use self::tree::{CONFIG_PATH, NodeRef, Tree};
use crate::protocol::event::Event;
use crate::protocol::txn::{Payload, Txn, TxnDigest};

/// The replicated state, what is known of its agreement with the other replicas, and the snapshot
/// that is to replace it.
#[derive(Debug)]
pub(crate) struct State {
    db: Database,
    /// Long lists of children, made once for all that ask.
    listings: Listings,
    loader: Option<Loader>,
    agreement: Agreement,
    /// A transaction that is applied in part. Nobody is to read the tree before the rest of it is.
    unfinished: Option<Box<Unfinished>>,
    /// Why this server must not go on.
    failure: Option<String>,
}

impl State {
    /// An empty database. Digests are kept if `digests`.
    pub(crate) fn new(digests: bool) -> Self {
        Self {
            db: Database::new(digests),
            listings: Listings::default(),
            loader: None,
            agreement: Agreement::default(),
            unfinished: None,
            failure: None,
        }
    }

    pub(crate) fn db(&self) -> &Database {
        &self.db
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.db.tree
    }

    /// What a read looks at, and the lists that are made for reads.
    pub(crate) fn reading(&mut self) -> (&Tree, &mut Listings) {
        (&self.db.tree, &mut self.listings)
    }

    pub(crate) fn listings(&self) -> &Listings {
        &self.listings
    }

    /// Nobody goes on with a list that was begun.
    pub(crate) fn clear_listings(&mut self) {
        self.listings.clear();
    }

    pub(crate) fn last_zxid(&self) -> Zxid {
        self.db.last_zxid()
    }

    /// Whether a session exists.
    pub(crate) fn has_session(&self, session: i64) -> bool {
        self.db.sessions.get(session).is_some()
    }

    /// How often a digest was not that of the tree.
    pub(crate) fn digest_mismatches(&self) -> u64 {
        self.agreement.mismatches()
    }

    /// Whether the tree had the digest that the last transaction brought, if it did.
    pub(crate) fn agreed(&self) -> DigestVerdict {
        self.agreement.agreed()
    }

    /// Decodes a committed transaction. If it does not decode, this server must not go on: it would
    /// be another one than the others.
    pub(crate) fn decode<'a>(&mut self, zxid: Zxid, txn: &'a [u8]) -> Option<Payload<'a>> {
        match Payload::decode(txn) {
            Ok(payload) => Some(payload),
            Err(error) => {
                self.failure = Some(format!(
                    "the committed transaction {zxid} cannot be applied: {error}. A leader of another \
                     version may know its kind. Without it this member would be another one than \
                     the others, so it ends"
                ));
                None
            }
        }
    }

    /// Why this server must not go on.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Clears up to `count` removed nodes away.
    pub(crate) fn sweep(&mut self, count: usize) {
        self.db.tree.sweep(count);
    }

    /// Applies a transaction that does not [begin](Self::begin) with a first step.
    pub(crate) fn apply(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'_>,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Outcome {
        self.db.apply_at_once(header, txn, sink)
    }

    /// See [`Database::begin`].
    pub(crate) fn begin(&mut self, header: &TxnHeader, txn: &Txn<'_>) -> Option<Steps> {
        self.db.begin(header, txn)
    }

    /// Does the next step of a transaction that has begun.
    pub(crate) fn step<'a>(
        &mut self,
        header: &TxnHeader,
        txn: &Txn<'a>,
        steps: &mut Steps,
        sink: &mut impl FnMut(Trigger<'_>),
    ) -> Step<'a> {
        self.db.step(header, txn, steps, sink)
    }

    /// All steps are done. Returns the outcome of the whole.
    pub(crate) fn end(&mut self, zxid: Zxid, txn: &Txn<'_>, steps: &Steps) -> Outcome {
        self.db.end(zxid, txn, steps)
    }

    /// Whether a transaction is applied in part.
    pub(crate) fn is_applying(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Sets a transaction aside that is applied in part.
    pub(crate) fn set_aside(&mut self, unfinished: Option<Box<Unfinished>>) {
        self.unfinished = unfinished;
    }

    /// What is set aside.
    pub(crate) fn take_unfinished(&mut self) -> Option<Box<Unfinished>> {
        self.unfinished.take()
    }

    /// Compares the tree with the digest of the transaction that has just been applied.
    pub(crate) fn compare(
        &mut self,
        zxid: Zxid,
        (header, digest): (&TxnHeader, Option<TxnDigest>),
        is_serving: bool,
    ) {
        let check = self.db.check_digest(zxid, digest);
        self.agreement.compared(header, zxid, check, is_serving);
    }

    /// Whether a transaction brings a digest of the kind that this tree keeps.
    pub(crate) fn has_digest(&self, txn: &[u8]) -> bool {
        let digest = Payload::decode(txn).ok().and_then(|payload| payload.digest);
        digest.is_some_and(|digest| self.db.is_comparable(&digest))
    }

    /// See [`Database::set_config`]. Tells `sink` if the text is another one.
    pub(crate) fn set_config(
        &mut self,
        text: &[u8],
        version: Zxid,
        time: i64,
        sink: &mut dyn FnMut(Trigger<'_>),
    ) {
        let node = self.db.tree.node(CONFIG_PATH);
        let is_other = node.and_then(NodeRef::data) != Some(text);
        self.db.set_config(text, version, time);
        if let Some(node) = self.db.tree.node(CONFIG_PATH).filter(|_| is_other) {
            let (path, acl, rules) = (CONFIG_PATH, node.acl(), node.rules());
            let data_len = text.len();
            sink(Trigger { event: Event::DataChanged, path, data_len, acl, rules });
        }
    }

    /// Whether `/zookeeper/config` is what the configuration of this version and text makes it.
    pub(crate) fn has_config(&self, text: &[u8], version: Zxid) -> bool {
        let is_it =
            |node: NodeRef<'_>| node.data() == Some(text) && node.persisted().mzxid == version;
        self.db.tree.node(CONFIG_PATH).is_some_and(is_it)
    }

    /// A fuzzy snapshot may lack the list of a node that changed while it was written, and the
    /// transaction that made the list follows in the log. Whatever lacks one now lacks it for good,
    /// until somebody sets it: a damaged snapshot. An Apache server throws when such a node changes.
    pub(crate) fn report_missing_acls(&self) {
        let keys: Vec<i64> = self.db.tree.missing_acls().collect();
        if !keys.is_empty() {
            log::error!(
                "The snapshot lacks the ACLs {keys:?}, and no transaction after it brings them: \
                 the nodes that use them permit nothing. Have a superuser set them, or \
                 empty the data directory of this server."
            );
        }
    }

    /// Opens a snapshot, to be lent to the core.
    pub(crate) fn snapshot_open(&mut self) -> u32 {
        self.db.snapshot_open().expect("the core keeps to its own limit, which is lower")
    }

    pub(crate) fn snapshot_read(&mut self, snapshot: u32, buf: &mut [u8]) -> usize {
        self.db.snapshot_read(snapshot, buf)
    }

    pub(crate) fn snapshot_close(&mut self, snapshot: u32) {
        self.db.snapshot_close(snapshot);
    }

    /// Takes the next bytes of a snapshot that is to replace the state.
    pub(crate) fn install(
        &mut self,
        digests: bool,
        bytes: &[u8],
    ) -> Result<InstallProgress, BadSnapshot> {
        // Longer fields than a client may send can be in a snapshot that another server made.
        let loader = self.loader.get_or_insert_with(|| Loader::new(digests, usize::MAX));
        let progress = loader.push(bytes);
        if progress.is_err() {
            self.loader = None;
        }
        progress
    }

    /// The snapshot becomes the state.
    pub(crate) fn install_commit(&mut self, zxid: Zxid, digest: Option<SnapshotDigest>) {
        let Some(loaded) = self.loader.take().and_then(Loader::finish) else {
            panic!("a snapshot is committed after its last byte");
        };
        // What was being applied belongs to the state that this one replaces.
        self.unfinished = None;
        if let DigestCheck::Mismatch { expected, actual } = self.db.install(loaded, zxid, digest) {
            log::error!("digest of snapshot {zxid} is {actual:#x}, should be {expected:#x}");
            self.agreement.count();
        }
    }

    /// How many bytes of the snapshot have to be offered at once, after none were taken.
    pub(crate) fn install_needs(&self) -> Option<usize> {
        self.loader.as_ref().map(Loader::needs)
    }

    pub(crate) fn install_abort(&mut self) {
        self.loader = None;
    }
}
