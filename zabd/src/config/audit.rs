//! `audit.enable` and what belongs to it: where the lines of the audit log go.

use std::path::PathBuf;

use super::error::Invalid;
use super::system::SystemProperties;
use super::tls::blame;

/// Where the lines of the audit log go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditConfig {
    /// A file of their own; otherwise they are in the log, under the target `audit`.
    pub file: Option<AuditFile>,
    /// Only what was refused is written.
    pub failures_only: bool,
}

/// A file for the audit log, that is exchanged for a new one when it is full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditFile {
    /// Its path. The ones before have `.1` to `.<kept>` after it.
    pub path: PathBuf,
    /// Bytes at which it is full.
    pub len_max_bytes: u64,
    /// How many of those before are kept.
    pub kept: u32,
}

/// The classes that ZooKeeper has for it: 3.6 and 3.7, 3.8 and later.
const CLASSES: [&str; 2] =
    ["org.apache.zookeeper.audit.Log4jAuditLogger", "org.apache.zookeeper.audit.Slf4jAuditLogger"];
const THRESHOLD: &str = "auditlog.threshold";
const LEN: &str = "auditlog.maxfilesize";

impl AuditConfig {
    /// Reads the keys; `None` if there is no audit log.
    ///
    /// # Errors
    /// It is to go where it cannot.
    pub(crate) fn read(properties: &SystemProperties) -> Result<Option<Self>, Invalid> {
        if !properties.bool("audit.enable", false) {
            return Ok(None);
        }
        let class = properties.text("audit.impl.class").unwrap_or(CLASSES[1]);
        if !CLASSES.contains(&class) {
            let reason = "there is no Java virtual machine to load a class: the audit log goes to the \
                          log, or to auditlog.file";
            return Err(blame(properties, "audit.impl.class", Invalid::new(reason)));
        }
        let threshold = properties.text(THRESHOLD).unwrap_or("INFO").to_ascii_uppercase();
        let failures_only = match threshold.as_str() {
            "ALL" | "TRACE" | "DEBUG" | "INFO" => false,
            "WARN" | "ERROR" => true,
            _ => {
                let invalid = Invalid::new(format!("{threshold:?} is not a level"));
                let accepted = "INFO, or ERROR for what was refused only";
                return Err(blame(properties, THRESHOLD, invalid.accepted(accepted)));
            }
        };
        Ok(Some(Self { file: AuditFile::read(properties)?, failures_only }))
    }
}

impl AuditFile {
    fn read(properties: &SystemProperties) -> Result<Option<Self>, Invalid> {
        let Some(name) = properties.text("auditlog.file").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let len = properties.text(LEN).unwrap_or("10MB");
        let Some(len_max_bytes) = bytes(len).filter(|len| *len > 0) else {
            let invalid =
                Invalid::new(format!("{len:?} is not a size")).accepted("10MB, 100KB, 1GB");
            return Err(blame(properties, LEN, invalid));
        };
        Ok(Some(Self {
            // An absolute path stays what it is.
            path: PathBuf::from(properties.text("log.dir").unwrap_or(".")).join(name),
            len_max_bytes,
            kept: properties.number("auditlog.maxbackupindex", 10),
        }))
    }
}

/// A size as log4j and logback read it: a number of bytes, or of the unit after it.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Origin;

    fn read(values: &[(&str, &str)]) -> Result<Option<AuditConfig>, String> {
        let mut properties = SystemProperties::default();
        for (key, value) in values {
            properties.set(Origin::CommandLine, format!("zookeeper.{key}"), *value);
        }
        AuditConfig::read(&properties).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn where_it_goes() {
        let on = ("audit.enable", "TRUE");
        assert_eq!(read(&[("auditlog.file", "a"), ("audit.impl.class", "x")]), Ok(None));
        let to_log = AuditConfig { file: None, failures_only: false };
        assert_eq!(read(&[on, ("audit.impl.class", CLASSES[0])]), Ok(Some(to_log)));
        let read_file = |values: &[(&str, &str)]| {
            let all = [&[on, ("auditlog.file", "audit.log")], values].concat();
            read(&all).map(|audit| audit.and_then(|audit| audit.file).expect("a file"))
        };
        let file = read_file(&[("log.dir", "/var/log")]).expect("good");
        let wanted = (Path::new("/var/log/audit.log"), 10 << 20, 10);
        assert_eq!((&*file.path, file.len_max_bytes, file.kept), wanted);
        let values = [("auditlog.maxfilesize", "3 kb"), ("auditlog.maxbackupindex", "0")];
        let file = read_file(&values).expect("good");
        assert_eq!((file.len_max_bytes, file.kept), (3 << 10, 0));
    }

    #[test]
    fn what_it_cannot_do() {
        let on = ("audit.enable", "true");
        for (key, value, why) in [
            (
                "audit.impl.class",
                "com.acme.Audit",
                "command line: -Dzookeeper.audit.impl.class: there is",
            ),
            (
                THRESHOLD,
                "LOUD",
                "command line: -Dzookeeper.auditlog.threshold: \"LOUD\" is not a level",
            ),
            (LEN, "ten", "command line: -Dzookeeper.auditlog.maxfilesize: \"ten\" is not a size"),
            (LEN, "0", "command line: -Dzookeeper.auditlog.maxfilesize: \"0\" is not a size"),
            (LEN, "99999999999GB", "is not a size"),
        ] {
            let error = read(&[on, ("auditlog.file", "a"), (key, value)]).expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(
            read(&[on, (THRESHOLD, "error")]),
            Ok(Some(AuditConfig { file: None, failures_only: true }))
        );
    }
}
