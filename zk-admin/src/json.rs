//! JSON as ZooKeeper's AdminServer writes it: two blanks, ` : `, lists on one line.

use std::fmt::Write;

use serde_json::Value;

/// The text of a value.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0);
    out
}

fn write(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str("{ }"),
        Value::Object(map) => {
            let mut first = true;
            for (key, value) in map {
                out.push_str(if first { "{\n" } else { ",\n" });
                first = false;
                indent(out, depth + 1);
                // Writing to a string cannot fail.
                let _ = write!(out, "{} : ", Value::from(key.as_str()));
                write(out, value, depth + 1);
            }
            out.push('\n');
            indent(out, depth);
            out.push('}');
        }
        Value::Array(list) if list.is_empty() => out.push_str("[ ]"),
        Value::Array(list) => {
            let mut first = true;
            for value in list {
                out.push_str(if first { "[ " } else { ", " });
                first = false;
                write(out, value, depth);
            }
            out.push_str(" ]");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = write!(out, "{value}");
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn it_looks_as_zookeepers_does() {
        let value = json!({
            "a": [1, 2], "b": [{ "c": 0.0 }, { "d": null }], "e": {}, "f": [], "g": { "h": "\"\n" },
        });
        let expected = "{\n  \"a\" : [ 1, 2 ],\n  \"b\" : [ {\n    \"c\" : 0.0\n  }, {\n    \"d\" : \
                        null\n  } ],\n  \"e\" : { },\n  \"f\" : [ ],\n  \"g\" : {\n    \"h\" : \
                        \"\\\"\\n\"\n  }\n}";
        assert_eq!(super::text(&value), expected);
    }
}
