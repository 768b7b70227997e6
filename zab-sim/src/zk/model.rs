//! The service as it ought to be: a tree and a session table of its own, which carry out the
//! committed transactions one after the other, by the clients' requests where they are known, and
//! remember every state they were in.

use std::collections::BTreeMap;

use crate::zk::acl::{self, Acl, Entry, User, perms};
use crate::zk::history::Told;
use crate::zk::wire::{Answer, Kind, Mode, Request, Stat};

/// Codes of refusals.
pub(crate) mod code {
    pub(crate) const RUNTIME_INCONSISTENCY: i32 = -2;
    pub(crate) const NO_NODE: i32 = -101;
    pub(crate) const NO_AUTH: i32 = -102;
    pub(crate) const BAD_VERSION: i32 = -103;
    pub(crate) const NO_CHILDREN_FOR_EPHEMERALS: i32 = -108;
    pub(crate) const NODE_EXISTS: i32 = -110;
    pub(crate) const NOT_EMPTY: i32 = -111;
    pub(crate) const SESSION_EXPIRED: i32 = -112;
    pub(crate) const INVALID_ACL: i32 = -114;
    pub(crate) const SESSION_MOVED: i32 = -118;
    pub(crate) const EPHEMERAL_ON_LOCAL_SESSION: i32 = -120;
    pub(crate) const NO_WATCHER: i32 = -121;
}

/// Events, as the protocol numbers them.
pub(crate) mod event {
    pub(crate) const CREATED: i32 = 1;
    pub(crate) const DELETED: i32 = 2;
    pub(crate) const DATA_CHANGED: i32 = 3;
    pub(crate) const CHILDREN_CHANGED: i32 = 4;
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) data: Vec<u8>,
    pub(crate) acl: Acl,
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) pzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    pub(crate) version: i32,
    pub(crate) aversion: i32,
    /// Children created so far.
    pub(crate) creations: i32,
    pub(crate) kind: Kind,
    /// The session, if it is ephemeral.
    pub(crate) owner: i64,
    pub(crate) children: i32,
}

impl Node {
    fn new(data: Vec<u8>, acl: Acl, zxid: i64, time: i64) -> Self {
        Self {
            data,
            acl,
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            version: 0,
            aversion: 0,
            creations: 0,
            kind: Kind::Persistent,
            owner: 0,
            children: 0,
        }
    }

    /// Whether a user has one of the permissions `wanted`.
    pub(crate) fn permits(&self, wanted: i32, user: User) -> Result<(), i32> {
        if acl::permits(&self.acl, wanted, user) { Ok(()) } else { Err(code::NO_AUTH) }
    }

    /// The owner as servers store it.
    pub(crate) fn stored_owner(&self) -> i64 {
        match self.kind {
            Kind::Persistent | Kind::Ephemeral => self.owner,
            Kind::Container => i64::MIN,
            Kind::Ttl(ttl_ms) => 0xff_i64 << 56 | ttl_ms,
        }
    }

    /// The numbers that clients see.
    pub(crate) fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: 2 * self.creations - self.children,
            aversion: self.aversion,
            owner: self.owner,
            data_len: i32::try_from(self.data.len()).unwrap_or(i32::MAX),
            children: self.children,
            pzxid: self.pzxid,
        }
    }
}

/// When and for whom a request is carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) session: i64,
    /// Who its client is.
    pub(crate) user: User,
    pub(crate) zxid: i64,
    pub(crate) time: i64,
    /// Whether it may own nodes, or how it is refused.
    pub(crate) may_own: Result<(), i32>,
}

/// A change that a successful request makes, as its transaction has to say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Create { path: String, data: Vec<u8>, acl: Acl, kind: Kind, parent_cversion: i32 },
    Delete { path: String },
    Set { path: String, data: Vec<u8>, version: i32 },
    SetAcl { path: String, acl: Acl, version: i32 },
    Check { path: String, version: i32 },
}

/// All states, one after each transaction.
#[derive(Debug)]
pub(crate) struct Model {
    nodes: BTreeMap<String, Vec<(i64, Option<Node>)>>,
    sessions: BTreeMap<i64, Vec<(i64, bool)>>,
    /// What there is to hear of, in order.
    triggers: Vec<Trigger>,
    /// Changes of the transaction in hand.
    staged: BTreeMap<String, Option<Node>>,
    told: Vec<(String, i32, Acl)>,
}

/// A change that watches may be for.
#[derive(Debug)]
pub(crate) struct Trigger {
    pub(crate) told: Told,
    /// Who may not read the node does not hear of it.
    pub(crate) acl: Acl,
}

