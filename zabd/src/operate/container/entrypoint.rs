//! `/conf/zoo.cfg` and `myid` from the variables of the official image.
//!
//! Both are written only if they are missing, with the same lines in the same order, so that a volume of
//! the official image goes on here and back again. Each variable may be given as `NAME_FILE`, too: a file
//! that holds the value.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The values, each as it is written to the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Variables {
    pub(super) conf_dir: PathBuf,
    data_dir: PathBuf,
    log_dir: PathBuf,
    own_log_dir: PathBuf,
    /// Key and value of the lines that are always there.
    lines: Vec<(&'static str, String)>,
    servers: String,
    whitelist: Option<String>,
    extra: String,
    myid: String,
}

impl Variables {
    pub(super) fn from_env() -> Result<Self, String> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads the variables; those that are not set have the official image's defaults.
    fn read(env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text = |name: &str| match env(name).filter(|value| !value.is_empty()) {
            Some(value) => Ok(Some(value)),
            None => match env(&format!("{name}_FILE")) {
                None => Ok(None),
                Some(path) => fs::read_to_string(&path)
                    .map(|value| Some(value.trim_end().to_owned()))
                    .map_err(|error| format!("{name}_FILE: {path}: {error}")),
            },
        };
        let or =
            |name, default: &str| text(name).map(|value| value.unwrap_or_else(|| default.into()));
        let mut lines = Vec::new();
        for (key, name, default) in LINES {
            lines.push((key, or(name, default)?));
        }
        Ok(Self {
            conf_dir: or("ZOO_CONF_DIR", "/conf")?.into(),
            data_dir: or("ZOO_DATA_DIR", "/data")?.into(),
            log_dir: or("ZOO_DATA_LOG_DIR", "/datalog")?.into(),
            own_log_dir: or("ZOO_LOG_DIR", "/logs")?.into(),
            lines,
            servers: or("ZOO_SERVERS", "server.1=localhost:2888:3888;2181")?,
            whitelist: text("ZOO_4LW_COMMANDS_WHITELIST")?,
            extra: or("ZOO_CFG_EXTRA", "")?,
            myid: or("ZOO_MY_ID", "1")?,
        })
    }

    /// The text of `zoo.cfg`.
    fn config(&self) -> String {
        let (data, log) = (self.data_dir.display(), self.log_dir.display());
        let mut text = format!("dataDir={data}\ndataLogDir={log}\n");
        for (key, value) in &self.lines {
            let _ = writeln!(text, "{key}={value}");
        }
        for server in self.servers.split_whitespace() {
            let _ = writeln!(text, "{server}");
        }
        if let Some(words) = &self.whitelist {
            let _ = writeln!(text, "4lw.commands.whitelist={words}");
        }
        for line in self.extra.split_whitespace() {
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn dirs(&self) -> [&Path; 4] {
        [&self.conf_dir, &self.data_dir, &self.log_dir, &self.own_log_dir]
    }
}

/// Key of the file, variable, default.
const LINES: [(&str, &str, &str); 8] = [
    ("tickTime", "ZOO_TICK_TIME", "2000"),
    ("initLimit", "ZOO_INIT_LIMIT", "5"),
    ("syncLimit", "ZOO_SYNC_LIMIT", "2"),
    ("autopurge.snapRetainCount", "ZOO_AUTOPURGE_SNAPRETAINCOUNT", "3"),
    ("autopurge.purgeInterval", "ZOO_AUTOPURGE_PURGEINTERVAL", "0"),
    ("maxClientCnxns", "ZOO_MAX_CLIENT_CNXNS", "60"),
    ("standaloneEnabled", "ZOO_STANDALONE_ENABLED", "true"),
    ("admin.enableServer", "ZOO_ADMINSERVER_ENABLED", "true"),
];

/// Writes what is missing; the configuration file.
pub(super) fn prepare(variables: &Variables) -> Result<PathBuf, String> {
    let at = |path: &Path, result: io::Result<()>| {
        result.map_err(|error| format!("{}: {error}", path.display()))
    };
    for dir in variables.dirs() {
        at(dir, fs::create_dir_all(dir))?;
    }
    let config = variables.conf_dir.join("zoo.cfg");
    if !config.is_file() {
        at(&config, fs::write(&config, variables.config()))?;
    }
    let myid = variables.data_dir.join("myid");
    if !myid.is_file() {
        at(&myid, fs::write(&myid, format!("{}\n", variables.myid)))?;
    }
    Ok(config)
}

/// As root, gives the directories to the image's user and begins again as that user, as the official image
/// does. Returns if that is not so, or cannot be done: then the server runs as who it is.
pub(super) fn step_down(variables: &Variables) -> Option<u8> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    for dir in variables.dirs() {
        let given = fs::create_dir_all(dir).and_then(|()| give(dir));
        if let Err(error) = given {
            eprintln!("zabd: stays root, as {} cannot be given away: {error}", dir.display());
            return None;
        }
    }
    let arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    let mut arguments = arguments.into_iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).uid(USER).gid(USER).exec();
    eprintln!("zabd: stays root, as it cannot become user {USER}: {error}");
    None
}

