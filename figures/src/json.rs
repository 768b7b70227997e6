//! Writing JSON: no more than results need.

use std::fmt::{self, Display, Write};

/// A JSON value.
#[derive(Clone, PartialEq, Debug)]
pub enum Json {
    /// Absent.
    Null,
    /// A number; one that is not finite is written as null.
    Number(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object, in the order given.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// An object.
    #[must_use]
    pub fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, depth: usize| write!(f, "\n{:1$}", "", 2 * depth);
        match self {
            Self::Number(number) if number.is_finite() => {
                write!(f, "{}", (number * 1e3).round() / 1e3)
            }
            Self::Null | Self::Number(_) => f.write_str("null"),
            Self::Text(text) => quote(f, text),
            Self::List(values) => {
                f.write_char('[')?;
                for (i, value) in values.iter().enumerate() {
                    f.write_str(if i > 0 { "," } else { "" })?;
                    line(f, depth + 1)?;
                    value.write(f, depth + 1)?;
                }
                line(f, depth)?;
                f.write_char(']')
            }
            Self::Object(fields) => {
                f.write_char('{')?;
                for (i, (key, value)) in fields.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    quote(f, key)?;
                    f.write_str(": ")?;
                    value.write(f, depth + 1)?;
                }
                f.write_char('}')
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for char in text.chars() {
        match char {
            '"' | '\\' => write!(f, "\\{char}")?,
            '\n' => f.write_str("\\n")?,
            char if char < ' ' => write!(f, "\\u{:04x}", u32::from(char))?,
            char => f.write_char(char)?,
        }
    }
    f.write_char('"')
}

impl Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written() {
        let value = Json::object([
            ("a\"b", Json::List(vec![1.5.into(), f64::NAN.into()])),
            ("text", "x\ny".into()),
        ]);
        let expected = "{\"a\\\"b\": [\n    1.5,\n    null\n  ], \"text\": \"x\\ny\"}";
        assert_eq!(value.to_string(), expected);
    }
}