impl Model {
    /// The built-in nodes.
    pub(crate) fn new() -> Self {
        let open = acl::world(perms::ALL).into();
        let root = Node { children: 1, ..Node::new(Vec::new(), open, 0, 0) };
        let nodes = BTreeMap::from([("/".to_owned(), vec![(0, Some(root))])]);
        Self {
            nodes,
            sessions: BTreeMap::new(),
            triggers: Vec::new(),
            staged: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    // Looking back.

    /// A node as it was after `zxid`.
    pub(crate) fn node_at(&self, path: &str, zxid: i64) -> Option<&Node> {
        let versions = self.nodes.get(path)?;
        let at = versions.partition_point(|(z, _)| *z <= zxid);
        versions[..at].last().and_then(|(_, node)| node.as_ref())
    }

    /// All nodes but the built-in ones, as they were after `zxid`.
    pub(crate) fn nodes_at(&self, zxid: i64) -> impl Iterator<Item = (&str, &Node)> {
        let paths = self.nodes.keys().filter(|path| *path != "/");
        paths.filter_map(move |path| Some((path.as_str(), self.node_at(path, zxid)?)))
    }

    /// The names of a node's children after `zxid`, in order.
    pub(crate) fn children_at(&self, path: &str, zxid: i64) -> Vec<String> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let below = self.nodes.range(prefix.clone()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(&prefix));
        let children = below.filter(|path| !path[prefix.len()..].contains('/'));
        let alive = children.filter(|path| self.node_at(path, zxid).is_some());
        alive.map(|path| path[prefix.len()..].to_owned()).collect()
    }

    /// The ephemerals of a session after `zxid`, in order.
    pub(crate) fn ephemerals_at(&self, session: i64, zxid: i64) -> Vec<String> {
        let owned = self.nodes_at(zxid).filter(|(_, node)| node.owner == session);
        owned.map(|(path, _)| path.to_owned()).collect()
    }

    /// Whether a session existed after `zxid`.
    pub(crate) fn is_live_at(&self, session: i64, zxid: i64) -> bool {
        let Some(turns) = self.sessions.get(&session) else { return false };
        let at = turns.partition_point(|(z, _)| *z <= zxid);
        turns[..at].last().is_some_and(|(_, live)| *live)
    }

    /// Whether a session ever was one of the ensemble.
    pub(crate) fn was_opened(&self, session: i64) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The sessions that existed after `zxid`.
    pub(crate) fn sessions_at(&self, zxid: i64) -> impl Iterator<Item = i64> {
        self.sessions.keys().copied().filter(move |session| self.is_live_at(*session, zxid))
    }

    /// All changes that watches may be for, in the order in which their events go out.
    pub(crate) fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    // Going on.

    fn now(&self, path: &str) -> Option<&Node> {
        match self.staged.get(path) {
            Some(staged) => staged.as_ref(),
            None => self.nodes.get(path)?.last()?.1.as_ref(),
        }
    }

    fn stage(&mut self, path: &str, node: Option<Node>) {
        self.staged.insert(path.to_owned(), node);
    }

    /// Makes what was carried out permanent.
    pub(crate) fn commit(&mut self, zxid: i64) {
        for (path, node) in std::mem::take(&mut self.staged) {
            self.nodes.entry(path).or_default().push((zxid, node));
        }
        let told = std::mem::take(&mut self.told).into_iter();
        self.triggers
            .extend(told.map(|(path, kind, acl)| Trigger { told: Told { zxid, kind, path }, acl }));
    }

    /// Takes back what was carried out since the last commit.
    pub(crate) fn roll_back(&mut self) {
        self.staged.clear();
        self.told.clear();
    }

    /// A session begins. False if it exists.
    pub(crate) fn open(&mut self, session: i64, zxid: i64) -> bool {
        let fresh = !self.is_live_at(session, zxid);
        self.sessions.entry(session).or_default().push((zxid, true));
        fresh
    }

    /// A session ends; returns the ephemerals that go with it.
    pub(crate) fn close(&mut self, session: i64, zxid: i64) -> Vec<String> {
        let owned = self.ephemerals_at(session, zxid);
        for path in &owned {
            self.remove(path, zxid);
        }
        self.commit(zxid);
        self.sessions.entry(session).or_default().push((zxid, false));
        owned
    }

    /// A leader removes a container or TTL node of its own accord. `Err`: why it must not.
    pub(crate) fn remove_unneeded(
        &mut self,
        path: &str,
        moment: Moment,
    ) -> Result<Kind, &'static str> {
        let node = self.now(path).ok_or("does not exist")?;
        if node.children > 0 {
            return Err("has children");
        }
        match node.kind {
            Kind::Persistent | Kind::Ephemeral => Err("is neither container nor TTL node"),
            Kind::Container if node.creations == 0 => Err("was never used"),
            Kind::Ttl(ttl_ms) if moment.time.saturating_sub(node.mtime) <= ttl_ms => {
                Err("has time left")
            }
            kind => {
                self.remove(path, moment.zxid);
                Ok(kind)
            }
        }
    }

