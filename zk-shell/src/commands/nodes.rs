//! Commands for single nodes and what is below them.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use zk_client::{ANY_VERSION, Acl, Answer, Code, Create, CreateMode, Op, Request, Stat};

use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{
    Failure, Said, acl_json, data_json, parse_acl, perms_text, stat_json, stat_text,
};

fn version(parsed: &Parsed) -> Result<i32, Failure> {
    let Some(text) = parsed.value("v") else { return Ok(ANY_VERSION) };
    text.parse().map_err(|_| Failure::new(format!("For input string: \"{text}\"")))
}

pub(super) fn unexpected() -> Failure {
    Failure::new("KeeperErrorCode = MarshallingError")
}

pub(super) fn create(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let [e, s, c, t] = ["e", "s", "c", "t"].map(|option| parsed.has(option));
    let refuse = |text: &str| Err(Failure::new(text));
    if c && (e || s) {
        return refuse(
            "-c cannot be combined with -s or -e. Containers cannot be ephemeral or sequential.",
        );
    }
    let ttl = match parsed.value("t").map(str::parse) {
        None => 0,
        Some(Ok(ttl)) => ttl,
        Some(Err(_)) => return refuse("-t argument must be a long value"),
    };
    if t && (e || c) {
        let kind = if e { "Ephemeral" } else { "Container" };
        return refuse(&format!("TTLs cannot be used with {kind} znodes"));
    }
    if t && !(0..=TTL_MAX_MS).contains(&ttl) {
        return refuse(&format!("ttl must be positive and cannot be larger than: {TTL_MAX_MS}"));
    }
    let ttl = Duration::from_millis(u64::try_from(ttl).unwrap_or(0));
    let mode = match (e, s, c, t) {
        (true, true, ..) => CreateMode::EphemeralSequential,
        (true, ..) => CreateMode::Ephemeral,
        (_, true, _, true) => CreateMode::PersistentSequentialWithTtl(ttl),
        (_, true, ..) => CreateMode::PersistentSequential,
        (_, _, true, _) => CreateMode::Container,
        (_, _, _, true) => CreateMode::PersistentWithTtl(ttl),
        _ => CreateMode::Persistent,
    };
    let path = shell.resolve(&parsed.words[1]);
    // The number makes `/a/` a valid path.
    crate::text::check_path(&if s { format!("{path}1") } else { path.clone() })?;
    let data = parsed.words.get(2).map(|text| Bytes::from(text.clone()));
    let (acl, err) = match parsed.words.get(3) {
        Some(text) => parse_acl(text),
        None => (Acl::open(), String::new()),
    };
    shell.printer.err(&err);
    let result = match acl.is_empty() {
        // ZooKeeper's client refuses an empty list by itself, and does not name the path.
        true => Err(zk_client::Error { code: Code::InvalidAcl, path: None }),
        false => shell.ask(&Request::Create(Create { path, data, acl, mode, stat: false })),
    };
    match result {
        Ok(Answer::Created(path, _)) => {
            Ok(Said::err(format!("Created {path}\n"), json!({"created": path})))
        }
        Ok(_) => Err(unexpected()),
        Err(error) => {
            match error.code {
                Code::InvalidAcl => shell.printer.err(&format!("{error}\n")),
                Code::EphemeralOnLocalSession => {
                    shell.printer.err("Unable to create ephemeral node on a local session\n");
                }
                _ => {}
            }
            Err(error.into())
        }
    }
}

/// Five bytes of a node's owner.
const TTL_MAX_MS: i64 = 0x00ff_ffff_ffff;

/// `command path more` once meant what an option says now. The third word is taken for it, as
/// `zkCli.sh` has it, wherever the path stands.
fn old_form(
    shell: &Shell,
    words: &[String],
    parsed: &Parsed,
    (option, old, new): (&str, &str, &str),
    known: &str,
) -> Result<Parsed, Failure> {
    if parsed.words.len() <= 2 {
        return Ok(parsed.clone());
    }
    shell.printer.err(&format!("'{old}' has been deprecated. Please use '{new}' instead.\n"));
    let mut words = words.to_vec();
    option.clone_into(&mut words[2]);
    Parsed::new(&words, known).map_err(Failure::new)
}

pub(super) fn get(shell: &mut Shell, words: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let forms = ("-w", "get path [watch]", "get [-s] [-w] path");
    let parsed = old_form(shell, words, parsed, forms, "s w b x")?;
    let path = shell.path(&parsed.words[1])?;
    let watch = parsed.has("w");
    let Answer::Data(data, stat) = shell.call(&Request::GetData { path, watch })? else {
        return Err(unexpected());
    };
    let text = match data.as_deref() {
        None => "null".to_owned(),
        Some(data) if parsed.has("b") => {
            let Value::String(text) = json_base64(data) else { return Err(unexpected()) };
            text
        }
        Some(data) if parsed.has("x") => hex_dump(data),
        Some(data) => String::from_utf8_lossy(data).into_owned(),
    };
    let stat = parsed.has("s").then_some(stat);
    Ok(Said::out(format!("{text}\n"), data_json(data.as_deref())).and_stat(stat.as_ref()))
}

