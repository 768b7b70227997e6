//! What is asked, and by which port.

use std::net::IpAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use smol::LocalExecutor;

use crate::body::{Body, JSON, TEXT, whole};
use crate::commands::{self, Answer, Command};
use crate::live::Live;
use crate::options::AdminOptions;
use crate::snapshot::{self, Limiter};
use crate::source::Source;
use crate::{json, probes, prometheus, restore};

/// The page, which asks for nothing but `/live`.
const PAGE: &str = include_str!("page.html");
/// What the page may do: run its own script and style, and ask this server.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                           frame-ancestors 'none'";

/// What ZooKeeper's says to whoever came by HTTPS: to come by it for another day.
const STAY_SECURE: &str = "max-age=86400; includeSubDomains";

/// A port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// `admin.serverPort`.
    Admin,
    /// `metricsProvider.httpPort`.
    Metrics,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    /// What is asked and answered is encrypted.
    pub(crate) is_secure: bool,
    /// Of the certificate that was shown.
    pub(crate) subject: Option<String>,
}

/// Everything that is served.
#[derive(Debug)]
pub(crate) struct Site {
    options: AdminOptions,
    source: Source,
    live: Live,
    limiter: Limiter,
    restore_limiter: Limiter,
    restore_turn: restore::Turn,
}

impl Site {
    pub(crate) fn new(options: AdminOptions, source: Source) -> Self {
        let limiter = || Limiter::new(options.rate_limit_interval);
        let (limiter, restore_limiter) = (limiter(), limiter());
        let (live, restore_turn) = (Live::default(), restore::Turn::default());
        Self { options, source, live, limiter, restore_limiter, restore_turn }
    }

    pub(crate) fn options(&self) -> &AdminOptions {
        &self.options
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        executor: &Rc<LocalExecutor<'static>>,
        door: Door,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let mut response = self.plain_answer(executor, door, caller, request).await;
        if caller.is_secure {
            let headers = response.headers_mut();
            headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(STAY_SECURE));
        }
        response
    }

    async fn plain_answer(
        &self,
        executor: &Rc<LocalExecutor<'static>>,
        door: Door,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if request.method() == Method::TRACE {
            return whole(StatusCode::FORBIDDEN, TEXT, "TRACE is not allowed\n");
        }
        if path == "/metrics" {
            return match is_get(&request) {
                true => self.metrics(query).await,
                false => not_allowed("GET"),
            };
        }
        if door == Door::Metrics {
            return not_found();
        }
        if let Some(name) = self.command_name(path).map(str::to_owned) {
            let name = name.as_str();
            return self.command(executor, name, caller, request).await;
        }
        if !is_get(&request) {
            return not_allowed("GET");
        }
        match path {
            "/" => page(),
            "/live" => self.live.join(),
            "/alive" => probes::alive(&self.source).await,
            "/ready" => probes::ready(&self.source).await,
            "/lag" => probes::lag(&self.source, query).await,
            "/safe-to-stop" => probes::safe_to_stop(&self.source).await,
            _ => not_found(),
        }
    }

    /// What stands after `admin.commandURL`; the list of commands is asked for by nothing.
    fn command_name<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&*self.options.command_url)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    }

    async fn metrics(&self, query: &str) -> Response<Body> {
        let metrics = self.source.ask(|look| look.metrics()).await.unwrap_or_default();
        let text = prometheus::text(&metrics, self.options.process_metrics, query);
        whole(StatusCode::OK, prometheus::CONTENT_TYPE, text)
    }

    async fn command(
        &self,
        executor: &Rc<LocalExecutor<'static>>,
        name: &str,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Response<Body> {
        if name.is_empty() {
            return match is_get(&request) {
                true => whole(StatusCode::OK, "", commands::index(&self.options.command_url)),
                false => not_allowed("GET"),
            };
        }
        let Some(command) = Command::named(name) else {
            let answer = Answer::error(format!("Unknown command: {name}"));
            return as_json(answer, name);
        };
        if command.needs_authorization {
            return self.authorized(executor, command, caller, request).await;
        }
        if !is_get(&request) {
            return not_allowed("GET");
        }
        let query = request.uri().query().unwrap_or_default();
        as_json(commands::run(command, query, &self.source, &self.options).await, command.name)
    }

    async fn authorized(
        &self,
        executor: &Rc<LocalExecutor<'static>>,
        command: Command,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let header = request.headers().get(hyper::header::AUTHORIZATION).cloned();
        let mut caller = caller.clone();
        if self.options.trusts_forwarded_for
            && let Some(address) = forwarded_for(request.headers())
        {
            caller.address = address;
        }
        if let Err(answer) =
            snapshot::authorize(&self.source, header, &caller, command.needs_service).await
        {
            return as_json(answer, command.name);
        }
        if command.name == "restore" {
            if request.method() != Method::POST {
                return not_allowed("POST");
            }
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (source, options) = (&self.source, &self.options);
            let bounds = (&self.restore_limiter, &self.restore_turn);
            let answer = restore::run(source, options, bounds, &query, request).await;
            return as_json(answer, command.name);
        }
        if !is_get(&request) {
            return not_allowed("GET");
        }
        let query = request.uri().query().unwrap_or_default();
        let streams = !query.split('&').any(|pair| pair == "streaming=false");
        let (source, options) = (&self.source, &self.options);
        match snapshot::take(source, options, &self.limiter).await {
            Err(answer) => as_json(answer, command.name),
            Ok(file) => snapshot::send(executor, &file, streams, &options.counts, |answer| {
                as_json(answer, command.name)
            }),
        }
    }
}

