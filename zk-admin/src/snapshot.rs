//! The command `snapshot`, and who may have it and `restore`.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde_json::Map;
use smol::channel::bounded;
use smol::{LocalExecutor, Timer};
use zk_service::look::Refusal;

use crate::body::{Body, streamed};
use crate::commands::{Answer, NOT_SERVING};
use crate::counts::Counts;
use crate::options::{AdminOptions, SnapshotFile};
use crate::route::Caller;
use crate::source::Source;

/// How long a snapshot may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);
/// How often it is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes that are read and sent at a time.
const PIECE_LEN_BYTES: usize = 256 << 10;

/// Lets one through in a while.
#[derive(Debug)]
pub(crate) struct Limiter {
    interval: Duration,
    last: Cell<Option<Instant>>,
}

impl Limiter {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, last: Cell::new(None) }
    }

    /// Whether it is somebody's turn, who takes it.
    fn admits(&self) -> bool {
        let admits = !self.is_spent();
        if admits {
            self.spend();
        }
        admits
    }

    /// Whether the last one was a moment ago.
    pub(crate) fn is_spent(&self) -> bool {
        self.last.get().is_some_and(|last| last.elapsed() < self.interval)
    }

    /// One goes through.
    pub(crate) fn spend(&self) {
        self.last.set(Some(Instant::now()));
    }
}

/// Whether somebody may do everything with the root: `Authorization: SCHEME DATA`. A server that does not serve
/// knows the root's rules, too, as of what it has applied.
pub(crate) async fn authorize(
    source: &Source,
    header: Option<HeaderValue>,
    caller: &Caller,
    needs_service: bool,
) -> Result<(), Answer> {
    let refused = |status, text| Err(Answer::refused(status, Some(text)));
    let header = header.as_ref().and_then(|value| value.to_str().ok()).map(str::trim);
    let Some(header) = header.filter(|text| !text.is_empty()) else {
        return refused(StatusCode::UNAUTHORIZED, "Auth info is missing for the command");
    };
    let (scheme, data) = match header.split_once(' ') {
        Some((scheme, data)) => (scheme.to_owned(), Some(data.trim().as_bytes().to_vec())),
        None => (header.to_owned(), None),
    };
    let Caller { address, subject, .. } = caller.clone();
    let judged = source
        .ask(move |look| {
            let subject = subject.as_deref();
            let is_asked = look.serves() || !needs_service;
            is_asked.then(|| look.authorize(&scheme, data.as_deref(), address, subject))
        })
        .await
        .flatten();
    match judged {
        None => Err(Answer::error(NOT_SERVING)),
        Some(Ok(())) => Ok(()),
        Some(Err(Refusal::NotAuthenticated)) => {
            refused(StatusCode::UNAUTHORIZED, "Not authenticated")
        }
        Some(Err(Refusal::NotAuthorized)) => refused(StatusCode::FORBIDDEN, "Not authorized"),
    }
}

/// Has a snapshot written, of the present state or a later one, and returns its file.
pub(crate) async fn take(
    source: &Source,
    options: &AdminOptions,
    limiter: &Limiter,
) -> Result<SnapshotFile, Answer> {
    let Some(order) = options.facts.take_snapshot.as_ref().filter(|_| options.snapshot_enabled)
    else {
        return Err(Answer::refused(StatusCode::SERVICE_UNAVAILABLE, None));
    };
    if !limiter.admits() {
        Counts::count(&options.counts.snapshots_limited);
        return Err(Answer::refused(StatusCode::TOO_MANY_REQUESTS, None));
    }
    let Some(wanted) = source.ask(|look| look.standing().last_zxid.raw()).await else {
        return Err(Answer::error(NOT_SERVING));
    };
    let until = Instant::now() + WRITE_TIMEOUT;
    let mut asked = false;
    loop {
        if let Some(file) = (options.facts.last_snapshot)().filter(|file| file.zxid >= wanted) {
            return Ok(file);
        }
        if !asked {
            asked = true;
            order();
        }
        // The loop turns with it.
        if source.ask(|_| ()).await.is_none() {
            return Err(Answer::error(NOT_SERVING));
        }
        if Instant::now() >= until {
            Counts::count(&options.counts.snapshot_errors);
            let text = "the snapshot is not written after ten minutes; see the log";
            return Err(Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, Some(text)));
        }
        Timer::after(LOOK_EVERY).await;
    }
}

/// Sends the file, or only what it is called and how long it is.
pub(crate) fn send(
    executor: &Rc<LocalExecutor<'static>>,
    snapshot: &SnapshotFile,
    streams: bool,
    counts: &Counts,
    as_json: impl Fn(Answer) -> Response<Body>,
) -> Response<Body> {
    let opened = File::open(&snapshot.path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            Counts::count(&counts.snapshot_errors);
            let text = format!("{}: {error}", snapshot.path.display());
            return as_json(Answer::refused(StatusCode::INTERNAL_SERVER_ERROR, Some(&text)));
        }
    };
    let mut response = if streams {
        let (sender, pieces) = bounded(1);
        executor.spawn(read(file, sender)).detach();
        streamed("application/octet-stream", pieces)
    } else {
        as_json(Answer::new(Map::new()))
    };
    let headers = response.headers_mut();
    let zxid = HeaderValue::from_str(&format!("{:#x}", snapshot.zxid));
    if let Ok(zxid) = zxid {
        headers.insert("last_zxid", zxid);
    }
    headers.insert("snapshot_size", len.into());
    if streams {
        headers.insert(hyper::header::CONTENT_LENGTH, len.into());
    }
    response
}

/// Reads the file as fast as it is taken. A file that cannot be read ends the answer too early, which
/// its length shows.
async fn read(mut file: File, pieces: smol::channel::Sender<Bytes>) {
    let mut buf = vec![0; PIECE_LEN_BYTES];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return,
            Ok(n) => {
                if pieces.send(Bytes::copy_from_slice(&buf[..n])).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                log::warn!("AdminServer: a snapshot that is sent cannot be read: {error}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_lets_one_through() {
        let limiter = Limiter::new(Duration::from_secs(300));
        assert!(limiter.admits());
        assert!(!limiter.admits() && !limiter.admits());
        let unlimited = Limiter::new(Duration::ZERO);
        assert!(unlimited.admits() && unlimited.admits());
    }
}