fn json_base64(data: &[u8]) -> Value {
    use base64::Engine;
    Value::String(base64::engine::general_purpose::STANDARD.encode(data))
}

/// In the form of ZooKeeper 3.9, which is Netty's.
fn hex_dump(data: &[u8]) -> String {
    const RULE: &str =
        "+--------+-------------------------------------------------+----------------+\n";
    if data.is_empty() {
        return String::new();
    }
    let digits: String = (0..16).map(|digit| format!("  {digit:x}")).collect();
    let line = "-".repeat(49);
    let mut text = format!("         +{line}+\n         |{digits} |\n{RULE}");
    for (row, bytes) in data.chunks(16).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let shown: String = bytes
            .iter()
            .map(|byte| if printable(byte) { char::from(*byte) } else { '.' })
            .collect();
        let _ = writeln!(text, "|{:08x}|{hex:<48} |{shown:<16}|", row * 16);
    }
    text + RULE.trim_end()
}

pub(super) fn list(shell: &mut Shell, words: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let forms = ("-w", "ls path [watch]", "ls [-w] path");
    let parsed = old_form(shell, words, parsed, forms, "? s w R")?;
    let path = shell.path(&parsed.words[1])?;
    let (watch, stat) = (parsed.has("w"), parsed.has("s"));
    if parsed.has("R") {
        let mut text = String::new();
        let mut json = Vec::new();
        below(shell, &path, watch, &mut |path: &str| {
            let _ = writeln!(text, "{path}");
            json.push(json!(path));
        })?;
        return Ok(Said::out(text, Value::Array(json)));
    }
    let children = Request::GetChildren { path, watch, stat: true };
    let Answer::Children(mut names, Some(of_node)) = shell.call(&children)? else {
        return Err(unexpected());
    };
    names.sort_unstable();
    let text = format!("[{}]\n", names.join(", "));
    Ok(Said::out(text, json!({"children": names})).and_stat(stat.then_some(&of_node)))
}

/// Visits a node and everything below it: the children of a node before their children.
pub(super) fn below(
    shell: &Shell,
    path: &str,
    watch: bool,
    visit: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    shell.call(&Request::GetData { path: path.to_owned(), watch })?;
    visit(path);
    // Not by recursion: nobody knows how deep a tree is.
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let request = Request::GetChildren { path: path.clone(), watch, stat: false };
        let mut names = match shell.ask(&request) {
            Ok(Answer::Children(names, _)) => names,
            // Deleted meanwhile.
            Err(error) if error.code == Code::NoNode => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(unexpected()),
        };
        names.sort_unstable();
        let children: Vec<String> = names.iter().map(|name| join(&path, name)).collect();
        children.iter().for_each(|child| visit(child));
        left.extend(children.into_iter().rev());
    }
    Ok(())
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

pub(super) fn stat(shell: &mut Shell, words: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let forms = ("-w", "stat path [watch]", "stat [-w] path");
    let parsed = old_form(shell, words, parsed, forms, "w")?;
    let path = shell.path(&parsed.words[1])?;
    let watch = parsed.has("w");
    match shell.call(&Request::Exists { path: path.clone(), watch })? {
        Answer::Exists(Some(stat)) => Ok(Said::out(stat_text(&stat), stat_json(&stat))),
        _ => Err(zk_client::Error { code: Code::NoNode, path: Some(path) }.into()),
    }
}

pub(super) fn set(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    let data = match parsed.has("b") {
        false => parsed.words[2].clone().into_bytes(),
        true => {
            use base64::Engine;
            let decoded = base64::engine::general_purpose::STANDARD.decode(&parsed.words[2]);
            decoded.map_err(|error| Failure::new(format!("not base64: {error}")))?
        }
    };
    let request = Request::SetData { path, data: Some(data.into()), version: version(parsed)? };
    changed(shell, &request, parsed.has("s"))
}

fn changed(shell: &Shell, request: &Request, show: bool) -> Result<Said, Failure> {
    let Answer::Stat(stat) = shell.call(request)? else { return Err(unexpected()) };
    Ok(Said::out(String::new(), json!({"ok": true})).and_stat(show.then_some(&stat)))
}

pub(super) fn delete(
    shell: &mut Shell,
    words: &[String],
    parsed: &Parsed,
) -> Result<Said, Failure> {
    let mut parsed = parsed.clone();
    if parsed.words.len() > 2 {
        shell.printer.err(
            "'delete path [version]' has been deprecated. Please use 'delete [-v version] path' \
             instead.\n",
        );
        let words = [&words[..1], &["-v".to_owned(), parsed.words[2].clone()], &words[1..2]];
        parsed = Parsed::new(&words.concat(), "v:").map_err(Failure::new)?;
    }
    let path = shell.path(&parsed.words[1])?;
    shell.call(&Request::Delete { path, version: version(&parsed)? })?;
    Ok(Said::nothing())
}

