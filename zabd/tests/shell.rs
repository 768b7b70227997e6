//! `zabd shell` in front of a server.
#![cfg(feature = "shell")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Server {
    child: Child,
    port: u16,
    dir: std::path::PathBuf,
}

impl Server {
    fn start(name: &str) -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("zabd-{name}-{}", std::process::id()));
        let child = Command::new(env!("CARGO_BIN_EXE_zabd"))
            .args([port.to_string().as_ref(), dir.as_os_str()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let server = Self { child, port, dir };
        while server.shell(&["ls", "/"], "").0 != 0 {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn shell(&self, arguments: &[&str], input: &str) -> (i32, String, String) {
        let server = format!("127.0.0.1:{}", self.port);
        let mut child = Command::new(env!("CARGO_BIN_EXE_zabd"))
            .args(["shell", "-server", &server])
            .args(arguments)
            .env("HOME", &self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn one_command_and_its_exit_code() {
    let server = Server::start("shell-one");
    let connected = "WatchedEvent state:SyncConnected type:None path:null\n";
    let (code, _, err) = server.shell(&["create", "/a", "some data"], "");
    assert_eq!((code, &*err), (0, "Created /a\n"));
    let (code, out, _) = server.shell(&["get", "/a"], "");
    let expected =
        format!("Connecting to 127.0.0.1:{}\n\nWATCHER::\n\n{connected}some data\n", server.port);
    assert_eq!((code, out), (0, expected));
    let (code, _, err) = server.shell(&["get", "/nope"], "");
    assert_eq!((code, &*err), (1, "Node does not exist: /nope\n"));
    assert_eq!(server.shell(&["nonsense"], "").0, 127);
    let (code, out, _) = server.shell(&["get", "-s", "/a", "--json"], "");
    let answer = out.lines().last().unwrap();
    assert!(code == 0 && answer.starts_with(r#"{"data":"some data","stat":{"czxid":"#), "{out}");
}

#[test]
fn our_own_commands() {
    let server = Server::start("shell-own");
    let file = server.dir.join("dump");
    let input = format!(
        "printwatches off\nls /nope\ncreate /a 1\ncreate /a/b two\ncreate /a/b/c 3\ntree -s /a\ncd /a\npwd\nget b\n\
         cd ..\nfind / tw\ncp -r /a /copy\nset /copy/b other\ncreate /copy/new\ndiff /a /copy\n\
         dump /a {0}\ndeleteall /a\nls /\nload {0}\nls -R /a\npeers\nquit\n",
        file.display()
    );
    let (code, out, err) = server.shell(&[], &input);
    assert_eq!(code, 0, "{err}");
    // The session may come before `printwatches` or behind it.
    let at = out.find("/a\n").unwrap_or_else(|| panic!("{out}{err}"));
    let out = &out[at..];
    let expected = "/a\n  b (3 B)\n    c (1 B)\n/a\ntwo\n/a/b\n! /b\n+ /new\n[copy, zookeeper]\n/a\n/a/b\n/a/b/c\n";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains("standalone"), "{out}");
    assert!(err.contains("3 nodes loaded"), "{err}");
}

#[test]
fn nobody_is_there() {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let output = Command::new(env!("CARGO_BIN_EXE_zabd"))
        .args(["shell", "-server", &format!("127.0.0.1:{port}"), "get", "/a"])
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &*err),
        (Some(1), "KeeperErrorCode = ConnectionLoss for /a\n")
    );
}
