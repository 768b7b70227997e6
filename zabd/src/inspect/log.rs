//! The transaction log, record by record.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use zab_storage::{End, LogReader, Record};
use zk_service::Opcode;
use zk_service::acl::AclList;
use zk_service::txn::{CreateKind, CreateTxn, Payload, Txn};

use super::json::Object;
use super::text::{date, put_buffer, put_string};
use super::{Verdict, verdict_of};

pub(super) fn print(file: &Path, as_json: bool, out: &mut impl Write) -> io::Result<Verdict> {
    let mut reader = match LogReader::open(file) {
        Ok(reader) => reader,
        Err(error) => return verdict_of(error),
    };
    if !as_json {
        writeln!(out, "ZooKeeper Transactional Log File with dbid 0 txnlog format version 2")?;
    }
    let (mut count, mut undecodable) = (0_u64, None);
    let damage = loop {
        match reader.next() {
            Ok(Some(record)) => {
                let line = if as_json { json(&record) } else { text(&record) };
                if let Err(reason) = &line {
                    let at = record.offset;
                    undecodable.get_or_insert_with(|| {
                        format!("{}: the record at byte {at} is {reason}", file.display())
                    });
                }
                let line = line.unwrap_or_else(|reason| unknown(&record, &reason, as_json));
                writeln!(out, "{line}")?;
                count += 1;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let verdict = match (damage, undecodable, reader.end()) {
        (Some(error), ..) => verdict_of(error)?,
        (None, Some(what), _) => Verdict::Damaged(what),
        (None, None, Some(End::Torn)) => Verdict::Torn { offset: reader.offset() },
        (None, None, _) => Verdict::Whole,
    };
    let end = match (&verdict, reader.end()) {
        (Verdict::Damaged(_), _) => "damaged",
        (Verdict::Torn { .. }, _) => "torn",
        (Verdict::Whole, Some(End::Padding)) => "padding",
        (Verdict::Whole, _) => "file",
    };
    if as_json {
        let records = i64::try_from(count).unwrap_or(i64::MAX);
        let offset = i64::try_from(reader.offset()).unwrap_or(i64::MAX);
        let object = Object::new().text("end", end).number("records", records);
        writeln!(out, "{}", object.number("offset", offset).end())?;
    } else {
        match verdict {
            Verdict::Whole => writeln!(out, "EOF reached after {count} txns.")?,
            _ => writeln!(out, "{end} at byte {} after {count} txns.", reader.offset())?,
        }
    }
    Ok(verdict)
}

/// The line of ZooKeeper's `LogFormatter` and `TxnLogToolkit`.
fn text(record: &Record<'_>) -> Result<String, String> {
    let payload = decode(record)?;
    let header = &payload.header;
    let mut line = format!(
        "{} session {:#x} cxid {:#x} zxid {:#x} {} ",
        date(header.time),
        header.client_id,
        header.cxid,
        header.zxid.raw(),
        name(header.kind)
    );
    put_txn(&mut line, &payload.txn);
    if let Some(digest) = payload.digest {
        let _ = write!(line, " digest {},{:#x}", digest.version, digest.digest);
    }
    Ok(line.trim_end().to_owned())
}

fn json(record: &Record<'_>) -> Result<String, String> {
    let payload = decode(record)?;
    let header = &payload.header;
    let object = Object::new()
        .number("offset", i64::try_from(record.offset).unwrap_or(i64::MAX))
        .hex("zxid", header.zxid.raw())
        .hex("session", header.client_id)
        .number("cxid", header.cxid.into())
        .number("time", header.time)
        .text("type", name(header.kind));
    let mut object = txn_json(object, &payload.txn);
    if let Some(digest) = payload.digest {
        object = object
            .number("digestVersion", digest.version.into())
            .hex("digest", digest.digest.cast_signed());
    }
    Ok(object.end())
}

fn decode<'a>(record: &Record<'a>) -> Result<Payload<'a>, String> {
    Payload::decode(record.txn).map_err(|error| format!("no transaction of ZooKeeper's: {error}"))
}

/// A record whose body is not ZooKeeper's; its checksum is good.
fn unknown(record: &Record<'_>, reason: &str, as_json: bool) -> String {
    if as_json {
        let object = Object::new()
            .number("offset", i64::try_from(record.offset).unwrap_or(i64::MAX))
            .hex("zxid", record.zxid.raw());
        return object.text("error", reason).data("bytes", Some(record.txn)).end();
    }
    let mut line = format!("zxid {:#x} {reason} ", record.zxid.raw());
    put_buffer(&mut line, Some(record.txn));
    line
}

fn put_txn(out: &mut String, txn: &Txn<'_>) {
    match txn {
        Txn::Create(create) => put_create(out, create),
        Txn::Delete { path, .. } => put_string(out, path),
        Txn::SetData { path, data, version, .. } => {
            put_string(out, path);
            out.push(',');
            put_buffer(out, *data);
            let _ = write!(out, ",{version}");
        }
        Txn::SetAcl { path, acl, version } => {
            put_string(out, path);
            out.push(',');
            put_acl(out, *acl);
            let _ = write!(out, ",{version}");
        }
        Txn::Check { path, version } => {
            put_string(out, path);
            let _ = write!(out, ",{version}");
        }
        Txn::Multi(parts) => {
            for (i, part) in parts.iter().enumerate() {
                out.push_str(if i > 0 { "; " } else { "" });
                let _ = write!(out, "{} ", part.kind().name());
                put_txn(out, &part);
            }
        }
        Txn::CreateSession { timeout_ms } => {
            let _ = write!(out, "{timeout_ms}");
        }
        Txn::CloseSession(None) => {}
        Txn::CloseSession(Some(paths)) => {
            out.push_str("v{");
            for (i, path) in paths.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                put_string(out, &path);
            }
            out.push('}');
        }
        Txn::Error(code) => {
            let _ = write!(out, "{}", code.0);
        }
    }
}