/// In multis of at most so many nodes, the deepest first.
pub(super) fn delete_all(
    shell: &mut Shell,
    _: &[String],
    parsed: &Parsed,
) -> Result<Said, Failure> {
    let batch: usize = match parsed.value("b").map(str::parse) {
        None => 1000,
        Some(Ok(batch)) if batch > 0 => batch,
        Some(_) => return Err(Failure::new("-b argument must be an int value")),
    };
    let path = shell.path(&parsed.words[1])?;
    let mut paths = Vec::new();
    below(shell, &path, false, &mut |path: &str| paths.push(path.to_owned()))?;
    // A node comes before everything below it.
    paths.reverse();
    paths.sort_by_key(|path| {
        std::cmp::Reverse(path.matches('/').count() - usize::from(path == "/"))
    });
    let mut failed = false;
    for batch in paths.chunks(batch) {
        let ops = batch.iter().map(|path| Op::Delete(path.clone(), ANY_VERSION)).collect();
        match shell.call(&Request::Multi(ops))? {
            Answer::Multi(results) => failed |= results.iter().any(Result::is_err),
            _ => return Err(unexpected()),
        }
    }
    let text = if failed { "Failed to delete some node(s) in the subtree!\n" } else { "" };
    Ok(Said::out(text.to_owned(), json!({"ok": !failed})))
}

pub(super) fn get_acl(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    let Answer::Acl(acl, stat) = shell.call(&Request::GetAcl { path })? else {
        return Err(unexpected());
    };
    let mut text = String::new();
    for acl in &acl {
        let _ = writeln!(text, "'{},'{}\n: {}", acl.scheme, acl.id, perms_text(acl.perms));
    }
    let stat = parsed.has("s").then_some(stat);
    Ok(Said::out(text, json!({"acl": acl_json(&acl)})).and_stat(stat.as_ref()))
}

pub(super) fn set_acl(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let (acl, err) = parse_acl(&parsed.words[2]);
    shell.printer.err(&err);
    let version = version(parsed)?;
    let path = shell.path(&parsed.words[1])?;
    if acl.is_empty() {
        return Err(zk_client::Error { code: Code::InvalidAcl, path: None }.into());
    }
    let set = |path: String| Request::SetAcl { path, acl: acl.clone(), version };
    if !parsed.has("R") {
        return changed(shell, &set(path), parsed.has("s"));
    }
    let mut paths = Vec::new();
    below(shell, &path, false, &mut |path: &str| paths.push(path.to_owned()))?;
    let mut text = String::new();
    for path in paths {
        let Answer::Stat(stat) = shell.call(&set(path))? else { return Err(unexpected()) };
        if parsed.has("s") {
            text.push_str(&stat_text(&stat));
        }
    }
    Ok(Said::out(text, json!({"ok": true})))
}

pub(super) fn number(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    match shell.call(&Request::GetAllChildrenNumber { path })? {
        Answer::Number(number) => Ok(Said::out(format!("{number}\n"), json!({"number": number}))),
        _ => Err(unexpected()),
    }
}

pub(super) fn ephemerals(
    shell: &mut Shell,
    _: &[String],
    parsed: &Parsed,
) -> Result<Said, Failure> {
    let prefix = match parsed.words.get(1) {
        Some(word) => shell.path(word)?,
        None => "/".to_owned(),
    };
    match shell.call(&Request::GetEphemerals { prefix })? {
        // In the server's order, as there.
        Answer::Names(names) => {
            Ok(Said::out(format!("[{}]\n", names.join(", ")), json!({"ephemerals": names})))
        }
        _ => Err(unexpected()),
    }
}

pub(super) fn sync(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    Ok(match shell.ask(&Request::Sync { path }) {
        Ok(_) => Said::out("Sync is OK\n".to_owned(), json!({"ok": true})),
        Err(error) => {
            let text = format!("Sync has failed. rc={}\n", error.code.number());
            Said::out(text, json!({"ok": false}))
        }
    })
}

pub(super) fn add_auth(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let scheme = parsed.words[1].clone();
    let credentials = Bytes::from(parsed.words.get(2).cloned().unwrap_or_default());
    // What a server does not accept ends the session, and the event says so.
    let accepted = shell.ask(&Request::Auth { scheme, credentials }).is_ok();
    Ok(Said::out(String::new(), json!({"ok": accepted})))
}

pub(super) fn who_am_i(shell: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    let Answer::Identities(ids) = shell.call(&Request::WhoAmI)? else { return Err(unexpected()) };
    let mut text = "Auth scheme: User\n".to_owned();
    for (scheme, user) in &ids {
        let _ = writeln!(text, "{scheme}: {user}");
    }
    let ids: Vec<Value> =
        ids.iter().map(|(scheme, user)| json!({"scheme": scheme, "user": user})).collect();
    Ok(Said::out(text, Value::Array(ids)))
}

/// The data of a node that is there, for commands that need no more.
pub(super) fn data(shell: &Shell, path: &str) -> Result<(Option<Bytes>, Stat), Failure> {
    match shell.call(&Request::GetData { path: path.to_owned(), watch: false })? {
        Answer::Data(data, stat) => Ok((data, stat)),
        _ => Err(unexpected()),
    }
}