    /// Removes a node without asking.
    fn remove(&mut self, path: &str, zxid: i64) {
        let above = parent(path);
        if let Some(node) = self.now(path) {
            let acl = Acl::clone(&node.acl);
            self.told.push((path.to_owned(), event::DELETED, acl));
        }
        self.stage(path, None);
        if let Some(mut node) = self.now(above).cloned() {
            node.pzxid = zxid;
            node.children -= 1;
            self.told.push((above.to_owned(), event::CHILDREN_CHANGED, Acl::clone(&node.acl)));
            self.stage(above, Some(node));
        }
    }

    /// Carries out one operation; the change it makes, and its answer.
    pub(crate) fn carry_out(
        &mut self,
        request: &Request,
        moment: Moment,
    ) -> Result<(Effect, Answer), i32> {
        match request {
            Request::Create { path, data, acl, mode } => {
                let data = data.to_be_bytes().to_vec();
                self.create(path, (data, acl), *mode, moment)
            }
            Request::Delete { path, version } => {
                let above = self.now(parent(path)).ok_or(code::NO_NODE)?;
                above.permits(perms::DELETE, moment.user)?;
                let node = self.now(path).ok_or(code::NO_NODE)?;
                check_version(node.version, *version)?;
                if node.children > 0 {
                    return Err(code::NOT_EMPTY);
                }
                self.remove(path, moment.zxid);
                Ok((Effect::Delete { path: path.clone() }, Answer::Nothing))
            }
            Request::Set { path, data, version } => {
                let mut node = self.now(path).ok_or(code::NO_NODE)?.clone();
                node.permits(perms::WRITE, moment.user)?;
                check_version(node.version, *version)?;
                node.version += 1;
                node.data = data.to_be_bytes().to_vec();
                (node.mzxid, node.mtime) = (moment.zxid, moment.time);
                let (version, data, stat) = (node.version, node.data.clone(), node.stat());
                self.told.push((path.clone(), event::DATA_CHANGED, Acl::clone(&node.acl)));
                self.stage(path, Some(node));
                Ok((Effect::Set { path: path.clone(), data, version }, Answer::Numbers(stat)))
            }
            Request::SetAcl { path, acl, version } => {
                let acl = acl::meant(acl, moment.user).ok_or(code::INVALID_ACL)?;
                let mut node = self.now(path).ok_or(code::NO_NODE)?.clone();
                node.permits(perms::ADMIN, moment.user)?;
                check_version(node.aversion, *version)?;
                node.aversion += 1;
                node.acl = Acl::clone(&acl);
                let (version, stat) = (node.aversion, node.stat());
                self.stage(path, Some(node));
                Ok((Effect::SetAcl { path: path.clone(), acl, version }, Answer::Numbers(stat)))
            }
            Request::Check { path, version } => {
                let node = self.now(path).ok_or(code::NO_NODE)?;
                node.permits(perms::READ, moment.user)?;
                check_version(node.version, *version)?;
                let version = node.version + 1;
                Ok((Effect::Check { path: path.clone(), version }, Answer::Nothing))
            }
            _ => unreachable!("{request:?} is no single write"),
        }
    }

    fn create(
        &mut self,
        path: &str,
        (data, acl): (Vec<u8>, &[Entry]),
        Mode { kind, sequential }: Mode,
        moment: Moment,
    ) -> Result<(Effect, Answer), i32> {
        let above = parent(path);
        if kind == Kind::Ephemeral {
            moment.may_own?;
        }
        let acl = acl::meant(acl, moment.user).ok_or(code::INVALID_ACL)?;
        let mut owner = self.now(above).ok_or(code::NO_NODE)?.clone();
        owner.permits(perms::CREATE, moment.user)?;
        let path =
            if sequential { format!("{path}{:010}", owner.creations) } else { path.to_owned() };
        if self.now(&path).is_some() {
            return Err(code::NODE_EXISTS);
        }
        if owner.owner != 0 {
            return Err(code::NO_CHILDREN_FOR_EPHEMERALS);
        }
        owner.creations += 1;
        owner.children += 1;
        owner.pzxid = moment.zxid;
        let parent_cversion = owner.creations;
        let parent_acl = Acl::clone(&owner.acl);
        self.stage(above, Some(owner));
        let node = Node {
            kind,
            owner: if kind == Kind::Ephemeral { moment.session } else { 0 },
            ..Node::new(data.clone(), Acl::clone(&acl), moment.zxid, moment.time)
        };
        let stat = node.stat();
        self.stage(&path, Some(node));
        self.told.push((path.clone(), event::CREATED, Acl::clone(&acl)));
        self.told.push((above.to_owned(), event::CHILDREN_CHANGED, parent_acl));
        let answer = Answer::Created(path.clone(), stat);
        Ok((Effect::Create { path, data, acl, kind, parent_cversion }, answer))
    }
}

fn check_version(present: i32, version: i32) -> Result<(), i32> {
    if version == -1 || version == present { Ok(()) } else { Err(code::BAD_VERSION) }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}