fn give(path: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(path)?;
    if (data.uid(), data.gid()) != (USER, USER) {
        std::os::unix::fs::lchown(path, Some(USER), Some(USER))?;
    }
    if data.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    } else if data.is_symlink() && path.exists() {
        chown(path, Some(USER), Some(USER))?;
    }
    Ok(())
}

/// `zookeeper` in the official image.
const USER: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_official_images() {
        let defaults = Variables::read(|_| None).unwrap();
        // As written by the entry point of the official image of 3.9.
        assert_eq!(
            defaults.config(),
            "dataDir=/data\ndataLogDir=/datalog\ntickTime=2000\ninitLimit=5\nsyncLimit=2\n\
             autopurge.snapRetainCount=3\nautopurge.purgeInterval=0\nmaxClientCnxns=60\n\
             standaloneEnabled=true\nadmin.enableServer=true\nserver.1=localhost:2888:3888;2181\n"
        );
        let dir = std::env::temp_dir().join(format!("zabd-container-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let secret = dir.join("servers");
        fs::write(&secret, "server.1=a:2888:3888;2181  server.2=b:2888:3888;2181\n").unwrap();
        let env = |name: &str| {
            Some(match name {
                "ZOO_SERVERS_FILE" => secret.to_str().unwrap().to_owned(),
                "ZOO_4LW_COMMANDS_WHITELIST" => "srvr, mntr".into(),
                "ZOO_CFG_EXTRA" => "metricsProvider.httpPort=7070 snapCount=9".into(),
                "ZOO_TICK_TIME" => "3000".into(),
                "ZOO_CONF_DIR" => dir.join("conf").to_str().unwrap().to_owned(),
                "ZOO_DATA_DIR" => dir.join("data").to_str().unwrap().to_owned(),
                "ZOO_DATA_LOG_DIR" => dir.join("datalog").to_str().unwrap().to_owned(),
                "ZOO_LOG_DIR" => dir.join("logs").to_str().unwrap().to_owned(),
                "ZOO_MY_ID" => "2".into(),
                _ => return None,
            })
        };
        let set = Variables::read(env).unwrap();
        let text = set.config();
        assert!(text.contains("\ntickTime=3000\n"), "{text}");
        let end = "admin.enableServer=true\nserver.1=a:2888:3888;2181\nserver.2=b:2888:3888;2181\n\
                   4lw.commands.whitelist=srvr, mntr\nmetricsProvider.httpPort=7070\nsnapCount=9\n";
        assert!(text.ends_with(end), "{text}");
        let config = prepare(&set).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
        assert_eq!(fs::read_to_string(dir.join("data/myid")).unwrap(), "2\n");
        // What is there stays.
        fs::write(&config, "mine").unwrap();
        fs::write(dir.join("data/myid"), "7").unwrap();
        prepare(&set).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "mine");
        assert_eq!(fs::read_to_string(dir.join("data/myid")).unwrap(), "7");
        let missing = |name: &str| (name == "ZOO_MY_ID_FILE").then(|| "/nowhere/id".to_owned());
        assert!(Variables::read(missing).unwrap_err().contains("ZOO_MY_ID_FILE"));
        fs::remove_dir_all(dir).unwrap();
    }
}
