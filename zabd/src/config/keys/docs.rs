//! The table as a page of the documentation.

use std::fmt::Write;

use super::{Fate, Key, Place, Reader, SECTIONS, When};

/// All keys as Markdown: what `zabd keys` prints, and the second part of `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let place = match section.place {
            Place::File => "In the file; as a property only where noted.",
            Place::Property => "In the file, or as the property `zookeeper.<key>`.",
            Place::Plain => "As a property of this name; here in the file, too.",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "### {}\n\n{place}\n", section.title);
        text.push_str("| Key | Values | Default | |\n|---|---|---|---|\n");
        for key in section.keys {
            let _ = writeln!(text, "{}", row(key));
        }
        text.push('\n');
    }
    text
}

fn row(key: &Key) -> String {
    let values = match key.reader {
        Reader::ParseInt(_) | Reader::ParseLong(_) => "decimal",
        Reader::GetInt(_) | Reader::GetLong(_) => "number",
        Reader::Double => "fraction",
        Reader::Port => "port",
        Reader::Hours => "hours",
        Reader::StrictBool | Reader::Bool | Reader::Unless("false") => "true, false",
        Reader::IfYes | Reader::Unless(_) => "yes, no",
        Reader::Text => "text",
    };
    let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
    let fate = match key.fate {
        Fate::Used(text) => format!("**used**: {text}"),
        Fate::Guards(text) => {
            format!("**used**: {text}. A value that cannot be read stops the start")
        }
        Fate::Demands(values, text) => {
            format!("**used**: {text}. Refused {}", condition(When::NotIn(values)))
        }
        Fate::Risks(text, when, risk) => {
            format!("**used**: {text}. Warned of {}: {risk}", condition(when))
        }
        Fate::Checked(text) => format!("**checked**: {text}"),
        Fate::Ignored(why) => format!("ignored: {why}"),
        Fate::Warned(when, missing) => format!("**warned** of {}: {missing}", condition(when)),
        Fate::Refused(when, why) => format!("**refused** {}: {why}", condition(when)),
    };
    format!("| `{}` | {values} | {default} | {} |", key.name, fate.replace('|', "\\|"))
}

fn condition(when: When) -> String {
    match when {
        When::Always => "if set".into(),
        When::On => "if on".into(),
        When::Off => "if off".into(),
        When::Changed => "unless it is the default".into(),
        When::NotIn(values) => {
            let quoted: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("unless it is {}", quoted.join(", "))
        }
    }
}
