//! Servers as processes, and what is asked of them over HTTP.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use zk_client::CreateMode;
use zk_client::blocking::Client;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server process with its ports; ends with this value.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) client: u16,
    pub(crate) admin: u16,
    pub(crate) dir: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    // Held until all are known, so that they differ.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    held.iter().map(|port| port.local_addr().expect("bound").port()).collect()
}

/// A directory that is gone with the test.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("zabd-admin-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Server {
    pub(crate) fn start(dir: &Path, id: usize, lines: &str) -> Self {
        let data = dir.join(format!("data-{id}"));
        fs::create_dir_all(&data).expect("a directory");
        fs::write(data.join("myid"), id.to_string()).expect("written");
        fs::write(data.join("initialize"), "").expect("written");
        let [client, admin] = free_ports(2)[..] else { unreachable!() };
        let text = format!(
            "dataDir={}\ntickTime=1000\nclientPort={client}\nclientPortAddress=127.0.0.1\n\
             admin.serverPort={admin}\nadmin.serverAddress=127.0.0.1\n4lw.commands.whitelist=*\n{lines}",
            data.display()
        );
        let config = dir.join(format!("zoo-{id}.cfg"));
        fs::write(&config, text).expect("written");
        let process = Command::new(env!("CARGO_BIN_EXE_zabd"))
            .arg(&config)
            .stderr(fs::File::create(dir.join(format!("log-{id}"))).expect("a log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        Self { process, client, admin, dir: data }
    }

    pub(crate) fn alone(dir: &Dir, lines: &str) -> Self {
        let server = Self::start(&dir.0, 1, lines);
        server.wait_ready();
        server
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        request(self.admin, "GET", path, &[])
    }

    pub(crate) fn wait_ready(&self) {
        wait(|| try_request(self.admin, "GET", "/ready", &[]).is_some_and(|r| r.status == 200));
    }
}

pub(crate) fn wait(mut until: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !until() {
        assert!(Instant::now() < end, "in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Three voters and an observer, in service.
pub(crate) fn ensemble(dir: &Dir, lines: &str) -> Vec<Server> {
    let ports = free_ports(8);
    let members: String = (0..4)
        .map(|at| {
            let kind = if at == 3 { "observer" } else { "participant" };
            let (quorum, election) = (ports[2 * at], ports[2 * at + 1]);
            format!("server.{}=127.0.0.1:{quorum}:{election}:{kind};127.0.0.1:1\n", at + 1)
        })
        .collect();
    let common = format!("initLimit=10\nsyncLimit=5\n{lines}{members}");
    let servers: Vec<Server> = (0..4)
        .map(|at| {
            let own = if at == 3 { "peerType=observer\n" } else { "" };
            // The client's port of the list is not the one that is served.
            let text = common.replace(";127.0.0.1:1", "");
            Server::start(&dir.0, at + 1, &format!("{text}{own}"))
        })
        .collect();
    servers.iter().for_each(Server::wait_ready);
    servers
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

pub(crate) fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    try_request(port, method, path, headers).expect("an answer")
}

pub(crate) fn try_request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Response> {
    send(port, method, path, headers, &[])
}

/// A request with a body.
pub(crate) fn send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Response> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
    // Whoever is refused may not be read to the end.
    let _ = stream.write_all(body);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok()?;
    parse(&all)
}

pub(crate) fn parse(all: &[u8]) -> Option<Response> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some(Response { status, headers: headers.collect(), body: all[end + 4..].to_vec() })
}

/// A session with nodes, an ephemeral one and a watch, as when the answers were recorded.
pub(crate) fn client(server: &Server) -> Client {
    let client = Client::connect(&format!("127.0.0.1:{}", server.client)).expect("a client");
    assert!(client.wait_connected(PATIENCE));
    let _ = client.create("/app", "x", CreateMode::Persistent);
    client.create(&format!("/eph-{}", server.client), "", CreateMode::Ephemeral).expect("created");
    for _ in 0..130 {
        client.set("/app", "value", -1).expect("set");
    }
    client.get("/app", true).expect("read");
    client
}
