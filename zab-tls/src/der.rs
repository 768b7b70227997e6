//! DER, as far as stores and certificates need it: tags, lengths, and what is inside.

use std::fmt;

/// Bytes that are not the DER that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadDer;

impl fmt::Display for BadDer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the file is damaged, or not in the encoding DER")
    }
}

impl std::error::Error for BadDer {}

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;

/// The tag of an explicit context element, `[n]` with something inside.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// A value and its tag, with the bytes of both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) value: &'a [u8],
    /// With tag and length.
    pub(crate) whole: &'a [u8],
}

/// Elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, BadDer> {
        let (&tag, rest) = self.0.split_first().ok_or(BadDer)?;
        // Tags of more than one byte do not occur where we look.
        if tag & 0x1f == 0x1f {
            return Err(BadDer);
        }
        let (&first, mut rest) = rest.split_first().ok_or(BadDer)?;
        let len = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            // Zero is an indefinite length, which DER does not have.
            if !(1..=4).contains(&count) {
                return Err(BadDer);
            }
            let (digits, behind) = rest.split_at_checked(count).ok_or(BadDer)?;
            rest = behind;
            digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit))
        };
        let (value, behind) = rest.split_at_checked(len).ok_or(BadDer)?;
        let whole = &self.0[..self.0.len() - behind.len()];
        self.0 = behind;
        Ok(Element { tag, value, whole })
    }

    /// The value of the next element, which has this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Result<&'a [u8], BadDer> {
        if self.peek() != Some(tag) {
            return Err(BadDer);
        }
        Ok(self.any()?.value)
    }

    /// The value of the next element if it has this tag.
    pub(crate) fn maybe(&mut self, tag: u8) -> Result<Option<&'a [u8]>, BadDer> {
        if self.peek() == Some(tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    /// What is inside the next element, which has this tag.
    pub(crate) fn open(&mut self, tag: u8) -> Result<Self, BadDer> {
        self.take(tag).map(Self)
    }

    pub(crate) fn sequence(&mut self) -> Result<Self, BadDer> {
        self.open(SEQUENCE)
    }

    /// A number that is not negative and fits.
    pub(crate) fn number(&mut self) -> Result<u32, BadDer> {
        let digits = self.take(INTEGER)?;
        let digits = match digits {
            [0, rest @ ..] => rest,
            [first, ..] if *first < 0x80 => digits,
            _ => return Err(BadDer),
        };
        if digits.len() > 4 {
            return Err(BadDer);
        }
        Ok(digits.iter().fold(0, |n, digit| n << 8 | u32::from(*digit)))
    }

    /// An algorithm and its parameters.
    pub(crate) fn algorithm(&mut self) -> Result<(&'a [u8], Self), BadDer> {
        let mut inside = self.sequence()?;
        Ok((inside.take(OID)?, inside))
    }
}

/// An element of this tag with these parts inside, which must not be long.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let mut bytes = vec![tag];
    match u8::try_from(value.len()) {
        Ok(len @ ..0x80) => bytes.push(len),
        Ok(len) => bytes.extend([0x81, len]),
        Err(_) => {
            bytes.push(0x82);
            bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend(value);
    bytes
}

/// An object identifier with dots.
pub(crate) fn dotted(oid: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in oid {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.extend([first, arc - first * 40]);
            } else {
                arcs.push(arc);
            }
            arc = 0;
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let long = [&[OCTET_STRING, 0x81, 200][..], &[7; 200]].concat();
        assert_eq!(Der::new(&long).take(OCTET_STRING).unwrap(), [7; 200]);
        for bad in [
            &[][..],
            &[OCTET_STRING],
            &[OCTET_STRING, 2, 1],
            // Indefinite, five bytes of length, a tag of several bytes.
            &[SEQUENCE, 0x80, 0, 0],
            &[OCTET_STRING, 0x85, 0, 0, 0, 0, 0],
            &[OCTET_STRING, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x1f, 0x81, 0],
        ] {
            assert_eq!(Der::new(bad).any(), Err(BadDer), "{bad:?}");
        }
    }

    #[test]
    fn numbers() {
        let number = |bytes: &[u8]| Der::new(bytes).number();
        assert_eq!(number(&[INTEGER, 2, 0x27, 0x10]), Ok(10_000));
        assert_eq!(number(&[INTEGER, 5, 0, 0xff, 0xff, 0xff, 0xff]), Ok(u32::MAX));
        assert_eq!(number(&[INTEGER, 5, 1, 0, 0, 0, 0]), Err(BadDer));
        assert_eq!(number(&[INTEGER, 1, 0x80]), Err(BadDer), "negative");
        assert_eq!(number(&[INTEGER, 0]), Err(BadDer));
    }

    #[test]
    fn identifiers() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]), "1.2.840.113549.1.9.1");
        assert_eq!(dotted(&[0x55, 4, 3]), "2.5.4.3");
    }
}
