//! The port with the commands by HTTPS, with the certificates of `zab-tls`'s tests.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime_core::{Cipher, Expects, HandshakeLimits, Security};
use zab_proto::Channel;
use zab_tls::{ClientAuth, Names, Ports, Secret, Settings, StoreFile, Tls};
use zk_admin::{AdminOptions, AdminServer, Https};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zk-admin-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    /// A file with these parts of the test data one after the other.
    fn store(&self, name: &str, parts: &[&str]) -> StoreFile {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-tls/tests/data");
        let parts = parts.iter().map(|part| fs::read(data.join(part)).expect("test data"));
        let path = self.0.join(name);
        fs::write(&path, parts.collect::<Vec<_>>().concat()).expect("a file");
        StoreFile { path, password: Secret::Text(String::new()) }
    }

    /// Settings of whoever has this key and trusts the CA.
    fn settings(&self, who: &str, key: &[&str]) -> Settings {
        Settings {
            trust_store: Some(self.store(&format!("{who}-trust"), &["ca.pem"])),
            server_names: Names::Ignored,
            ..Settings::new(self.store(&format!("{who}-key"), key))
        }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An admin server by HTTPS, and what its certificates come from.
struct Served {
    _server: AdminServer,
    tls: Arc<Tls>,
    at: SocketAddr,
    failed: Arc<AtomicU32>,
}

impl Served {
    /// With TLS 1.3 a client is through with its handshake before the server has judged it.
    fn wait_for_failed(&self, count: u32) {
        let until = Instant::now() + PATIENCE;
        while self.failed.load(Ordering::Relaxed) < count && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.failed.load(Ordering::Relaxed), count);
    }
}

fn serve(dir: &Dir, expects: Expects, client_auth: ClientAuth) -> Served {
    let settings = Settings { client_auth, ..dir.settings("server", &["leaf.key", "chain.pem"]) };
    let tls = Tls::new(None, None, Ports::default()).map_err(|(_, error)| error);
    let tls = Arc::new(tls.and_then(|tls| tls.with_admin(settings)).expect("stores"));
    let port = TcpListener::bind((LOCALHOST, 0)).expect("a port");
    let at = port.local_addr().expect("bound");
    let (accepting, failed) = (Arc::clone(&tls), Arc::new(AtomicU32::new(0)));
    let counting = Arc::clone(&failed);
    let span = Duration::from_millis(500);
    let https = Https {
        expects,
        accept: Arc::new(move |remote| accepting.accept_admin(remote)),
        happened: Arc::new(move |well| {
            counting.fetch_add(u32::from(!well), Ordering::Relaxed);
        }),
        limits: HandshakeLimits { detection: span, handshake: span, ..HandshakeLimits::default() },
    };
    let options = AdminOptions::default().with(|options| {
        options.admin = Some(port);
        options.https = Some(https);
        options.facts.properties = vec![("long".into(), "x".repeat(100_000))];
    });
    Served { _server: AdminServer::start(options).expect("a thread"), tls, at, failed }
}

/// The connection of a client with this key, after its handshake. With TLS 1.3 a server's refusal comes behind
/// that.
struct Connection {
    stream: TcpStream,
    cipher: Box<dyn Cipher>,
    plain: Vec<u8>,
}

