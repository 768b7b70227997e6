//! One JSON object on one line.

use serde_json::{Map, Value};

/// An object under construction; its fields stay in the order in which they are added.
#[derive(Debug)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    pub(super) fn new() -> Self {
        Self(Map::new())
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// A number of at most 53 bits, which every reader takes.
    pub(super) fn number(self, key: &str, value: i64) -> Self {
        self.with(key, value)
    }

    /// A number that may need all 64 bits: `"0x..."`.
    pub(super) fn hex(self, key: &str, value: i64) -> Self {
        self.with(key, format!("{value:#x}"))
    }

    pub(super) fn bool(self, key: &str, value: bool) -> Self {
        self.with(key, value)
    }

    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.with(key, value)
    }

    /// Bytes as hexadecimal text, or null.
    pub(super) fn data(self, key: &str, value: Option<&[u8]>) -> Self {
        let hex = value.map(|bytes| {
            let mut hex = String::new();
            super::text::put_hex(&mut hex, bytes);
            hex
        });
        self.with(key, hex)
    }

    pub(super) fn texts<'a>(
        self,
        key: &str,
        values: impl Iterator<Item = std::borrow::Cow<'a, str>>,
    ) -> Self {
        self.with(key, values.map(Value::from).collect::<Value>())
    }

    pub(super) fn objects(self, key: &str, values: impl Iterator<Item = Self>) -> Self {
        self.with(key, values.map(|object| Value::Object(object.0)).collect::<Value>())
    }

    pub(super) fn end(self) -> String {
        Value::Object(self.0).to_string()
    }
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
            "{\"path\":\"/a\\\"\\\\\\n\u{7f}ü\",\"zxid\":\"0x100000002\",\
             \"min\":\"0xffffffffffffffff\",\"data\":\"00ff\",\"none\":null,\
             \"paths\":[\"/x\",\"/y\"],\"parts\":[{\"n\":-1,\"b\":true},{\"n\":-1,\"b\":true}]}"
        );
        assert_eq!(Object::new().end(), "{}");
    }
}
