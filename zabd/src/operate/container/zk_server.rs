//! `zkServer.sh`: the verbs that make sense where something else keeps processes.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Asked, fail};
use crate::config::{ServerConfig, SystemProperties};
use crate::{exit, logging};

pub(super) fn run(words: &[String]) -> Asked {
    let (dir, words) = match words {
        [option, dir, rest @ ..] if option == "--config" => (PathBuf::from(dir), rest),
        words => (conf_dir(), words),
    };
    let Some((verb, rest)) = words.split_first() else { return usage() };
    // A name is one in the directory, as with the script.
    let name = rest.first().cloned().or_else(|| std::env::var("ZOOCFG").ok());
    let config = dir.join(name.as_deref().unwrap_or("zoo.cfg"));
    match verb.as_str() {
        "start-foreground" => start(&config),
        "status" => Asked::Done(status(&config)),
        "version" => {
            println!("zabd {}", env!("CARGO_PKG_VERSION"));
            Asked::Done(exit::OK)
        }
        "print-cmd" => {
            let words = arguments(&config).into_iter();
            let words = words.map(|word| format!("\"{}\"", word.to_string_lossy()));
            println!("{}", Vec::from_iter(words).join(" "));
            Asked::Done(exit::OK)
        }
        "start" | "stop" | "restart" => fail(&format!(
            "{verb} is the service manager's business (systemctl {verb} zookeeper), or the container's; here \
             is start-foreground"
        )),
        _ => usage(),
    }
}

fn usage() -> Asked {
    fail("Usage: zkServer.sh [--config <conf-dir>] {start-foreground|version|status|print-cmd}")
}

/// `ZOOCFGDIR` and the image's variable; else where the package or the image has it.
fn conf_dir() -> PathBuf {
    let set = ["ZOOCFGDIR", "ZOO_CONF_DIR"].iter().find_map(std::env::var_os);
    set.map_or_else(
        || {
            let dirs = ["/etc/zookeeper/conf", "/etc/zookeeper", "/conf"].map(PathBuf::from);
            let found = dirs.iter().find(|dir| dir.join("zoo.cfg").is_file());
            found.cloned().unwrap_or_else(|| "/conf".into())
        },
        PathBuf::from,
    )
}

pub(super) fn start(config: &Path) -> Asked {
    eprintln!("Using config: {}", config.display());
    Asked::Server(arguments(config))
}

/// The command line of the server, with the files of options that the scripts would read.
fn arguments(config: &Path) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("zabd")];
    for name in ["zookeeper-env.sh", "java.env"] {
        let file = config.with_file_name(name);
        if file.is_file() {
            arguments.extend(["--java-env".into(), file.into()]);
        }
    }
    arguments.push(config.into());
    arguments
}

/// Prints the mode of the server, as the script does, whose lines probes grep.
fn status(path: &Path) -> u8 {
    logging::init_quiet();
    eprintln!("Using config: {}", path.display());
    let client = match ServerConfig::load(path, SystemProperties::default()) {
        Ok(config) => config.client,
        Err(error) => {
            eprintln!("{error}");
            return exit::UNEXPECTED;
        }
    };
    let Some((host, port)) = client else {
        println!("Client port not found; a port with TLS is not asked.");
        return exit::UNEXPECTED;
    };
    let host = match host.as_str() {
        "" | "0.0.0.0" | "::" => "localhost",
        host => host,
    };
    println!("Client port found: {port}. Client address: {host}. Client SSL: false.");
    match mode(host, port) {
        Some(mode) => {
            println!("{mode}");
            exit::OK
        }
        None => {
            println!("Error contacting service. It is probably not running.");
            exit::UNEXPECTED
        }
    }
}

/// The line `Mode: ...` of `srvr`; a member without a quorum has none.
fn mode(host: &str, port: u16) -> Option<String> {
    let mut stream = (host, port)
        .to_socket_addrs()
        .ok()?
        .find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok())?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).ok()?;
    answer.lines().find(|line| line.starts_with("Mode: ")).map(str::to_owned)
}

const PATIENCE: Duration = Duration::from_secs(5);
