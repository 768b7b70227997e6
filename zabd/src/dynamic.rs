//! ZooKeeper's dynamic configuration files, beside the configuration file.
//!
//! `<file>.dynamic.<version>` holds the members in force, and the configuration file points to it; what is
//! proposed and not committed stands in `<file>.dynamic.next`. They are written as ZooKeeper's servers do
//! (`QuorumPeerConfig.writeDynamicConfig`, `editStaticConfig`), so that one of those can take this server's
//! place, on the thread that writes to the disk and before what they say is acknowledged. This server's own
//! `ensembleConfigurations` holds the same: an error here is told, and ends nothing.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use zab_proto::{Membership, Sid};
use zab_storage::read_configurations;

use crate::config::{ServerConfig, entries};

/// The files of one server.
#[derive(Clone, Debug)]
pub(crate) struct DynamicFiles {
    /// The configuration file.
    file: PathBuf,
    sid: Sid,
}

impl DynamicFiles {
    /// Those of a server that has a configuration file, and members that may change.
    pub(crate) fn of(config: &ServerConfig) -> Option<Self> {
        let file = config.file.clone().filter(|_| config.changes_members())?;
        Some(Self { file, sid: config.sid })
    }

    /// Keeps a copy of a configuration file that has the members itself, before it is rewritten.
    pub(crate) fn back_up(&self, config: &ServerConfig) {
        let has_members = entries(config.text.as_bytes()).iter().any(|(key, _)| is_of_members(key));
        if config.dynamic.is_none() && has_members {
            let path = with_suffix(&self.file, ".bak");
            let copied = fs::read(&self.file).and_then(|bytes| replace(&path, &bytes));
            if let Err(error) = copied {
                log::error!(
                    "Cannot keep a copy of the configuration in {}: {error}",
                    path.display()
                );
            }
        }
    }

    /// Writes the files for these texts: the committed configuration, and those that are being introduced.
    pub(crate) fn write(&self, texts: &[String]) {
        let mut known =
            texts.iter().filter_map(|text| Membership::parse_text(text.as_bytes()).ok());
        let Some(committed) = known.next() else { return };
        if let Err(error) = self.write_committed(&committed) {
            log::error!(
                "Cannot write the members of version {:x} beside {}, where another start would look for \
                 them: {error}. This server keeps them in its data directory",
                committed.version,
                self.file.display()
            );
        }
        let path = with_suffix(&self.file, NEXT);
        let written = match known.next_back() {
            Some(next) => replace(&path, lines(&next, true).as_bytes()),
            None => remove(&path),
        };
        if let Err(error) = written {
            log::error!("Cannot write {}: {error}", path.display());
        }
    }

    fn write_committed(&self, ensemble: &Membership) -> io::Result<()> {
        if ensemble.version == 0 {
            // That is what the file says itself.
            return Ok(());
        }
        let dynamic = with_suffix(&self.file, &format!(".dynamic.{:x}", ensemble.version));
        replace(&dynamic, lines(ensemble, false).as_bytes())?;
        let name = dynamic.file_name().ok_or(ErrorKind::InvalidInput)?;
        let pointer = fs::canonicalize(folder(&dynamic))?.join(name);
        let member = ensemble.members.get(&self.sid);
        let has_client = member.is_some_and(|member| member.client.is_some());
        let text = fs::read_to_string(&self.file)?;
        let edited = edited(&text, &pointer, has_client);
        if edited != text {
            replace(&self.file, edited.as_bytes())?;
        }
        Ok(())
    }
}

/// The configurations that count beside the file's, of a server whose own directory knows of none: what
/// one of ZooKeeper's has left as proposed.
pub(crate) fn left_behind(config: &ServerConfig) -> Vec<String> {
    let Some(files) = DynamicFiles::of(config) else { return Vec::new() };
    let path = with_suffix(&files.file, NEXT);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            log::warn!("{} cannot be read and is ignored: {error}", path.display());
            return Vec::new();
        }
    };
    let in_force = config.ensemble.version;
    match proposed(&text) {
        Ok(next) if next.version > in_force => {
            log::info!(
                "{}: the members of version {:x} are proposed",
                path.display(),
                next.version
            );
            vec![config.ensemble.text(), next.text()]
        }
        Ok(next) => {
            log::warn!(
                "{} is ignored: its version {:x} is not newer than {in_force:x}, which is in force",
                path.display(),
                next.version
            );
            Vec::new()
        }
        Err(why) => {
            log::warn!("{} is ignored: {why}", path.display());
            Vec::new()
        }
    }
}

