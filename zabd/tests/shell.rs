//! `zabd shell` in front of a server.
#![cfg(feature = "shell")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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
            .arg("-Dzookeeper.4lw.commands.whitelist=*")
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

    /// The answer to a four-letter word.
    fn word(&self, word: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
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

#[test]
fn between_two_ensembles() {
    let (here, there) = (Server::start("shell-here"), Server::start("shell-there"));
    let other = format!("127.0.0.1:{}", there.port);
    let input = format!(
        "printwatches off\ncreate /a 1\ncreate /a/b 2\ncreate -e /a/mine x\ncp -r /a /copy {other}\n\
         cp /a /a {other}\ndiff /a {other}\nset /a 9\ndiff /a {other}\nquit\n"
    );
    let (code, out, err) = here.shell(&[], &input);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().filter(|line| line.starts_with(['-', '+', '!'])).collect();
    // The node itself is there; then it differs. An ephemeral node is not copied.
    assert_eq!(lines, ["- /b", "- /mine", "! /", "- /b", "- /mine"]);
    let (_, out, _) = there.shell(&["ls", "-R", "/copy"], "");
    assert!(out.ends_with("/copy\n/copy/b\n"), "{out}");
    let (code, _, err) = here.shell(&["cp", "/a", "/a", "127.0.0.1:1"], "");
    assert!(code == 1 && err.contains("ConnectionLoss"), "{err}");
}

#[test]
fn events_as_they_come() {
    let server = Server::start("shell-watch");
    for (arguments, expected) in [
        (["watch", "-R", "-n", "3", "/w"], "NodeCreated /w\nNodeCreated /w/x\nNodeDeleted /w/x\n"),
        (["watch", "-n", "1", "/v", "--json"], "{\"event\":\"NodeCreated\",\"path\":\"/v\"}\n"),
    ] {
        let path = if arguments[1] == "-R" { "/w" } else { "/v" };
        let child = Command::new(env!("CARGO_BIN_EXE_zabd"))
            .args(["shell", "-server", &format!("127.0.0.1:{}", server.port)])
            .args(arguments)
            .env("HOME", &server.dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The watch is there when its server says so.
        let until = Instant::now() + Duration::from_secs(60);
        while !server.word("wchs").contains("Total watches:1") {
            assert!(Instant::now() < until, "{}", server.word("wchs"));
            std::thread::sleep(Duration::from_millis(20));
        }
        let input = format!("create {path}\ncreate {path}/x\ndelete {path}/x\nquit\n");
        server.shell(&[], &input);
        let Output { status, stdout, .. } = child.wait_with_output().unwrap();
        let out = String::from_utf8(stdout).unwrap();
        assert!(status.success() && out.ends_with(expected), "{out}");
    }
}

#[test]
fn members_again_and_again() {
    let server = Server::start("shell-top");
    let (code, out, err) = server.shell(&["top", "-n", "2"], "");
    assert_eq!((code, out.matches("standalone").count()), (0, 2), "{out}{err}");
    let (_, out, _) = server.shell(&["top", "-n", "2", "--json"], "");
    let rounds: Vec<serde_json::Value> =
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let modes = rounds.iter().filter(|round| round[0]["says"]["Mode"] == "standalone");
    assert_eq!(modes.count(), 2, "{out}");
}

/// Each command, once done and once not, says what it says as JSON.
#[test]
fn json_everywhere() {
    let server = Server::start("shell-json");
    let file = server.dir.join("dump").display().to_string();
    let lines = format!(
        "create /a 1\ncreate /a/b 2\ncreate -s /a/s x\nget /a\nget -s /a\nget -x /a\nget -b /a\nset /a 3\n\
         set -s /a 4\nstat /a\nls /\nls -s /\nls -R /\ngetAcl /a\ngetAcl -s /a\nsetAcl /a world:anyone:cdrwa\n\
         getAllChildrenNumber /\ngetEphemerals\ngetEphemerals /\naddauth digest a:b\nwhoami\nsync /\n\
         setquota -n 10 /a\nlistquota /a\ndelquota -n /a\naddWatch /a\nremovewatches /a\nprintwatches\n\
         printwatches on\nhistory\nredo 1\nversion\nconfig\nconfig -s\nhelp\ncd /a\npwd\ncd /\ntree /\nfind / a\n\
         cp /a /c\ndump /a\ndump /a {file}\nload {file}\ndiff /a /c\npeers\ntop -n 1\ndelete /a/b\ndeleteall /a\n\
         get /no\nset /no x\nstat /no\nls /no\ngetAcl /no\ncreate\nbogus\nreconfig\nreconfig -add x\ndelete /no\n\
         deleteall /no\nlistquota /no\ncd /no\ntree /no\nfind /no\ncp /no /c\ndump /no\nload /no\ndiff /no /c\n\
         redo 500\naddWatch -m x /a\nremovewatches /no\nconnect 127.0.0.1:{}\nls /\nclose\nls /\nquit\n",
        server.port
    );
    let (_, out, err) = server.shell(&["--json"], &lines);
    let said = out.lines().map(|line| {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|_| panic!("{line:?} is no JSON\n{err}"))
    });
    // Each line has an answer; `quit` none, `dump` one for each node.
    let answers = said.filter(|value| value.get("event").is_none()).count();
    assert!(answers >= lines.lines().count() - 1, "{answers} answers\n{out}");
}
