//! The command `restore`: another state takes the place of the server's.
//!
//! The snapshot goes to a file piece by piece, is read once to see that it is whole, and is compared with what
//! is served; only then the process around the server is asked to exchange the two. None of that is done by the
//! server's loop, and none of it needs room for the tree.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use smol::Timer;
use smol::future::or;
use zab_proto::Zxid;
use zk_service::Census;

use crate::commands::{Answer, Fields, NOT_SERVING};
use crate::counts::Counts;
use crate::options::AdminOptions;
use crate::snapshot::Limiter;
use crate::source::Source;

/// What the process around the server does for `restore`. Each of these may take long, and is called on a
/// thread of its own.
pub trait Restore: Send + Sync {
    /// A file for a snapshot of so many bytes, if the length is known; what was there is gone.
    ///
    /// # Errors
    /// There is no room, or no file.
    fn begin(&self, len: Option<u64>) -> io::Result<File>;

    /// Whether there is room for so many bytes more.
    ///
    /// # Errors
    /// There is not.
    fn check_room(&self, len: u64) -> io::Result<()>;

    /// Reads the file to its end: whether it is whole, and what it holds.
    ///
    /// # Errors
    /// It cannot be used, and why.
    fn inspect(&self) -> Result<Restorable, String>;

    /// The server ends and begins anew with the state in the file; returns when it has been loaded.
    ///
    /// # Errors
    /// Why it has not; the server goes on with what it had.
    fn replace(&self) -> Result<Restored, String>;

    /// The file is not needed.
    fn discard(&self);
}

/// What a snapshot would bring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restorable {
    /// The last transaction in it.
    pub zxid: Zxid,
    /// It was written while the tree changed, and is whole only with the log behind it.
    pub is_fuzzy: bool,
    /// What it holds.
    pub census: Census,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The zxid that the new state has here.
    pub zxid: Zxid,
    /// The id of the ensemble to which this server belongs from now on.
    pub ensemble: String,
    /// Where the old state is kept.
    pub kept: Vec<PathBuf>,
}

/// One at a time.
#[derive(Debug, Default)]
pub(crate) struct Turn(Cell<bool>);

impl Turn {
    fn take(&self) -> Option<TurnGuard<'_>> {
        (!self.0.replace(true)).then_some(TurnGuard(self))
    }
}

struct TurnGuard<'t>(&'t Turn);

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        self.0.0.set(false);
    }
}

/// The state in the request takes the place of the server's, if nothing is lost by it or `force=true` stands in
/// the query.
pub(crate) async fn run(
    source: &Source,
    options: &AdminOptions,
    (limiter, turn): (&Limiter, &Turn),
    query: &str,
    request: Request<Incoming>,
) -> Answer {
    let Some(restore) = options.facts.restore.clone().filter(|_| options.restore_enabled) else {
        return Answer::refused(StatusCode::SERVICE_UNAVAILABLE, None);
    };
    let Some(taken) = turn.take() else {
        Counts::count(&options.counts.restores_limited);
        let text = "another restore is under way";
        return Answer::refused(StatusCode::TOO_MANY_REQUESTS, Some(text));
    };
    if limiter.is_spent() {
        Counts::count(&options.counts.restores_limited);
        return Answer::refused(StatusCode::TOO_MANY_REQUESTS, None);
    }
    let forced = query.split('&').any(|pair| pair == "force=true");
    let outcome = exchange(source, options, &restore, limiter, forced, request).await;
    if outcome.is_err() {
        Counts::count(&options.counts.restore_errors);
        let file = Arc::clone(&restore);
        smol::unblock(move || file.discard()).await;
    }
    drop(taken);
    outcome.unwrap_or_else(|answer| answer)
}

async fn exchange(
    source: &Source,
    options: &AdminOptions,
    restore: &Arc<dyn Restore>,
    limiter: &Limiter,
    forced: bool,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    receive(restore, options.idle_timeout, request).await?;
    let file = Arc::clone(restore);
    let found = smol::unblock(move || file.inspect()).await;
    let found = found.map_err(|error| Answer::refused(StatusCode::BAD_REQUEST, Some(&error)))?;
    let present = source.ask(Present::of).await;
    let Some(present) = present.filter(|present| present.serves || forced) else {
        return Err(Answer::error(NOT_SERVING));
    };
    if present.is_unidentified {
        let text = "this ensemble has no id yet, as one of ours leads it that a quorum has stored: members \
                    that are restored could not be told from those that are not";
        return Err(Answer::refused(StatusCode::CONFLICT, Some(text)));
    }
    let mut fields = present.against(&found);
    if let Some(reason) = present.objection(&found)
        && !forced
    {
        let text = format!("{reason}. Nothing was changed; ?force=true does it all the same");
        log::warn!("AdminServer: restore is refused: {text}");
        return Err(Answer::refused(StatusCode::CONFLICT, Some(&text)).with(fields));
    }
    limiter.spend();
    log::warn!(
        "AdminServer: this server restarts with a snapshot of {} nodes as of {:#x} in place of {} nodes \
         as of {:#x}",
        found.census.nodes,
        found.zxid.raw(),
        present.nodes,
        present.last_zxid.raw()
    );
    let (file, began) = (Arc::clone(restore), Instant::now());
    match smol::unblock(move || file.replace()).await {
        Err(error) => Err(Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, Some(&error))),
        Ok(restored) => {
            let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            options.counts.restored(ms);
            let kept = restored.kept.iter().map(|path| path.display().to_string());
            fields.insert("last_zxid".into(), format!("{:#x}", restored.zxid.raw()).into());
            fields.insert("ensemble".into(), restored.ensemble.into());
            fields.insert("kept".into(), kept.collect::<Vec<_>>().into());
            Ok(Answer::new(fields))
        }
    }
}

