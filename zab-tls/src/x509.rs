//! Certificates, as far as they are looked at here: names, dates and the public key. Signatures and chains
//! are the business of `webpki`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::civil::{self, DateTime};

use crate::der::{
    BIT_STRING, BOOLEAN, Der, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, SET,
    UTC_TIME, context, dotted,
};
use crate::error::StoreError;

/// A parsed certificate.
#[derive(Clone, Debug)]
pub struct Certificate<'a> {
    /// Whether its version, 1 or 2, has no extensions.
    pub(crate) is_old: bool,
    /// What is signed, with which algorithm (what is inside its `AlgorithmIdentifier`), and the signature.
    pub(crate) signed: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    /// The encoded name of who issued it.
    pub(crate) issuer: &'a [u8],
    /// The encoded name of whom it is for.
    pub(crate) subject: &'a [u8],
    /// The encoded `SubjectPublicKeyInfo`.
    pub(crate) public_key: &'a [u8],
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// Names and addresses of the extension `subjectAltName`.
    pub(crate) dns_names: Vec<&'a str>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it may issue others: it says so, or is of a version that could not.
    pub(crate) is_ca: bool,
    /// Purposes of the extension `extendedKeyUsage`, if it is there.
    pub(crate) purposes: Option<Vec<&'a [u8]>>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate of version 1, 2 or 3.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn parse(der: &'a [u8]) -> Result<Self, StoreError> {
        let mut outer = Der::new(der).sequence()?;
        let signed = outer.any()?;
        let algorithm = outer.take(SEQUENCE)?;
        // Whole bytes, as of all algorithms.
        let Some((0, signature)) = outer.take(BIT_STRING)?.split_first() else {
            return Err(StoreError::Damaged);
        };
        if signed.tag != SEQUENCE {
            return Err(StoreError::Damaged);
        }
        let mut inside = Der::new(signed.value);
        let version = match inside.maybe(context(0))? {
            Some(version) => Der::new(version).number()?,
            None => 0,
        };
        inside.take(INTEGER)?;
        if inside.take(SEQUENCE)? != algorithm {
            return Err(StoreError::Damaged);
        }
        let issuer = inside.any()?;
        let mut validity = inside.sequence()?;
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let subject = inside.any()?;
        let public_key = inside.any()?;
        if [issuer.tag, subject.tag, public_key.tag] != [SEQUENCE; 3] {
            return Err(StoreError::Damaged);
        }
        let mut certificate = Self {
            is_old: version < VERSION_3,
            signed: signed.whole,
            algorithm,
            signature,
            issuer: issuer.whole,
            subject: subject.whole,
            public_key: public_key.whole,
            not_before,
            not_after,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            is_ca: version < VERSION_3,
            purposes: None,
        };
        while !inside.is_empty() {
            let element = inside.any()?;
            if element.tag == context(3) {
                certificate.extensions(Der::new(element.value).sequence()?)?;
            }
        }
        Ok(certificate)
    }

    fn extensions(&mut self, mut extensions: Der<'a>) -> Result<(), StoreError> {
        while !extensions.is_empty() {
            let mut extension = extensions.sequence()?;
            let kind = extension.take(OID)?;
            extension.maybe(BOOLEAN)?;
            let mut value = Der::new(extension.take(OCTET_STRING)?);
            match kind {
                BASIC_CONSTRAINTS => {
                    let ca = value.sequence()?.maybe(BOOLEAN)?;
                    self.is_ca = ca.is_some_and(|ca| ca != [0]);
                }
                SUBJECT_ALT_NAME => self.names(value.sequence()?)?,
                EXTENDED_KEY_USAGE => {
                    let (mut purposes, mut list) = (Vec::new(), value.sequence()?);
                    while !list.is_empty() {
                        purposes.push(list.take(OID)?);
                    }
                    self.purposes = Some(purposes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn names(&mut self, mut names: Der<'a>) -> Result<(), StoreError> {
        while !names.is_empty() {
            let name = names.any()?;
            match (name.tag, name.value) {
                (DNS_NAME, text) => self.dns_names.extend(std::str::from_utf8(text)),
                (IP_ADDRESS, bytes) => {
                    let v4 = <[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).map(IpAddr::from);
                    let v6 = <[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).map(IpAddr::from);
                    self.addresses.extend(v4.or(v6));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether it is valid at a time, in seconds since 1970.
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Until when it is valid, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether it may be used for a purpose: [`SERVER_AUTH`] or [`CLIENT_AUTH`].
    #[must_use]
    pub fn allows(&self, purpose: &[u8]) -> bool {
        let any = |list: &Vec<&[u8]>| list.iter().any(|p| *p == purpose || *p == ANY_PURPOSE);
        self.purposes.as_ref().is_none_or(any)
    }

    /// The most specific common name of the subject, if it is text.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let mut found = None;
        for part in relative_names(self.subject).ok()? {
            for (kind, tag, value, _) in part {
                if kind == COMMON_NAME && is_text(tag) {
                    found = Some(String::from_utf8_lossy(value).into_owned());
                }
            }
        }
        found
    }

    /// The subject's distinguished name as the JDK writes it: RFC 2253, the most specific part first.
    #[must_use]
    pub fn subject_name(&self) -> String {
        let Ok(mut parts) = relative_names(self.subject) else { return String::new() };
        parts.reverse();
        let parts = parts.into_iter().map(|part| {
            let values = part.into_iter().map(|(kind, tag, value, whole)| {
                let keyword = KEYWORDS.iter().find(|(oid, _)| *oid == kind).map(|(_, name)| *name);
                match keyword {
                    Some(keyword) if is_text(tag) => format!("{keyword}={}", escaped(value)),
                    Some(keyword) => format!("{keyword}=#{}", hex(whole)),
                    None => format!("{}=#{}", dotted(kind), hex(whole)),
                }
            });
            values.collect::<Vec<_>>().join("+")
        });
        parts.collect::<Vec<_>>().join(",")
    }
}

/// Kind, tag, value and whole encoding of each value of a part of a name.
type RelativeName<'a> = Vec<(&'a [u8], u8, &'a [u8], &'a [u8])>;

fn relative_names(name: &[u8]) -> Result<Vec<RelativeName<'_>>, StoreError> {
    let (mut parts, mut name) = (Vec::new(), Der::new(name).sequence()?);
    while !name.is_empty() {
        let (mut part, mut set) = (Vec::new(), name.open(SET)?);
        while !set.is_empty() {
            let mut pair = set.sequence()?;
            let kind = pair.take(OID)?;
            let value = pair.any()?;
            part.push((kind, value.tag, value.value, value.whole));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// UTF8, Printable, T61, IA5, General and BMP strings: their bytes are read as UTF-8, as the JDK does.
fn is_text(tag: u8) -> bool {
    matches!(tag, 0x0c | 0x13 | 0x14 | 0x16 | 0x1b | 0x1e)
}

fn escaped(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let is_blank = |c: char| c == ' ' || c == '\r';
    let first = text.find(|c| !is_blank(c)).unwrap_or(text.len());
    let last = text.rfind(|c| !is_blank(c)).unwrap_or(0);
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        match c {
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => out.extend(['\\', c]),
            '\0' => out.push_str("\\00"),
            _ if is_blank(c) && (at < first || at > last) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970 of a `UTCTime` or `GeneralizedTime`, which end in `Z`.
fn time(source: &mut Der<'_>) -> Result<i64, StoreError> {
    let element = source.any()?;
    let digits = element.value.strip_suffix(b"Z").ok_or(StoreError::Damaged)?;
    let (year_len, century) = match (element.tag, digits.len()) {
        (UTC_TIME, 12) => (2, true),
        (GENERALIZED_TIME, 14) => (4, false),
        _ => return Err(StoreError::Damaged),
    };
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_i16, |n, digit| match digit {
            b'0'..=b'9' => Ok(n * 10 + i16::from(digit - b'0')),
            _ => Err(StoreError::Damaged),
        })
    };
    let (year, rest) = digits.split_at(year_len);
    let mut year = number(year)?;
    if century {
        year += if year < 50 { 2000 } else { 1900 };
    }
    // Two digits each; -1 is out of every range.
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8]
        .map(|at| number(&rest[at..at + 2]).ok().and_then(|n| i8::try_from(n).ok()).unwrap_or(-1));
    // A leap second counts as the one before.
    let second = if second == 60 { 59 } else { second };
    let date = DateTime::new(year, month, day, hour, minute, second, 0);
    let epoch = civil::date(1970, 1, 1).at(0, 0, 0, 0);
    date.map(|date| date.duration_since(epoch).as_secs()).map_err(|_| StoreError::Damaged)
}

/// The purpose of a server's certificate.
pub const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// The purpose of a client's certificate.
pub const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const ANY_PURPOSE: &[u8] = &[0x55, 0x1d, 37, 0];
/// As it is encoded.
const VERSION_3: u32 = 2;
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The attributes that RFC 2253 has words for.
const KEYWORDS: [(&[u8], &str); 9] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Ok(0)),
            (UTC_TIME, "000229120000Z", Ok(951_825_600)),
            (UTC_TIME, "491231235959Z", Ok(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Ok(-631_152_000)),
            (GENERALIZED_TIME, "20380119031408Z", Ok(1 << 31)),
            (GENERALIZED_TIME, "99991231235959Z", Ok(253_402_300_799)),
            (GENERALIZED_TIME, "20161231235960Z", Ok(1_483_228_799)),
            (UTC_TIME, "701301000000Z", Err(StoreError::Damaged)),
            (UTC_TIME, "700230000000Z", Err(StoreError::Damaged)),
            (UTC_TIME, "70010100000Z", Err(StoreError::Damaged)),
            (UTC_TIME, "7001010000+0Z", Err(StoreError::Damaged)),
            (UTC_TIME, "700101000000+", Err(StoreError::Damaged)),
        ] {
            let bytes = [&[tag, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
            assert_eq!(time(&mut Der::new(&bytes)), expected, "{text}");
        }
    }

    #[test]
    fn what_names_escape() {
        assert_eq!(escaped(b"Acme, Inc"), "Acme\\, Inc");
        assert_eq!(escaped(b"  a b\r "), "\\ \\ a b\\\r\\ ");
        assert_eq!(escaped(b"\0#"), "\\00\\#");
        assert_eq!(escaped(b" "), "\\ ");
    }

    /// The vector of the specification: made with OpenSSL, written by `X500Principal.getName`.
    #[test]
    fn a_subject_as_the_jdk_writes_it() {
        let der = include_bytes!("../tests/data/acme.der");
        let certificate = Certificate::parse(der).unwrap();
        assert_eq!(
            certificate.subject_name(),
            "CN=zk1.example.com,OU=Ops Team,O=Acme\\, Inc,L=Berlin,ST=BE,C=DE,\
             1.2.840.113549.1.9.1=#16056140622e63"
        );
        assert_eq!(certificate.common_name().as_deref(), Some("zk1.example.com"));
    }
}