/// The members in a file of what is proposed. ZooKeeper reads it as a properties file, so one that was written
/// by hand may have comments, other separators, and entries over several lines. A version is hexadecimal; a
/// file without one has version 0 (`QuorumPeerConfig.parseDynamicConfig`).
fn proposed(text: &[u8]) -> Result<Membership, String> {
    let mut ensemble = Membership::default();
    for (key, value) in entries(text) {
        if key == "version" {
            ensemble.version = i64::from_str_radix(&value, 16)
                .map_err(|_| format!("its version {value:?} is no hexadecimal number"))?;
        } else if !ensemble.set(&key, &value).map_err(|error| error.to_string())? {
            return Err(format!("Unrecognised parameter: {key}"));
        }
    }
    ensemble.complete().map_err(|error| error.to_string())?;
    if ensemble.members.is_empty() { Err("it names no members".into()) } else { Ok(ensemble) }
}

/// What this server knew to be in force at its last end counts, if it is newer than what the file says.
pub(crate) fn adopt_stored(config: &mut ServerConfig) {
    if !config.changes_members() {
        return;
    }
    // An unreadable directory is the storage's to report, which reads it next.
    let texts = read_configurations(&config.data_dir.join("version-2")).unwrap_or_default();
    let stored = texts.first().and_then(|text| Membership::parse_text(text.as_bytes()).ok());
    let Some(stored) = stored.filter(|stored| stored.version > config.ensemble.version) else {
        return;
    };
    log::info!(
        "The members of version {:x}, which are in force, are newer than those of the configuration \
         (version {:x})",
        stored.version,
        config.ensemble.version
    );
    // Who is no longer a member, and is to become one again, listens where its own file says.
    if let Some(own) = stored.members.get(&config.sid) {
        config.client = own.client.clone().or_else(|| config.client.take());
        config.own = Some(own.clone());
    }
    config.ensemble = stored;
    if let Some(files) = DynamicFiles::of(config) {
        files.write(&texts);
    }
}

/// Whether a key says who the members are, wherever they stand.
pub(crate) fn is_of_members(key: &str) -> bool {
    ["server.", "group", "weight"].iter().any(|start| key.starts_with(start))
}