/// The body goes to the file, a piece at a time.
async fn receive(
    restore: &Arc<dyn Restore>,
    idle: Duration,
    request: Request<Incoming>,
) -> Result<(), Answer> {
    let failed = |status, text: String| Answer::refused(status, Some(&text));
    let of_disk = |error: io::Error| {
        failed(StatusCode::INSUFFICIENT_STORAGE, format!("the snapshot cannot be kept: {error}"))
    };
    let mut body = request.into_body();
    let (file, len) = (Arc::clone(restore), body.size_hint().exact());
    let mut out = smol::unblock(move || file.begin(len)).await.map_err(of_disk)?;
    let mut waiting: Vec<Bytes> = Vec::new();
    let (mut waits, mut all) = (0, 0_u64);
    loop {
        let silent = async {
            Timer::after(idle).await;
            None
        };
        let frame = or(async { Some(body.frame().await) }, silent).await;
        let frame = match frame {
            None => {
                let text = format!("nothing of the snapshot has come for {idle:?}");
                return Err(failed(StatusCode::REQUEST_TIMEOUT, text));
            }
            Some(None) => break,
            Some(Some(Err(error))) => {
                return Err(failed(StatusCode::BAD_REQUEST, format!("it was cut short: {error}")));
            }
            Some(Some(Ok(frame))) => frame,
        };
        let Ok(bytes) = frame.into_data() else { continue };
        (waits, all) = (waits + bytes.len(), all + bytes.len() as u64);
        waiting.push(bytes);
        if waits >= PIECE_LEN_BYTES {
            let (pieces, room) = (std::mem::take(&mut waiting), Arc::clone(restore));
            out = smol::unblock(move || write(out, &pieces, &*room)).await.map_err(of_disk)?;
            waits = 0;
        }
    }
    if all == 0 {
        return Err(failed(StatusCode::BAD_REQUEST, "there is no snapshot in the request".into()));
    }
    let room = Arc::clone(restore);
    let rest = smol::unblock(move || {
        let out = write(out, &waiting, &*room)?;
        out.sync_all()
    });
    rest.await.map_err(of_disk)
}

fn write(mut out: File, pieces: &[Bytes], room: &dyn Restore) -> io::Result<File> {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    room.check_room(len as u64)?;
    for piece in pieces {
        out.write_all(piece)?;
    }
    Ok(out)
}

/// What the server has now.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Present {
    serves: bool,
    last_zxid: Zxid,
    nodes: usize,
    sessions: usize,
    ephemerals: usize,
    digests: Vec<(Zxid, u64)>,
    /// A member whose ensemble has no id that a quorum has stored.
    is_unidentified: bool,
}

impl Present {
    fn of(look: &zk_service::look::Look<'_, '_>) -> Self {
        let standing = look.standing();
        let holdings = look.holdings();
        Self {
            serves: standing.serves,
            last_zxid: standing.last_zxid,
            nodes: holdings.nodes,
            sessions: holdings.sessions,
            ephemerals: holdings.ephemerals,
            digests: look.digests(),
            is_unidentified: !standing.standalone && !holdings.is_identified,
        }
    }

    /// Both, side by side, for whoever has to decide.
    fn against(&self, found: &Restorable) -> Fields {
        let census = &found.census;
        let mut fields = Fields::new();
        fields.insert(
            "state".into(),
            json!({
                "last_zxid": format!("{:#x}", self.last_zxid.raw()),
                "node_count": self.nodes,
                "sessions": self.sessions,
                "ephemerals": self.ephemerals,
            }),
        );
        fields.insert(
            "snapshot".into(),
            json!({
                "last_zxid": format!("{:#x}", found.zxid.raw()),
                "node_count": census.nodes,
                "sessions": census.sessions,
                "ephemerals": census.ephemerals,
                "last_change": census.last_change_ms,
            }),
        );
        fields.insert("would_lose".into(), self.loss(found));
        fields
    }