impl Connection {
    fn new(at: SocketAddr, settings: Settings) -> std::io::Result<Self> {
        let ports = Ports { peers: Expects::Handshake, dial_peers: true, ..Ports::default() };
        let tls = Tls::new(None, Some(settings), ports).map_err(|(_, error)| error);
        let tls = tls.expect("the stores of a client");
        let cipher = tls.dial(Channel::Quorum, &at.to_string(), Some(LOCALHOST)).expect("a client");
        let stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Self { stream, cipher, plain: Vec::new() };
        while connection.cipher.is_handshaking() {
            if connection.step()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(connection)
    }

    fn send(&mut self) -> std::io::Result<()> {
        let mut buf = [0; 4096];
        while let n @ 1.. = self.cipher.write(&mut buf) {
            self.stream.write_all(&buf[..n])?;
        }
        Ok(())
    }

    /// Sends what there is, and takes what comes; how much that was.
    fn step(&mut self) -> std::io::Result<usize> {
        self.send()?;
        let mut buf = [0; 4096];
        let n = self.stream.read(&mut buf)?;
        let mut rest = &buf[..n];
        while !rest.is_empty() {
            match self.cipher.read(rest, &mut self.plain) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
        Ok(n)
    }

    /// What is answered, up to the end of the connection.
    fn get(mut self, path: &str) -> std::io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        self.cipher.seal(request.as_bytes()).expect("sealed");
        while !self.cipher.has_ended() && self.step()? > 0 {}
        Ok(String::from_utf8_lossy(&self.plain).into_owned())
    }
}

fn get_plain(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const STS: &str = "strict-transport-security: max-age=86400; includeSubDomains";

#[test]
fn https_alone() {
    let dir = Dir::new();
    let served = serve(&dir, Expects::Handshake, ClientAuth::None);
    let client = || dir.settings("client", &["leaf.key", "chain.pem"]);
    let answer = Connection::new(served.at, client()).expect("a handshake").get("/commands");
    let answer = answer.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(STS), "{answer}");
    assert!(answer.contains("/commands/zabstate"));
    // An answer of several records of TLS comes whole.
    let all = Connection::new(served.at, client()).expect("a handshake").get("/commands/sysp");
    let all = all.expect("an answer");
    let (head, body) = all.split_once("\r\n\r\n").expect("a body");
    assert!(body.len() > 100_000 && body.ends_with('}'), "{} bytes", body.len());
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    // Whoever speaks plain HTTP hears an alert at most, and is counted.
    let answer = get_plain(served.at, "/commands");
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    served.wait_for_failed(1);
}

#[test]
fn both_on_one_port() {
    let dir = Dir::new();
    let served = serve(&dir, Expects::Either, ClientAuth::None);
    let plain = get_plain(served.at, "/commands");
    assert!(plain.starts_with("HTTP/1.1 200") && !plain.contains(STS), "{plain}");
    let client = dir.settings("client", &["leaf.key", "chain.pem"]);
    let answer = Connection::new(served.at, client).expect("a handshake").get("/commands");
    assert!(answer.expect("an answer").contains(STS));
    assert_eq!(served.failed.load(Ordering::Relaxed), 0);
}

#[test]
fn certificates_of_clients_are_demanded() {
    let dir = Dir::new();
    let served = serve(&dir, Expects::Handshake, ClientAuth::Need);
    let known = dir.settings("known", &["leaf.key", "chain.pem"]);
    let answer = Connection::new(served.at, known).expect("a handshake").get("/commands");
    assert!(answer.expect("an answer").starts_with("HTTP/1.1 200"));
    let stranger = dir.settings("stranger", &["self.key", "self-ca.pem"]);
    let answer = Connection::new(served.at, stranger).and_then(|c| c.get("/commands"));
    assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
    served.wait_for_failed(1);
}

#[test]
fn certificates_are_exchanged_while_it_runs() {
    let dir = Dir::new();
    let served = serve(&dir, Expects::Handshake, ClientAuth::None);
    let client = || dir.settings("client", &["leaf.key", "chain.pem"]);
    let before = Connection::new(served.at, client()).expect("a handshake");
    assert!(before.cipher.subject().is_some_and(|name| name.contains("zk1.example.com")));
    dir.store("server-key", &["rsa.key", "rsa.pem"]);
    served.tls.reload();
    let after = Connection::new(served.at, client()).expect("a handshake");
    assert!(after.cipher.subject().is_some_and(|name| name.contains("rsa")));
    // Who was there before stays.
    assert!(before.get("/commands").expect("an answer").starts_with("HTTP/1.1 200"));
}

/// Twice the time that a first byte and a handshake may take, and the connection is gone.
#[test]
fn who_is_silent_is_given_up() {
    let dir = Dir::new();
    for (expects, begins) in [(Expects::Either, ""), (Expects::Handshake, "\x16\x03")] {
        let served = serve(&dir, expects, ClientAuth::None);
        let mut stream = TcpStream::connect(served.at).expect("connected");
        stream.write_all(begins.as_bytes()).expect("sent");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let began = Instant::now();
        let end = stream.read(&mut [0; 16]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{expects:?} {end:?}");
        assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    }
}
