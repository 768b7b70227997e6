//! The tree that is loaded, written and compared.

use std::path::Path;

use zab_proto::{Application, Membership, Zxid};
use zab_storage::{Loaded, SnapshotReader, Through, View};
use zk_service::{Service, ServiceOptions};

use crate::Error;

/// A tree in memory, and the zxid that it is the state of.
pub(crate) struct Tree {
    pub(crate) service: Service,
    pub(crate) zxid: Zxid,
}

/// What two equal trees have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Figures {
    pub(crate) nodes: u64,
    pub(crate) sessions: u64,
    /// ZooKeeper's digest of all paths, data and stats.
    pub(crate) digest: u64,
}

impl Tree {
    fn service() -> Service {
        Service::new(ServiceOptions::default())
    }

    /// The state of a data directory.
    pub(crate) fn load(
        view: &View,
        through: Through,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(Self, Loaded), Error> {
        let mut service = Self::service();
        let loaded = view.load(&mut service, through, |zxid| {
            progress(&format!("transactions applied up to {zxid}"));
        })?;
        Ok((Self { service, zxid: loaded.zxid }, loaded))
    }

    /// The state in one snapshot file, whose seals must be whole.
    pub(crate) fn read(path: &Path, zxid: Zxid) -> Result<Self, Error> {
        let mut service = Self::service();
        let mut reader = SnapshotReader::open(path)?;
        let damaged = || Error::Refused(format!("{}: the tree does not decode", path.display()));
        loop {
            let progress = service.install(reader.bytes()).map_err(|_| damaged())?;
            reader.consume(progress.consumed);
            if progress.done {
                break;
            }
            if reader.fill()?.is_none() {
                return Err(damaged());
            }
        }
        let trailer = reader.finish()?;
        service.install_commit(zxid, trailer.digest.filter(|digest| digest.zxid != Zxid::ZERO));
        Ok(Self { service, zxid })
    }

    pub(crate) fn figures(&self) -> Figures {
        let database = self.service.database();
        Figures {
            nodes: database.tree.node_count() as u64,
            sessions: database.sessions.len() as u64,
            digest: database.tree.digest().unwrap_or_default(),
        }
    }

    /// The members, by `/zookeeper/config`. Members keep that node to themselves: it is in a file only
    /// if a snapshot was written while the member served, or after a `reconfig`.
    pub(crate) fn members(&self) -> Option<Membership> {
        let node = self.service.database().tree.node("/zookeeper/config")?;
        let members = Membership::parse_text(node.data()?).ok()?;
        let votes = members.voters().next().is_some();
        votes.then_some(members)
    }
}
