//! A snapshot: nodes, sessions, digest.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use zab_proto::Zxid;
use zab_storage::{SnapshotReader, Trailer};
use zk_service::tree::{NodeRef, StatPersisted};
use zk_service::{Database, DigestCheck, Loaded, Loader};

use super::json::Object;
use super::text::date;
use super::{Verdict, verdict_of};

pub(super) fn print(file: &Path, as_json: bool, out: &mut impl Write) -> io::Result<Verdict> {
    let mut reader = match SnapshotReader::open(file) {
        Ok(reader) => reader,
        Err(error) => return verdict_of(error),
    };
    let damaged = |what: &str| Ok(Verdict::Damaged(format!("{}: {what}", file.display())));
    let loaded = match load(&mut reader) {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return damaged("the tree does not decode, or is cut short"),
        Err(error) => return verdict_of(error),
    };
    // Shown even if a seal is broken: there may be nothing better.
    let sealed = reader.finish();
    let trailer = sealed.as_ref().copied().unwrap_or_default();
    let zxid = trailer.last_processed.or_else(|| named_zxid(file)).unwrap_or(Zxid::ZERO);
    let mut database = Database::new(true);
    let check = database.install(loaded, zxid, trailer.digest);
    if as_json {
        print_json(&database, &trailer, out)?;
    } else {
        print_text(&database, &trailer, out)?;
    }
    match (sealed, check) {
        (Err(error), _) => verdict_of(error),
        (Ok(_), DigestCheck::Mismatch { expected, actual }) => {
            damaged(&format!("the digest of the tree is {actual:#x}, and should be {expected:#x}"))
        }
        (Ok(_), DigestCheck::Equal | DigestCheck::Skipped) => Ok(Verdict::Whole),
    }
}

/// The tree; `None` if the bytes are no tree or not a whole one.
fn load(reader: &mut SnapshotReader) -> Result<Option<Loaded>, zab_storage::Error> {
    let mut loader = Loader::new(true, usize::MAX);
    loop {
        let Ok(progress) = loader.push(reader.bytes()) else { return Ok(None) };
        reader.consume(progress.consumed);
        if progress.done {
            return Ok(loader.finish());
        }
        if reader.fill()?.is_none() {
            return Ok(None);
        }
    }
}

/// The zxid in a name like `snapshot.1a.gz`.
fn named_zxid(file: &Path) -> Option<Zxid> {
    let hex = file.file_name()?.to_str()?.strip_prefix("snapshot.")?.split('.').next()?;
    i64::from_str_radix(hex, 16).ok().map(Zxid::from_raw)
}

/// The text of ZooKeeper's `SnapshotFormatter`.
fn print_text(database: &Database, trailer: &Trailer, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "ZNode Details (count={}):", database.tree.node_count())?;
    for node in nodes(database) {
        let stat = node.persisted();
        writeln!(out, "----")?;
        writeln!(out, "{}", printable(node.path()))?;
        writeln!(out, "  cZxid = {:#016x}", stat.czxid.raw())?;
        writeln!(out, "  ctime = {}", date(stat.ctime))?;
        writeln!(out, "  mZxid = {:#016x}", stat.mzxid.raw())?;
        writeln!(out, "  mtime = {}", date(stat.mtime))?;
        writeln!(out, "  pZxid = {:#016x}", stat.pzxid.raw())?;
        writeln!(out, "  cversion = {}", stat.cversion)?;
        writeln!(out, "  dataVersion = {}", stat.version)?;
        writeln!(out, "  aclVersion = {}", stat.aversion)?;
        writeln!(out, "  ephemeralOwner = {:#016x}", stat.ephemeral_owner)?;
        writeln!(out, "  dataLength = {}", node.data().map_or(0, <[u8]>::len))?;
    }
    writeln!(out, "----")?;
    writeln!(out, "Session Details (sid, timeout, ephemeralCount):")?;
    for (session, timeout_ms) in database.sessions.iter() {
        let ephemerals = database.tree.ephemerals_of(session).count();
        writeln!(out, "{session:#016x}, {timeout_ms}, {ephemerals}")?;
    }
    if let Some(digest) = trailer.digest {
        writeln!(out, "----")?;
        writeln!(
            out,
            "Target zxid digest is: {:#x}, {}, {:#x}",
            digest.zxid.raw(),
            digest.version,
            digest.digest
        )?;
    }
    writeln!(out, "----")?;
    writeln!(out, "Last zxid: {:#x}", database.last_zxid().raw())
}

fn print_json(database: &Database, trailer: &Trailer, out: &mut impl Write) -> io::Result<()> {
    for node in nodes(database) {
        writeln!(out, "{}", node_json(node).end())?;
    }
    for (session, timeout_ms) in database.sessions.iter() {
        let ephemerals = database.tree.ephemerals_of(session).count();
        let object = Object::new().hex("session", session).number("timeout", timeout_ms.into());
        let ephemerals = i64::try_from(ephemerals).unwrap_or(i64::MAX);
        writeln!(out, "{}", object.number("ephemerals", ephemerals).end())?;
    }
    let count = i64::try_from(database.tree.node_count()).unwrap_or(i64::MAX);
    let mut object = Object::new().number("nodes", count);
    object = object.hex("lastZxid", database.last_zxid().raw());
    if let Some(digest) = trailer.digest {
        object = object
            .hex("digestZxid", digest.zxid.raw())
            .number("digestVersion", digest.version.into())
            .hex("digest", digest.digest.cast_signed());
    }
    writeln!(out, "{}", object.number("seals", trailer.seals.into()).end())
}

fn node_json(node: NodeRef<'_>) -> Object {
    let StatPersisted {
        czxid,
        mzxid,
        pzxid,
        ctime,
        mtime,
        ephemeral_owner,
        version,
        cversion,
        aversion,
    } = *node.persisted();
    let acl = node.acl().iter().map(|acl| {
        let object = Object::new().number("perms", acl.perms.into());
        object.text("scheme", &acl.scheme).text("id", &acl.id)
    });
    Object::new()
        .text("path", shown(node.path()))
        .data("data", node.data())
        .objects("acl", acl)
        .hex("czxid", czxid.raw())
        .hex("mzxid", mzxid.raw())
        .hex("pzxid", pzxid.raw())
        .number("ctime", ctime)
        .number("mtime", mtime)
        .number("version", version.into())
        .number("cversion", cversion.into())
        .number("aversion", aversion.into())
        .hex("ephemeralOwner", ephemeral_owner)
}

fn nodes(database: &Database) -> impl Iterator<Item = NodeRef<'_>> {
    database.tree.node("/").into_iter().flat_map(NodeRef::subtree)
}

/// The root's path is stored as an empty one.
fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Keeps a path on its line.
fn printable(path: &str) -> String {
    let mut line = String::new();
    for c in shown(path).chars() {
        if c.is_control() {
            let _ = write!(line, "%{:02X}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line
}
