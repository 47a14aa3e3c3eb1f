//! JSON as `serde_json` writes it, letter for letter, for what is long: most texts have nothing to escape, and then they are copied as
//! they are instead of being looked at byte by byte.

use serde_json::{Result, Value};

/// Adds a value.
pub(super) fn value(to: &mut Vec<u8>, value: &Value) -> Result<()> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => serde_json::to_writer(to, value),
        Value::String(text) => string(to, text),
        Value::Array(items) => list(to, items),
        Value::Object(keys) => {
            to.push(b'{');
            for (n, (key, value)) in keys.iter().enumerate() {
                if n > 0 {
                    to.push(b',');
                }
                string(to, key)?;
                to.push(b':');
                self::value(to, value)?;
            }
            to.push(b'}');
            Ok(())
        }
    }
}

/// Adds a list.
pub(super) fn list(to: &mut Vec<u8>, items: &[Value]) -> Result<()> {
    to.push(b'[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            to.push(b',');
        }
        value(to, item)?;
    }
    to.push(b']');
    Ok(())
}

/// Adds a text.
pub(super) fn string(to: &mut Vec<u8>, text: &str) -> Result<()> {
    if !is_plain(text.as_bytes()) {
        return serde_json::to_writer(to, text);
    }
    to.reserve(text.len() + 2);
    to.push(b'"');
    to.extend_from_slice(text.as_bytes());
    to.push(b'"');
    Ok(())
}

/// Whether nothing is to be escaped. Without a way out in the middle of a chunk, so that the compiler looks at many bytes at once.
fn is_plain(bytes: &[u8]) -> bool {
    let odd = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let none = |bytes: &[u8]| !bytes.iter().fold(false, |found, byte| found | odd(byte));
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| none(chunk)) && none(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|n| json!(n)),
            any::<String>().prop_map(Value::from),
            "[a-z\"\\\\\n\u{7f}é]{0,200}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_serde_writes(wanted in any_json()) {
            let mut text = Vec::new();
            value(&mut text, &wanted).unwrap();
            prop_assert_eq!(String::from_utf8(text).unwrap(), wanted.to_string());
        }
    }

    #[test]
    fn every_byte_is_escaped_where_serde_does() {
        for code in 0..=255_u8 {
            for before in [0, 63, 64, 130] {
                let text = format!("{}{}", "x".repeat(before), char::from(code));
                let mut ours = Vec::new();
                string(&mut ours, &text).unwrap();
                assert_eq!(String::from_utf8(ours).unwrap(), json!(text).to_string());
            }
        }
    }
}