    /// What goes with the present state, as far as the two zxids tell it.
    fn loss(&self, found: &Restorable) -> Value {
        if !self.has_users() {
            return "nothing: there are no nodes but the server's own".into();
        }
        match self.relation(found) {
            Relation::Same => "nothing: the two are the same".into(),
            Relation::Foreign => "everything that is served now".into(),
            Relation::Older if self.last_zxid.epoch() == found.zxid.epoch() => {
                let count = self.last_zxid.counter() - found.zxid.counter();
                format!("the {count} transactions behind the snapshot").into()
            }
            Relation::Older => format!("every transaction behind {:#x}", found.zxid.raw()).into(),
        }
    }

    fn has_users(&self) -> bool {
        self.nodes > OWN_NODES
    }

    fn relation(&self, found: &Restorable) -> Relation {
        let same = self.digests.iter().find(|(zxid, _)| *zxid == found.zxid);
        match same {
            Some((_, digest)) if *digest != found.census.digest => Relation::Foreign,
            Some(_) if found.zxid == self.last_zxid => Relation::Same,
            _ if found.zxid > self.last_zxid => Relation::Foreign,
            _ => Relation::Older,
        }
    }

    /// Why it is not done without being forced.
    fn objection(&self, found: &Restorable) -> Option<String> {
        if found.is_fuzzy {
            return Some(
                "the snapshot was written while the tree changed: it is whole only with the log behind it \
                 (zabd backup makes one that is whole)"
                    .into(),
            );
        }
        let (there, here) = (found.zxid.raw(), self.last_zxid.raw());
        match self.relation(found) {
            _ if !self.has_users() => None,
            Relation::Same => None,
            Relation::Foreign if there > here => Some(format!(
                "the snapshot's last transaction, {there:#x}, has never been here, where the last one is \
                 {here:#x}: it is another ensemble's, or this server is behind. Everything that is served now \
                 would be lost"
            )),
            Relation::Foreign => Some(format!(
                "the tree had another digest here at {there:#x}: the snapshot is another ensemble's. Everything \
                 that is served now would be lost"
            )),
            Relation::Older => Some(format!(
                "the snapshot is older than what is served: what was acknowledged behind {there:#x}, up to \
                 {here:#x}, would be lost"
            )),
        }
    }
}

/// What a snapshot is to the present state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relation {
    Same,
    /// Of another history, or of a part of this one that was never here.
    Foreign,
    /// Perhaps of another history, too: not every digest is kept.
    Older,
}

/// `/`, `/zookeeper`, and its `quota` and `config`.
const OWN_NODES: usize = 4;
/// Bytes that are written at a time.
const PIECE_LEN_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn present(last: i64, nodes: usize, digests: &[(i64, u64)]) -> Present {
        Present {
            serves: true,
            last_zxid: Zxid::from_raw(last),
            nodes,
            sessions: 1,
            ephemerals: 0,
            digests: digests.iter().map(|(zxid, d)| (Zxid::from_raw(*zxid), *d)).collect(),
            is_unidentified: false,
        }
    }

    fn found(zxid: i64, digest: u64) -> Restorable {
        let mut census = Census::default();
        census.digest = digest;
        Restorable { zxid: Zxid::from_raw(zxid), is_fuzzy: false, census }
    }

    #[test]
    fn what_is_refused_says_what_would_be_lost() {
        let now = present(0x2_0000_0009, 10, &[(0x2_0000_0005, 50), (0x2_0000_0009, 90)]);
        for (snapshot, relation, says) in [
            (found(0x2_0000_0009, 90), Relation::Same, "nothing"),
            (found(0x2_0000_0009, 91), Relation::Foreign, "everything"),
            (found(0x2_0000_0005, 51), Relation::Foreign, "everything"),
            (found(0x2_0000_0005, 50), Relation::Older, "the 4 transactions"),
            (found(0x1_0000_0005, 50), Relation::Older, "every transaction behind 0x100000005"),
            (found(0x3_0000_0000, 1), Relation::Foreign, "everything"),
        ] {
            assert_eq!(now.relation(&snapshot), relation, "{snapshot:?}");
            let loss = now.loss(&snapshot).to_string();
            assert!(loss.contains(says), "{loss}");
            assert_eq!(now.objection(&snapshot).is_none(), relation == Relation::Same);
        }
        // Where there is nothing, nothing is lost; a snapshot that is not whole is refused there, too.
        let empty = present(0x2_0000_0001, OWN_NODES, &[]);
        assert_eq!(empty.objection(&found(1, 1)), None);
        let fuzzy = Restorable { is_fuzzy: true, ..found(1, 1) };
        assert!(
            empty.objection(&fuzzy).is_some_and(|text| text.contains("while the tree changed"))
        );
    }

    #[test]
    fn one_at_a_time() {
        let turn = Turn::default();
        let first = turn.take();
        assert!(first.is_some() && turn.take().is_none());
        drop(first);
        assert!(turn.take().is_some());
    }
}
