//! Directories, ports and configuration files of a local ensemble.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use runtime_core::HeldPort;

use super::LocalOptions;

/// Where everything is.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) servers: Vec<ServerFiles>,
    is_temporary: bool,
    /// Nobody else is given the servers' ports, before they listen or while one of them is down.
    _ports: Vec<HeldPort>,
}

#[derive(Debug)]
pub(super) struct ServerFiles {
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) client_port: u16,
    pub(super) is_observer: bool,
}

impl Layout {
    /// Makes the directories, picks the ports and writes the configurations.
    pub(super) fn create(options: &LocalOptions) -> io::Result<Self> {
        let count = options.voters + options.observers;
        if options.voters == 0 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "at least one node is needed"));
        }
        let mut held = free_ports(2 * usize::from(count))?;
        let peers: Vec<u16> = held.iter().map(HeldPort::port).collect();
        let clients = client_ports(options.client_port, count)?;
        let client_ports: Vec<u16> = clients.iter().map(HeldPort::port).collect();
        held.extend(clients);
        let (dir, is_temporary) = match &options.dir {
            Some(dir) => (dir.clone(), false),
            None => (temporary_dir()?, true),
        };
        let mut layout = Self { dir, servers: Vec::new(), is_temporary, _ports: held };
        at(&layout.dir, fs::create_dir_all(&layout.dir))?;
        layout.dir = at(&layout.dir, layout.dir.canonicalize())?;
        let is_observer = |i| i >= usize::from(options.voters);
        let mut members = String::new();
        for (i, ports) in peers.chunks_exact(2).enumerate() {
            let role = if is_observer(i) { "observer" } else { "participant" };
            let line = format!("server.{}=127.0.0.1:{}:{}:{role}\n", i + 1, ports[0], ports[1]);
            members.push_str(&line);
        }
        for (i, client_port) in client_ports.into_iter().enumerate() {
            let files = layout.write_server(i, client_port, is_observer(i), &members)?;
            layout.servers.push(files);
        }
        Ok(layout)
    }

    fn write_server(
        &self,
        i: usize,
        client_port: u16,
        is_observer: bool,
        members: &str,
    ) -> io::Result<ServerFiles> {
        let dir = self.dir.join(format!("server-{}", i + 1));
        let data = dir.join("data");
        if !data.exists() {
            at(&data, fs::create_dir_all(&data))?;
            // A new server of a new ensemble: its empty history is the right one.
            write(&data.join("initialize"), "")?;
        }
        write(&data.join("myid"), &format!("{}\n", i + 1))?;
        let peer_type = if is_observer { "peerType=observer\n" } else { "" };
        let text = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={client_port}\n\
             clientPortAddress=127.0.0.1\n4lw.commands.whitelist=*\nadmin.enableServer=false\n\
             standaloneEnabled=false\n{peer_type}{members}",
            escape(&data)
        );
        let config = dir.join("zoo.cfg");
        write(&config, &text)?;
        Ok(ServerFiles { config, log: dir.join("log"), client_port, is_observer })
    }

    /// What a client is given.
    pub(super) fn connect_string(&self) -> String {
        let one = |server: &ServerFiles| format!("127.0.0.1:{}", server.client_port);
        self.servers.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            eprintln!("zabd: cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// The result of something done to a path: an error names it.
pub(super) fn at<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    at(path, fs::write(path, text))
}

/// A path as the value of a property.
fn escape(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\")
}

fn temporary_dir() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    for n in 0..100 {
        let dir = base.join(format!("zab-ensemble-{}-{n}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => return at(&dir, result).map(|()| dir.clone()),
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "no free name for a temporary directory"))
}

fn free_ports(count: usize) -> io::Result<Vec<HeldPort>> {
    (0..count).map(|_| HeldPort::any()).collect()
}

/// `count` ports from `first` on, each checked to be free.
fn client_ports(first: u16, count: u16) -> io::Result<Vec<HeldPort>> {
    if first == 0 {
        return free_ports(count.into());
    }
    let out_of_range = || io::Error::new(ErrorKind::InvalidInput, "--client-port is too high");
    let last = first.checked_add(count - 1).ok_or_else(out_of_range)?;
    let take = |port| {
        HeldPort::take(port).map_err(|error| {
            let text = format!(
                "client port {port} cannot be used ({error}); choose others with --client-port, \
                 or --client-port 0 for any"
            );
            io::Error::new(error.kind(), text)
        })
    };
    (first..=last).map(take).collect()
}
