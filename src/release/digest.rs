//! Digests over canonical JSON: what a decision binds to, and how two plans are told apart.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// `sha256:<hex>` over the canonical form of `value`: keys sorted by bytes at every depth, no white space, numbers as `serde_json`
/// writes them. The order in which keys were inserted does not matter.
pub fn sha256_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    let mut out = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The digest of anything that serialises to JSON.
///
/// # Errors
/// When `value` has no JSON form (a map whose keys are not strings, a path that is not UTF-8); none of this room's types does.
pub fn sha256_of<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    Ok(sha256_json(&serde_json::to_value(value)?))
}

/// [`sha256_of`] for this room's own types, which hold only strings, numbers, lists and string-keyed maps.
pub(crate) fn own_digest<T: Serialize>(value: &T) -> String {
    sha256_of(value).expect("invariant: this room's types hold nothing that JSON cannot say")
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            // Sorted here and not by trust in the map: a dependency may switch on serde_json's `preserve_order`.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|left, right| left.0.cmp(right.0));
            out.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(item, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn known_digest() {
        // printf '{"a":[1,2.5],"b":"x"}' | sha256sum
        let digest = sha256_json(&json!({"b": "x", "a": [1, 2.5]}));
        assert_eq!(digest, "sha256:5cefae54a95b31dc660d6cbbb2198f0811fc70ee37b1cc85b1989870cd293ffb");
    }

    proptest! {
        #[test]
        fn key_order_does_not_matter(keys in proptest::collection::hash_map("[a-z\"\\\\é]{1,6}", any::<i64>(), 1..12)) {
            let forward: serde_json::Map<_, _> = keys.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            let mut reversed: Vec<_> = keys.iter().collect();
            reversed.reverse();
            let backward: serde_json::Map<_, _> = reversed.into_iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            prop_assert_eq!(sha256_json(&Value::Object(forward)), sha256_json(&Value::Object(backward)));
        }

        #[test]
        fn another_value_is_another_digest(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(sha256_json(&json!({"k": a})) == sha256_json(&json!({"k": b})), a == b);
        }

        #[test]
        fn canonical_text_is_the_same_json(value in "[ -~]{0,20}") {
            let doc = json!({"k": [value, null, true, {"z": 1, "a": 0.1}]});
            let mut text = String::new();
            write_canonical(&doc, &mut text);
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("json"), doc);
        }
    }
}
