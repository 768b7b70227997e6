//! Commands that `zkCli.sh` does not have.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use zk_client::blocking::Client;
use zk_client::{
    ANY_VERSION, Acl, AddWatchMode, Answer, Code, Create, CreateMode, Error, Event, Request,
};

use super::nodes::{below, data, join, unexpected};
use crate::args::Parsed;
use crate::printer::kind_name;
use crate::shell::Shell;
use crate::text::{Failure, Said, acl_json, check_path, data_json, parse_acl};

pub(super) fn cd(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let word = parsed.words.get(1).map_or("/", String::as_str);
    // Here a relative path is one even at the root.
    let path = match (word, word.starts_with('/'), shell.directory.as_str()) {
        (".." | ".", _, "/") => "/".to_owned(),
        (word, false, "/") => format!("/{}", word.trim_end_matches('/')),
        _ => shell.resolve(word),
    };
    check_path(&path)?;
    data(shell, &path)?;
    shell.directory = path;
    Ok(Said::out(String::new(), json!({"directory": shell.directory})))
}

pub(super) fn pwd(shell: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    Ok(Said::out(format!("{}\n", shell.directory), json!({"directory": shell.directory})))
}

/// The path given, or where the shell is.
fn place(shell: &Shell, word: Option<&String>) -> Result<String, Failure> {
    word.map_or_else(|| Ok(shell.directory.clone()), |word| shell.path(word))
}

pub(super) fn tree(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let root = place(shell, parsed.words.get(1))?;
    let depth_max = match parsed.value("d").map(str::parse) {
        None => usize::MAX,
        Some(Ok(depth)) => depth,
        Some(Err(_)) => return Err(Failure::new("-d argument must be a number")),
    };
    let mut text = format!("{root}\n");
    let mut json = Vec::new();
    let mut left = vec![(root, 0)];
    while let Some((path, depth)) = left.pop() {
        let (data, stat) = match data(shell, &path) {
            Ok(found) => found,
            // Deleted meanwhile.
            Err(_) if depth > 0 => continue,
            Err(failure) => return Err(failure),
        };
        let size = data.map_or(0, |data| data.len());
        if depth > 0 {
            let name = path.rsplit('/').next().unwrap_or_default();
            let size = if parsed.has("s") { format!(" ({size} B)") } else { String::new() };
            let _ = writeln!(text, "{}{name}{size}", "  ".repeat(depth));
        }
        json.push(json!({"path": path, "bytes": size, "children": stat.num_children}));
        if depth < depth_max {
            let mut names = shell.client().children(&path, false).unwrap_or_default();
            names.reverse();
            left.extend(names.iter().map(|name| (join(&path, name), depth + 1)));
        }
    }
    Ok(Said::out(text, Value::Array(json)))
}

pub(super) fn find(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let root = shell.path(&parsed.words[1])?;
    let wanted = parsed.words.get(2).map_or("", String::as_str).as_bytes();
    let has = |text: &[u8]| text.windows(wanted.len().max(1)).any(|part| part == wanted);
    let mut paths = Vec::new();
    below(shell, &root, false, &mut |path: &str| paths.push(path.to_owned()))?;
    let mut found = Vec::new();
    for path in paths {
        let name = path.rsplit('/').next().unwrap_or_default();
        let matches = wanted.is_empty()
            || has(name.as_bytes())
            || data(shell, &path).is_ok_and(|(data, _)| data.is_some_and(|data| has(&data)));
        if matches {
            found.push(path);
        }
    }
    let text = found.iter().map(|path| format!("{path}\n")).collect();
    Ok(Said::out(text, json!(found)))
}

/// Writes a node, whether it is there or not.
fn put(client: &Client, path: &str, data: Option<Bytes>, acl: Vec<Acl>) -> Result<(), Error> {
    let create = Create {
        path: path.to_owned(),
        data: data.clone(),
        acl,
        mode: CreateMode::Persistent,
        stat: false,
    };
    match client.call(&Request::Create(create)) {
        Err(error) if error.code == Code::NodeExists => client
            .call(&Request::SetData { path: path.to_owned(), data, version: ANY_VERSION })
            .map(|_| ()),
        result => result.map(|_| ()),
    }
}

pub(super) fn copy(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let (from, to) = (shell.path(&parsed.words[1])?, shell.path(&parsed.words[2])?);
    let other = parsed.words.get(3).map(|server| shell.other(server)).transpose()?;
    if other.is_none() && (to == from || to.starts_with(&join(&from, ""))) && parsed.has("r") {
        return Err(Failure::new(format!("{to} lies in {from}")));
    }
    let mut paths = vec![from.clone()];
    if parsed.has("r") {
        paths.clear();
        below(shell, &from, false, &mut |path: &str| paths.push(path.to_owned()))?;
    }
    let target = other.as_ref().unwrap_or_else(|| shell.client());
    for path in &paths {
        let (data, stat) = data(shell, path)?;
        if stat.ephemeral_owner == 0 {
            let rest = path[from.len()..].trim_start_matches('/');
            let to = if rest.is_empty() { to.clone() } else { join(&to, rest) };
            put(target, &to, data, Acl::open())?;
        }
    }
    Ok(Said::out(String::new(), json!({"copied": paths.len()})))
}

