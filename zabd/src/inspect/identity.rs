//! The id of the ensemble that a data directory belongs to.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use zab_storage::parse_identity;

use super::Verdict;
use super::json::Object;

pub(super) fn print(file: &Path, as_json: bool, out: &mut impl Write) -> io::Result<Verdict> {
    let name = file.display();
    let bytes = fs::read(file)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {name}: {error}")))?;
    let Some(identity) = parse_identity(&bytes) else {
        return Ok(Verdict::Damaged(format!("{name} is no line with an id and its checksum")));
    };
    let id = identity.id.to_string();
    if as_json {
        let object = Object::new().text("ensemble", &id).bool("confirmed", identity.confirmed);
        writeln!(out, "{}", object.end())?;
    } else {
        let state = if identity.confirmed { "confirmed" } else { "not stored by a quorum yet" };
        writeln!(out, "ensemble {id} ({state})")?;
    }
    Ok(Verdict::Whole)
}
