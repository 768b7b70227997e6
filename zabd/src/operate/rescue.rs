//! `zabd backup`, `zabd restore`, `zabd recover`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use zab_proto::Epoch;
use zab_storage::Compression;
use zk_recovery::forced::Votes;
use zk_recovery::{Error, Manifest, backup, forced, restore};

use super::members::Named;
use crate::{exit, logging};

const MEMBER_HELP: &str = "The member's zoo.cfg, or its dataDir, or dataDir,dataLogDir";

pub(super) fn commands() -> [Command; 3] {
    [backup_command(), restore_command(), recover_command()]
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn backup_command() -> Command {
    Command::new("backup")
        .about("Saves the tree of a member, running or stopped, as of one zxid")
        .after_help(
            "A running member is asked for the zxid that it has applied (srvr), and its files are read up \
             to there. Nothing of the member is locked or changed. The backup is read again as a whole \
             before it gets its name. Exit code 0: it is there; 1: it could not be made.",
        )
        .arg(Arg::new("member").value_name("MEMBER").required(true).help(MEMBER_HELP))
        .arg(
            Arg::new("target")
                .value_name("BACKUP")
                .value_parser(value_parser!(PathBuf))
                .required(true)
                .help("The directory to be made; refused if there is something in it"),
        )
        .arg(
            Arg::new("server")
                .long("server")
                .value_name("HOST:PORT")
                .help("The client port to ask instead of the one in zoo.cfg"),
        )
        .arg(flag("gzip", "Compresses the snapshot"))
        .arg(flag("committed", "Leaves out what a stopped member's files do not show to be committed"))
        .arg(flag("json", "Prints the manifest as JSON"))
}

fn restore_command() -> Command {
    Command::new("restore")
        .about("Makes a member's directories from a backup")
        .after_help(
            "Restore every voter of the new ensemble from the same backup, then start them together. Exit \
             code 0: done, or the backup is whole (--check); 1: not.",
        )
        .arg(
            Arg::new("backup")
                .value_name("BACKUP")
                .value_parser(value_parser!(PathBuf))
                .required(true)
                .help("The directory that zabd backup has made"),
        )
        .arg(
            Arg::new("member")
                .value_name("MEMBER")
                .num_args(1..)
                .required_unless_present("check")
                .help(MEMBER_HELP),
        )
        .arg(
            Arg::new("epoch")
                .long("epoch")
                .value_name("N")
                .value_parser(value_parser!(i64))
                .allow_negative_numbers(true)
                .help("Begins above this epoch, so that clients that have seen a later one come back"),
        )
        .arg(flag("check", "Only reads the backup and says whether it is whole"))
}

fn recover_command() -> Command {
    Command::new("recover")
        .about("Makes a new ensemble of what is left of one that has lost its majority for good")
        .after_help(
            "Without --execute nothing is changed: the plan is printed, with what may be lost, and a token. \
             To do it, give the same command --execute TOKEN. Read docs/recovery.md first. Exit code 0: \
             planned or done; 1: not.",
        )
        .arg(
            Arg::new("member")
                .value_name("MEMBER")
                .num_args(1..)
                .required(true)
                .help("zoo.cfg, dataDir or dataDir,dataLogDir of every member that is left"),
        )
        .arg(
            Arg::new("voters")
                .long("voters")
                .value_name("N")
                .value_parser(value_parser!(u16).range(1..))
                .help("How many voters there were, if no zoo.cfg is named that says it"),
        )
        .arg(
            Arg::new("execute")
                .long("execute")
                .value_name("TOKEN")
                .help("Does what the plan with this token says"),
        )
        .arg(flag("json", "Prints the plan as JSON"))
}

/// Tells of long work on stderr, and of the outcome on stdout.
fn finish<T>(result: Result<T, Error>, tell: impl FnOnce(&T) -> String) -> u8 {
    match result {
        Ok(done) => {
            let written = std::io::stdout().lock().write_all(tell(&done).as_bytes());
            if written.is_ok() { exit::OK } else { exit::UNEXPECTED }
        }
        Err(error) => complain(&error.to_string()),
    }
}

fn complain(what: &str) -> u8 {
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "zabd: {what}");
    exit::UNEXPECTED
}

fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn members(matches: &ArgMatches) -> Result<Vec<Named>, String> {
    let names = matches.get_many::<String>("member").into_iter().flatten();
    names.map(|name| Named::parse(name)).collect()
}

pub(super) fn backup(matches: &ArgMatches) -> u8 {
    logging::init_quiet();
    let named = match members(matches) {
        Ok(mut members) if members.len() == 1 => members.remove(0),
        Ok(_) => return exit::INVALID,
        Err(error) => return complain(&error),
    };
    let Some(target) = matches.get_one::<PathBuf>("target") else { return exit::INVALID };
    let source = backup::Source {
        server: matches.get_one("server").cloned().or_else(|| named.server()),
        alone: named.config.as_ref().is_some_and(|config| config.standalone),
        committed_only: matches.get_flag("committed"),
        member: named.member,
    };
    let gzip = matches.get_flag("gzip");
    let compression = if gzip { Compression::Gz } else { Compression::None };
    let made = backup::create(&source, target, compression, &mut progress);
    let as_json = matches.get_flag("json");
    finish(made, |manifest| match as_json {
        true => manifest.to_json(),
        false => format!("{} holds {}", target.display(), summary(manifest)),
    })
}

fn summary(manifest: &Manifest) -> String {
    format!(
        "{} nodes and {} sessions as of {} ({:#x}).\nCommitted: {}\n",
        manifest.nodes,
        manifest.sessions,
        manifest.zxid,
        manifest.zxid.raw(),
        manifest.committed
    )
}

pub(super) fn restore(matches: &ArgMatches) -> u8 {
    logging::init_quiet();
    let Some(backup) = matches.get_one::<PathBuf>("backup") else { return exit::INVALID };
    if matches.get_flag("check") {
        let checked = backup::verify(backup, &mut progress);
        return finish(checked, |manifest| {
            format!("{} is whole: {}", backup.display(), summary(manifest))
        });
    }
    let members = match members(matches) {
        Ok(members) => Vec::from_iter(members.into_iter().map(|named| named.member)),
        Err(error) => return complain(&error),
    };
    let epoch = matches.get_one::<i64>("epoch").copied().map(Epoch);
    finish(restore::into(&members, backup, epoch, &mut progress), |manifest| {
        let dirs = Vec::from_iter(members.iter().map(|m| m.data_dir.display().to_string()));
        format!(
            "{} now begins with {}Restore the other voters from the same backup before they start: an \
             empty one waits for a leader.\n",
            dirs.join(", "),
            summary(manifest)
        )
    })
}

pub(super) fn recover(matches: &ArgMatches) -> u8 {
    logging::init_quiet();
    let named = match members(matches) {
        Ok(named) => named,
        Err(error) => return complain(&error),
    };
    let config = named.iter().find_map(|named| named.config.as_ref());
    let votes = match (matches.get_one::<u16>("voters"), config) {
        (Some(&count), _) => Votes::Count(usize::from(count)),
        (None, Some(config)) if config.standalone => Votes::Count(1),
        (None, Some(config)) => Votes::Members(Box::new(config.ensemble.clone())),
        (None, None) => Votes::Unknown,
    };
    let members = Vec::from_iter(named.into_iter().map(|named| named.member));
    let plan = match forced::plan(&members, votes, &mut progress) {
        Ok(plan) => plan,
        Err(error) => return complain(&error.to_string()),
    };
    let Some(token) = matches.get_one::<String>("execute") else {
        let as_json = matches.get_flag("json");
        return finish(Ok(&plan), |plan| match as_json {
            true => format!("{:#}\n", plan.to_json()),
            false => format!(
                "{plan}Nothing was changed. To do it, repeat the command with --execute {}\n",
                plan.token()
            ),
        });
    };
    finish(forced::execute(&plan, token, &mut progress), |kept| {
        let mut text = plan.to_string();
        text.push_str("Done. What was there before is kept in\n");
        for path in kept {
            text.push_str(&format!("  {}\n", path.display()));
        }
        text.push_str(
            "Now give the members a configuration with the voters of the new ensemble, and start these \
             members first. They have to be a majority of it; others join with empty directories.\n",
        );
        text
    })
}
