//! Commands for operators that run beside a server, or without one.

pub mod container;
mod doctor;
mod generate;
mod members;
mod rescue;

use clap::{ArgMatches, Command};

/// The commands, for the command line's table.
pub(crate) fn commands() -> Vec<Command> {
    let mut commands = Vec::from(rescue::commands());
    commands.push(doctor::command());
    commands.push(generate::command());
    commands.extend(container::commands());
    commands
}

/// Runs the command if it is one of these; its exit code.
#[must_use]
pub fn run(matches: &ArgMatches) -> Option<u8> {
    let (name, matches) = matches.subcommand()?;
    match name {
        "backup" => Some(rescue::backup(matches)),
        "restore" => Some(rescue::restore(matches)),
        "recover" => Some(rescue::recover(matches)),
        "generate" => Some(generate::run(matches)),
        "doctor" => Some(doctor::run(matches)),
        _ => None,
    }
}
