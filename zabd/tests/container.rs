//! The program in the place of the official image's entry point and of `zkServer.sh`, and what probes of
//! charts ask of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// The image's directories, and the program by its names; gone with the test.
struct Image {
    dir: PathBuf,
    child: Option<Child>,
}

fn free_port() -> u16 {
    let held = runtime_core::HeldPort::any().unwrap();
    let port = held.port();
    std::mem::forget(held);
    port
}

impl Image {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-image-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("bin")).unwrap();
        for name in ["docker-entrypoint.sh", "zkServer.sh", "zkCli.sh"] {
            symlink(env!("CARGO_BIN_EXE_zabd"), dir.join("bin").join(name)).unwrap();
        }
        Self { dir, child: None }
    }

    /// The program by this name, with the image's variables.
    fn command(&self, name: &str, arguments: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.dir.join("bin").join(name));
        command.arg0(name).args(arguments).stdin(Stdio::null());
        for (variable, dir) in [
            ("ZOO_CONF_DIR", "conf"),
            ("ZOO_DATA_DIR", "data"),
            ("ZOO_DATA_LOG_DIR", "datalog"),
            ("ZOO_LOG_DIR", "logs"),
            ("ZOOCFGDIR", "conf"),
        ] {
            command.env(variable, self.dir.join(dir));
        }
        command.envs(env.iter().copied()).env_remove("RUST_LOG");
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name, arguments, &[]).output().unwrap()
    }

    fn start(&mut self, env: &[(&str, &str)]) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let arguments = ["zkServer.sh", "start-foreground"];
        let mut command = self.command("docker-entrypoint.sh", &arguments, env);
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// Waits for a server that serves: what `zkServer.sh status` prints.
    fn wait_status(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let output = self.run("zkServer.sh", &["status"]);
            let text = String::from_utf8(output.stdout).unwrap();
            if output.status.success() {
                return text;
            }
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(Instant::now() < until, "{text}{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What charts run in a shell; `None` where there is no `nc`.
fn probe(script: &str) -> Option<String> {
    let found = Command::new("sh").args(["-c", "command -v nc && command -v timeout"]).output();
    if !found.unwrap().status.success() {
        eprintln!("NOT CHECKED: {script}: no nc here");
        return None;
    }
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn three_members_of_the_image_serve_and_answer_the_charts_probes() {
    let ports = Vec::from_iter((0..3).map(|_| [free_port(), free_port(), free_port()]));
    let servers = ports.iter().zip(1..).map(|([client, quorum, election], n)| {
        format!("server.{n}=127.0.0.1:{quorum}:{election};{client}")
    });
    let servers = Vec::from_iter(servers).join(" ");
    let mut images = Vec::new();
    for id in ["1", "2", "3"] {
        let mut image = Image::new();
        // The charts' default list of words.
        image.start(&[
            ("ZOO_MY_ID", id),
            ("ZOO_SERVERS", &servers),
            ("ZOO_4LW_COMMANDS_WHITELIST", "srvr, mntr, ruok"),
            ("ZOO_ADMINSERVER_ENABLED", "false"),
        ]);
        images.push(image);
    }
    let mut leaders = 0;
    for (image, [port, ..]) in images.iter().zip(&ports) {
        let status = image.wait_status();
        assert!(status.contains(&format!("Client port found: {port}. ")), "{status}");
        let mode = status.lines().last().unwrap();
        assert!(["Mode: leader", "Mode: follower"].contains(&mode), "{status}");
        leaders += u32::from(mode == "Mode: leader");
        // Liveness and readiness of bitnami's chart, and an exporter.
        if let Some(answer) = probe(&format!("echo ruok | timeout 2 nc -w 2 localhost {port}")) {
            assert_eq!(answer, "imok");
        }
        if let Some(answer) = probe(&format!("echo mntr | timeout 2 nc -w 2 localhost {port}")) {
            assert!(answer.contains("zk_server_state\t"), "{answer}");
            assert!(answer.lines().all(|line| line.contains('\t')), "{answer}");
        }
        if let Some(answer) = probe(&format!("echo conf | timeout 2 nc -w 2 localhost {port}")) {
            assert!(answer.contains("not in the whitelist"), "{answer}");
        }
    }
    assert_eq!(leaders, 1);
    let server = format!("127.0.0.1:{}", ports[0][0]);
    let created = images[1].run("zkCli.sh", &["-server", &server, "create", "/chart", "data"]);
    assert!(created.status.success());

    // A member that has lost its quorum lives, and is not ready.
    images[1].stop();
    images[2].stop();
    let until = Instant::now() + PATIENCE;
    while images[0].run("zkServer.sh", &["status"]).status.success() {
        assert!(Instant::now() < until, "{}", images[0].log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let port = ports[0][0];
    if let Some(answer) = probe(&format!("echo ruok | timeout 2 nc -w 2 localhost {port}")) {
        assert_eq!(answer, "imok");
    }
    let output = images[0].run("zkServer.sh", &["status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Error contacting service. It is probably not running."), "{text}");

    // The volumes go on where they were, with the configuration that is there.
    images[1].start(&[("ZOO_MY_ID", "9"), ("ZOO_SERVERS", "server.9=nowhere:1:2;3")]);
    images[1].wait_status();
    let got = images[1].run("zkCli.sh", &["-server", &server, "get", "/chart"]);
    assert!(String::from_utf8_lossy(&got.stdout).contains("data"));
}

#[test]
fn a_volume_of_the_official_image_starts() {
    // What ZooKeeper left, in the image's two directories, with its id and configuration.
    let vector = concat!(env!("CARGO_MANIFEST_DIR"), "/../zk-service/tests/vectors/storage/multi");
    let mut image = Image::new();
    let port = free_port();
    for dir in ["data/version-2", "datalog/version-2", "conf"] {
        fs::create_dir_all(image.dir.join(dir)).unwrap();
    }
    for entry in fs::read_dir(vector).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let dir = if name.starts_with("log.") { "datalog" } else { "data" };
        fs::copy(&path, image.dir.join(dir).join("version-2").join(name)).unwrap();
    }
    fs::write(image.dir.join("data/myid"), "1\n").unwrap();
    fs::write(image.dir.join("conf/java.env"), "JVMFLAGS=\"-Xmx1g -Djute.maxbuffer=4194304\"\n")
        .unwrap();
    let [quorum, election] = [free_port(), free_port()];
    image.start(&[
        ("ZOO_SERVERS", &format!("server.1=localhost:{quorum}:{election};{port}")),
        ("ZOO_ADMINSERVER_ENABLED", "false"),
    ]);
    assert!(image.wait_status().contains("Mode: standalone"));
    let listed = image.run("zkCli.sh", &["-server", &format!("127.0.0.1:{port}"), "ls", "/"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("[base, t, zookeeper]"), "{listed}");
    let printed = image.run("zkServer.sh", &["print-cmd"]);
    assert!(String::from_utf8(printed.stdout).unwrap().contains("java.env"));
}

#[test]
fn other_verbs_say_where_they_are() {
    let image = Image::new();
    for (verb, text) in
        [("start", "service manager"), ("stop", "service manager"), ("dance", "Usage")]
    {
        let output = image.run("zkServer.sh", &[verb]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains(text));
    }
    assert!(image.run("zkServer.sh", &["version"]).status.success());
    let output = image.run("docker-entrypoint.sh", &["bash"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("not in this image"));
}

#[test]
fn the_manual_and_the_completions_have_every_command() {
    let commands =
        ["backup", "restore", "recover", "doctor", "inspect", "ensemble", "shell", "keys"];
    for what in ["man", "bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_zabd")).args(["generate", what]).output();
        let output = output.unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        for command in commands {
            assert!(text.contains(command), "{what}: no {command}");
        }
        assert!(text.contains("java"), "{what}");
        if what == "bash" {
            let path = std::env::temp_dir().join(format!("zabd-bash-{}", std::process::id()));
            fs::write(&path, text).unwrap();
            assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success());
            fs::remove_file(path).unwrap();
        }
    }
}