/// The client's address by a proxy's header: the first of those that are joined by commas.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let value = headers.get("x-forwarded-for")?.to_str().ok()?;
    value.split(',').next()?.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_get(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn page() -> Response<Body> {
    let mut response = whole(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn as_json(answer: Answer, command: &str) -> Response<Body> {
    let status = answer.status;
    whole(status, JSON, json::text(&answer.json(command)))
}

fn not_found() -> Response<Body> {
    whole(StatusCode::NOT_FOUND, TEXT, "404 Not Found\n")
}

fn not_allowed(method: &'static str) -> Response<Body> {
    let mut response = whole(
        StatusCode::METHOD_NOT_ALLOWED,
        TEXT,
        format!("405 Method Not Allowed: ask with {method}\n"),
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_behind_their_url() {
        let named = |url: &str, path: &'static str| {
            let options = AdminOptions::default().with(|options| options.command_url = url.into());
            Site::new(options, Source::default()).command_name(path)
        };
        for (url, path, name) in [
            ("/commands", "/commands", Some("")),
            ("/commands", "/commands/", Some("")),
            ("/commands", "/commands/ruok", Some("ruok")),
            ("/commands", "/commandsruok", None),
            ("/commands", "/", None),
            ("/zk/admin", "/zk/admin/stat", Some("stat")),
            ("/zk/admin", "/commands/stat", None),
        ] {
            assert_eq!(named(url, path), name, "{url} {path}");
        }
    }

    #[test]
    fn the_first_address_is_the_clients() {
        for (value, address) in [
            ("10.0.0.7", Some([10, 0, 0, 7])),
            (" 10.0.0.7 , 192.168.0.1", Some([10, 0, 0, 7])),
            ("::ffff:10.0.0.7,x", Some([10, 0, 0, 7])),
            ("unknown, 10.0.0.7", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(value));
            assert_eq!(forwarded_for(&headers), address.map(IpAddr::from), "{value:?}");
        }
        assert_eq!(forwarded_for(&HeaderMap::new()), None);
    }

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        assert!(PAGE.len() <= 100 << 10, "{} bytes", PAGE.len());
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
