//! `zabd generate`: the manual page, and completions of shells, from the command line's own table.

use std::io;

use clap::{Arg, ArgMatches, Command};
use clap_complete::{Shell, generate};

use crate::command_line;
use crate::exit;

pub(super) fn command() -> Command {
    Command::new("generate")
        .about("Prints the manual page, or the completions of a shell")
        .arg(Arg::new("what").value_parser(["man", "bash", "zsh", "fish"]).required(true))
}

pub(super) fn run(matches: &ArgMatches) -> u8 {
    let what = matches.get_one::<String>("what").map_or("man", String::as_str);
    let mut table = command_line::command();
    let mut text = Vec::new();
    let written = match what {
        "bash" => shell(Shell::Bash, &mut table, &mut text),
        "zsh" => shell(Shell::Zsh, &mut table, &mut text),
        "fish" => shell(Shell::Fish, &mut table, &mut text),
        _ => manual(table, &mut text),
    };
    let written = written.and_then(|()| io::Write::write_all(&mut io::stdout().lock(), &text));
    if written.is_ok() { exit::OK } else { exit::UNEXPECTED }
}

fn shell(shell: Shell, table: &mut Command, text: &mut Vec<u8>) -> io::Result<()> {
    generate(shell, table, "zabd", text);
    Ok(())
}

/// The page of the program, and after it the options of every command.
fn manual(table: Command, text: &mut Vec<u8>) -> io::Result<()> {
    let page = clap_mangen::Man::new(table.clone());
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    page.render_subcommands_section(text)?;
    for command in table.get_subcommands() {
        let name = format!("zabd {}", command.get_name());
        text.extend(format!(".SH \"{}\"\n", name.to_uppercase()).bytes());
        let page =
            clap_mangen::Man::new(command.clone().bin_name(name).disable_help_subcommand(true));
        let mut section = Vec::new();
        page.render_description_section(&mut section)?;
        page.render_options_section(&mut section)?;
        page.render_extra_section(&mut section)?;
        // Below the command's own heading.
        text.extend(String::from_utf8_lossy(&section).replace("\n.SH ", "\n.SS ").bytes());
    }
    let page = clap_mangen::Man::new(table);
    page.render_extra_section(text)?;
    text.extend(
        b".SH \"EXIT STATUS\"\n0: a normal end. 1: an unexpected error. 2: the configuration or the command \
          line is wrong. 3: the data directory cannot be used. 6: the members have changed. 14: the election \
          port cannot be bound. Commands tell theirs.\n"
            .iter(),
    );
    Ok(())
}
