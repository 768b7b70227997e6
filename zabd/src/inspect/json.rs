//! One JSON object on one line.

use std::fmt::Write as _;

/// An object under construction.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{key}\":");
    }

    /// A number of at most 53 bits, which every reader takes.
    pub(super) fn number(mut self, key: &str, value: i64) -> Self {
        self.key(key);
        let _ = write!(self.0, "{value}");
        self
    }

    /// A number that may need all 64 bits: `"0x..."`.
    pub(super) fn hex(mut self, key: &str, value: i64) -> Self {
        self.key(key);
        let _ = write!(self.0, "\"{value:#x}\"");
        self
    }

    pub(super) fn bool(mut self, key: &str, value: bool) -> Self {
        self.key(key);
        let _ = write!(self.0, "{value}");
        self
    }

    pub(super) fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        quote(&mut self.0, value);
        self
    }

    /// Bytes as hexadecimal text, or null.
    pub(super) fn data(mut self, key: &str, value: Option<&[u8]>) -> Self {
        self.key(key);
        match value {
            None => self.0.push_str("null"),
            Some(bytes) => {
                self.0.push('"');
                super::text::put_hex(&mut self.0, bytes);
                self.0.push('"');
            }
        }
        self
    }

    pub(super) fn texts<'a>(
        mut self,
        key: &str,
        values: impl Iterator<Item = std::borrow::Cow<'a, str>>,
    ) -> Self {
        self.key(key);
        self.0.push('[');
        for (i, value) in values.enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            quote(&mut self.0, &value);
        }
        self.0.push(']');
        self
    }

    pub(super) fn objects(mut self, key: &str, values: impl Iterator<Item = Self>) -> Self {
        self.key(key);
        let values: Vec<String> = values.map(Self::end).collect();
        let _ = write!(self.0, "[{}]", values.join(","));
        self
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let part = || Object::new().number("n", -1).bool("b", true);
        let object = Object::new()
            .text("path", "/a\"\\\n\u{7f}ü")
            .hex("zxid", 0x1_0000_0002)
            .hex("min", -1)
            .data("data", Some(b"\x00\xff"))
            .data("none", None)
            .texts("paths", ["/x".into(), "/y".into()].into_iter())
            .objects("parts", [part(), part()].into_iter());
        assert_eq!(
            object.end(),
            "{\"path\":\"/a\\\"\\\\\\u000a\\u007fü\",\"zxid\":\"0x100000002\",\
             \"min\":\"0xffffffffffffffff\",\"data\":\"00ff\",\"none\":null,\
             \"paths\":[\"/x\",\"/y\"],\"parts\":[{\"n\":-1,\"b\":true},{\"n\":-1,\"b\":true}]}"
        );
        assert_eq!(Object::new().end(), "{}");
    }
}