/// One line for each node: path, data, ACL. Ephemeral nodes belong to sessions and are left out.
pub(super) fn dump(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let root = shell.path(&parsed.words[1])?;
    let mut paths = Vec::new();
    below(shell, &root, false, &mut |path: &str| paths.push(path.to_owned()))?;
    let (mut text, mut count) = (String::new(), 0);
    for path in paths.iter().filter(|path| !path.starts_with("/zookeeper")) {
        let (data, stat) = data(shell, path)?;
        let Answer::Acl(acl, _) = shell.call(&Request::GetAcl { path: path.clone() })? else {
            return Err(unexpected());
        };
        if stat.ephemeral_owner == 0 {
            let mut line = json!({"path": path});
            if let (Value::Object(line), Value::Object(data)) =
                (&mut line, data_json(data.as_deref()))
            {
                line.extend(data);
            }
            line["acl"] = acl_json(&acl);
            let _ = writeln!(text, "{line}");
            count += 1;
        }
    }
    let Some(file) = parsed.words.get(2) else {
        return Ok(Said::out(text.clone(), Value::Null)).inspect(|_| {
            if shell.is_json() {
                shell.printer.out(&text);
            }
        });
    };
    std::fs::write(file, text).map_err(|error| Failure::new(format!("{file}: {error}")))?;
    Ok(Said::err(format!("{count} nodes written to {file}\n"), json!({"nodes": count})))
}

pub(super) fn load(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let file = &parsed.words[1];
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Failure::new(format!("{file}: {error}")))?;
    let onto = place(shell, parsed.words.get(2))?;
    let mut count = 0;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |what: &str| Failure::new(format!("{file}, line {}: {what}", number + 1));
        let value: Value = serde_json::from_str(line).map_err(|error| bad(&error.to_string()))?;
        let path = value["path"].as_str().ok_or_else(|| bad("no path"))?;
        let path = join(&onto, path.trim_start_matches('/'));
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
        check_path(path)?;
        let data = match (&value["data"], &value["base64"]) {
            (Value::String(text), _) => Some(Bytes::from(text.clone())),
            (_, Value::String(text)) => {
                use base64::Engine;
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                Some(decoded.map_err(|error| bad(&error.to_string()))?.into())
            }
            _ => None,
        };
        let mut acl = Vec::new();
        for entry in value["acl"].as_array().into_iter().flatten() {
            let field = |name: &str| entry[name].as_str().unwrap_or_default();
            acl.extend(
                parse_acl(&format!("{}:{}:{}", field("scheme"), field("id"), field("perms"))).0,
            );
        }
        if path != "/" {
            put(shell.client(), path, data, if acl.is_empty() { Acl::open() } else { acl })?;
        }
        count += 1;
    }
    Ok(Said::err(format!("{count} nodes loaded\n"), json!({"nodes": count})))
}

type Contents = BTreeMap<String, Option<Bytes>>;

/// What is below a node, by paths relative to it.
fn contents(client: &Client, root: &str) -> Result<Contents, Failure> {
    let mut contents = Contents::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let get = Request::GetData { path: path.clone(), watch: false };
        match client.call(&get) {
            Ok(Answer::Data(data, _)) => {
                let relative = path.strip_prefix(root).unwrap_or(&path).trim_start_matches('/');
                contents.insert(format!("/{relative}"), data);
                let names = client.children(&path, false).unwrap_or_default();
                left.extend(names.iter().map(|name| join(&path, name)));
            }
            Err(error) if error.code == Code::NoNode && path != root => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(unexpected()),
        }
    }
    contents.retain(|path, _| root != "/" || !path.starts_with("/zookeeper"));
    Ok(contents)
}

pub(super) fn diff(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let first = shell.path(&parsed.words[1])?;
    let ours = contents(shell.client(), &first)?;
    let second = &parsed.words[2];
    let theirs = match second.starts_with('/') || !second.contains(':') {
        true => contents(shell.client(), &shell.path(second)?)?,
        false => contents(&shell.other(second)?, &first)?,
    };
    let mut text = String::new();
    let (mut json, mut note) = (Vec::new(), |sign: char, path: &String| {
        let _ = writeln!(text, "{sign} {path}");
        json!({"difference": sign.to_string(), "path": path})
    });
    for (path, data) in &ours {
        match theirs.get(path) {
            None => json.push(note('-', path)),
            Some(other) if other != data => json.push(note('!', path)),
            Some(_) => {}
        }
    }
    json.extend(theirs.keys().filter(|path| !ours.contains_key(*path)).map(|path| note('+', path)));
    Ok(Said::out(text, Value::Array(json)))
}

/// Shows the events of a node, or of a node and all below it, as they come.
pub(super) fn watch(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    let mut left: u64 = match parsed.value("n").map(str::parse) {
        None => u64::MAX,
        Some(Ok(events)) => events,
        Some(Err(_)) => return Err(Failure::new("-n argument must be a number")),
    };
    let mode = match parsed.has("R") {
        true => AddWatchMode::PersistentRecursive,
        false => AddWatchMode::Persistent,
    };
    let client = shell.other(&shell.server)?;
    client.call(&Request::AddWatch { path, mode })?;
    while left > 0 {
        let (kind, path) = match client.event(Duration::from_secs(1)) {
            Some(Event::Watch(event)) => (kind_name(event.kind), event.path),
            Some(Event::Disconnected) => ("Disconnected", String::new()),
            Some(Event::Connected { host, .. }) => ("Connected", host.to_string()),
            Some(Event::Missed(count)) => ("Missed", count.to_string()),
            Some(Event::Closed(code)) => return Err(Failure::new(code.to_string())),
            _ => continue,
        };
        left -= u64::from(kind.starts_with("Node"));
        shell.printer.out(&match shell.is_json() {
            true => format!("{}\n", json!({"event": kind, "path": path})),
            false => format!("{kind} {path}\n"),
        });
    }
    Ok(Said::default())
}