fn put_create(out: &mut String, create: &CreateTxn<'_>) {
    put_string(out, &create.path);
    out.push(',');
    put_buffer(out, create.data);
    out.push(',');
    put_acl(out, create.acl);
    let flag = |ephemeral| if ephemeral { "T" } else { "F" };
    let cversion = create.parent_cversion;
    let _ = match create.kind {
        CreateKind::CreateV0 { ephemeral } => write!(out, ",{}", flag(ephemeral)),
        CreateKind::Create { ephemeral } | CreateKind::Create2 { ephemeral } => {
            write!(out, ",{},{cversion}", flag(ephemeral))
        }
        CreateKind::Container => write!(out, ",{cversion}"),
        CreateKind::Ttl { ttl_ms } => write!(out, ",{cversion},{ttl_ms}"),
    };
}

fn put_acl(out: &mut String, acl: AclList<'_>) {
    out.push_str("v{");
    for (i, entry) in acl.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        let _ = write!(out, "s{{{},s{{", entry.perms);
        put_string(out, &entry.scheme.unwrap_or_default());
        out.push(',');
        put_string(out, &entry.id.unwrap_or_default());
        out.push_str("}}");
    }
    out.push('}');
}

fn txn_json(object: Object, txn: &Txn<'_>) -> Object {
    match txn {
        Txn::Create(create) => {
            let object = object
                .text("path", &create.path)
                .data("data", create.data)
                .objects("acl", acl_json(create.acl));
            match create.kind {
                CreateKind::CreateV0 { ephemeral } => object.bool("ephemeral", ephemeral),
                CreateKind::Create { ephemeral } | CreateKind::Create2 { ephemeral } => object
                    .bool("ephemeral", ephemeral)
                    .number("parentCVersion", create.parent_cversion.into()),
                CreateKind::Container => {
                    object.number("parentCVersion", create.parent_cversion.into())
                }
                CreateKind::Ttl { ttl_ms } => object
                    .number("parentCVersion", create.parent_cversion.into())
                    .number("ttl", ttl_ms),
            }
        }
        Txn::Delete { path, .. } => object.text("path", path),
        Txn::SetData { path, data, version, .. } => {
            object.text("path", path).data("data", *data).number("version", (*version).into())
        }
        Txn::SetAcl { path, acl, version } => object
            .text("path", path)
            .objects("acl", acl_json(*acl))
            .number("version", (*version).into()),
        Txn::Check { path, version } => {
            object.text("path", path).number("version", (*version).into())
        }
        Txn::Multi(parts) => object.objects(
            "parts",
            parts
                .iter()
                .map(|part| txn_json(Object::new().text("type", part.kind().name()), &part)),
        ),
        Txn::CreateSession { timeout_ms } => object.number("timeout", (*timeout_ms).into()),
        Txn::CloseSession(None) => object,
        Txn::CloseSession(Some(paths)) => object.texts("paths", paths.iter()),
        Txn::Error(code) => object.number("code", code.0.into()).text("error", &code.to_string()),
    }
}

fn acl_json(acl: AclList<'_>) -> impl Iterator<Item = Object> {
    acl.iter().map(|entry| {
        Object::new()
            .number("perms", entry.perms.into())
            .text("scheme", &entry.scheme.unwrap_or_default())
            .text("id", &entry.id.unwrap_or_default())
    })
}

/// ZooKeeper's name of a transaction type.
fn name(kind: i32) -> &'static str {
    Opcode::from_wire(kind).map_or("unknown", Opcode::name)
}