/// The members as ZooKeeper writes them: sorted as text, and no line end behind the last one.
fn lines(ensemble: &Membership, with_version: bool) -> String {
    let text = ensemble.text();
    let mut lines: Vec<&str> =
        text.lines().filter(|line| with_version || !line.starts_with("version=")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The configuration file with a pointer in the place of the members. All else stays as it is, comments,
/// too, which ZooKeeper's servers lose.
fn edited(text: &str, pointer: &Path, without_client: bool) -> String {
    let mut out = String::new();
    let mut rest = text.lines().peekable();
    while let Some(line) = rest.next() {
        let mut entry = line.to_owned();
        let is_comment = line.trim_start().starts_with(['#', '!']);
        while !is_comment && goes_on(&entry) && rest.peek().is_some() {
            entry.push('\n');
            entry.push_str(rest.next().unwrap_or_default());
        }
        let key = entries(entry.as_bytes()).into_iter().next().map(|(key, _)| key);
        let goes = key.is_some_and(|key| {
            is_of_members(&key)
                || ["dynamicConfigFile", "peerType"].contains(&&*key)
                || (without_client && ["clientPort", "clientPortAddress"].contains(&&*key))
        });
        if !goes {
            out.push_str(&entry);
            out.push('\n');
        }
    }
    let pointer = pointer.display().to_string().replace('\\', "\\\\");
    out.push_str(&format!("dynamicConfigFile={pointer}\n"));
    out
}

/// Whether the next line belongs to this one: it ends in a backslash that is not escaped itself.
fn goes_on(entry: &str) -> bool {
    entry.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Where ZooKeeper keeps a configuration that is proposed and not committed.
const NEXT: &str = ".dynamic.next";

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Replaces a file, durably, or leaves the old one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let made = with_suffix(path, ".tmp");
    let write = || {
        let mut file = File::create(&made)?;
        file.write_all(bytes)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&made, path)?;
        File::open(folder(path))?.sync_all()
    };
    write().inspect_err(|_| _ = fs::remove_file(&made))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => File::open(folder(path))?.sync_all(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::SystemProperties;

    /// A configuration in a directory of its own.
    fn begin(extra: &str) -> (PathBuf, ServerConfig) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("zabd-dynamic-{}-{number}", std::process::id()));
        fs::create_dir_all(dir.join("version-2")).unwrap();
        fs::write(dir.join("myid"), "1").unwrap();
        let members = "server.1=a:1:2;3\nserver.2=b:1:2;3\nserver.3=c:1:2;3\n";
        let text = format!(
            "# ours\ndataDir={}\ninitLimit=9\nsyncLimit=9\nreconfigEnabled=true\n{extra}{members}",
            dir.display()
        );
        fs::write(dir.join("zoo.cfg"), text).unwrap();
        let config = load(&dir);
        (dir, config)
    }

    fn load(dir: &Path) -> ServerConfig {
        ServerConfig::load(&dir.join("zoo.cfg"), SystemProperties::default()).unwrap()
    }

    /// Sorted as text.
    const CHANGED: &str = "server.10=d:1:2:observer;0.0.0.0:3\nserver.1=a:1:2:participant;0.0.0.0:4\n\
                           server.2=b:1:2:participant;0.0.0.0:3\nversion=10000000a";

    #[test]
    fn what_is_committed_is_what_the_next_start_reads() {
        let (dir, config) = begin("clientPort=3\npeerType=observer\n");
        let files = DynamicFiles::of(&config).unwrap();
        files.back_up(&config);
        let original = fs::read(dir.join("zoo.cfg")).unwrap();
        assert_eq!(fs::read(dir.join("zoo.cfg.bak")).unwrap(), original);
        files.write(&[config.ensemble.text(), CHANGED.into()]);
        assert_eq!(fs::read(dir.join("zoo.cfg")).unwrap(), original, "not committed yet");
        let next = fs::read_to_string(dir.join("zoo.cfg.dynamic.next")).unwrap();
        assert_eq!(next, CHANGED);
        let left = left_behind(&config);
        assert_eq!(left.len(), 2);
        assert!(left[1].ends_with("version=10000000a"));
        files.write(&[CHANGED.into()]);
        assert!(!dir.join("zoo.cfg.dynamic.next").exists());
        let dynamic = dir.join("zoo.cfg.dynamic.10000000a");
        let lines: Vec<&str> = CHANGED.lines().take(3).collect();
        assert_eq!(fs::read_to_string(&dynamic).unwrap(), lines.join("\n"));
        let real = fs::canonicalize(&dynamic).unwrap();
        assert_eq!(
            fs::read_to_string(dir.join("zoo.cfg")).unwrap(),
            format!(
                "# ours\ndataDir={}\ninitLimit=9\nsyncLimit=9\nreconfigEnabled=true\n\
                 dynamicConfigFile={}\n",
                dir.display(),
                real.display()
            )
        );
        let again = load(&dir);
        assert_eq!(again.ensemble.version, 0x1_0000_000a);
        assert_eq!(again.client, Some(("0.0.0.0".into(), 4)));
        DynamicFiles::of(&again).unwrap().back_up(&again);
        assert_eq!(fs::read(dir.join("zoo.cfg.bak")).unwrap(), original, "of the one with members");
        fs::remove_dir_all(dir).unwrap();
    }

    /// What is proposed, as somebody writes it, and what of it is obeyed.
    #[test]
    fn a_file_that_was_written_by_hand_is_read_as_zookeeper_reads_it() {
        let (dir, config) = begin("");
        let path = dir.join("zoo.cfg.dynamic.next");
        let obeyed = |text: &str| {
            fs::write(&path, text).unwrap();
            left_behind(&config)
        };
        for good in [
            "server.1=a:1:2\nserver.4=d:1:2;3\nversion=100000002",
            "# to come\r\n\r\n  server.1 = a:1:2\r\nserver.4: d:1:2;3\r\n! in hexadecimal\r\nversion  100000002\r\n",
            "version=100000002\nserver.4=\\\n   d:1:2;\\\n   3\nserver.1=a:1:2:participant\n",
        ] {
            let left = obeyed(good);
            assert_eq!(left.len(), 2, "{good}");
            assert_eq!(
                left[1],
                "server.1=a:1:2:participant\nserver.4=d:1:2:participant;0.0.0.0:3\nversion=100000002"
            );
        }
        for bad in [
            "",
            "version=100000002",
            "server.1=a:1:2\nversion=",
            "server.1=a:1:2\nversion=x",
            "server.1=a:1:2",
            "server.1=a:1:2\nversion=0",
            "server.1=a:1:2\nversion=5\ntickTime=2000",
            "server.1=a:1\nversion=5",
            "server.x=a:1:2\nversion=5",
        ] {
            assert_eq!(obeyed(bad), Vec::<String>::new(), "{bad}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(left_behind(&config), Vec::<String>::new());
        // It cannot be read.
        fs::create_dir(&path).unwrap();
        assert_eq!(left_behind(&config), Vec::<String>::new());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_reconfig_enabled_there_are_no_files() {
        let (dir, config) = begin("");
        assert!(DynamicFiles::of(&config).is_some());
        let text = fs::read_to_string(dir.join("zoo.cfg")).unwrap();
        fs::write(dir.join("zoo.cfg"), text.replace("=true", "=false")).unwrap();
        assert!(DynamicFiles::of(&load(&dir)).is_none());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn entries_over_several_lines_go_as_one() {
        let text = "a=1\\\n  server.1=x\nserver.1=\\\n b:1:2\n# server.2=c\\\ngroup.1=1\nb=2\\\\\nweight.1=3";
        assert_eq!(
            edited(text, Path::new("/d"), false),
            "a=1\\\n  server.1=x\n# server.2=c\\\nb=2\\\\\ndynamicConfigFile=/d\n"
        );
    }

    #[test]
    fn what_cannot_be_written_is_no_end() {
        let (dir, config) = begin("");
        let files = DynamicFiles::of(&config).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        files.write(&[CHANGED.into()]);
        files.back_up(&config);
    }
}
