//! Which HTTP statuses are meant: `200`, `"2xx"`, or a list of those.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A set of statuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statuses(Vec<String>);

impl Statuses {
    /// 200 to 299.
    pub fn success() -> Self {
        Self(vec!["2xx".to_owned()])
    }

    /// These ones, written as in a workflow file.
    pub fn of(patterns: &[&str]) -> Self {
        Self(patterns.iter().map(|pattern| (*pattern).to_owned()).collect())
    }

    /// Whether one is among them.
    pub fn contains(&self, status: u16) -> bool {
        let class = format!("{}xx", status / 100);
        let exact = status.to_string();
        self.0.iter().any(|pattern| *pattern == class || *pattern == exact)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

fn pattern(text: &str) -> Option<String> {
    let class = text.len() == 3 && text.ends_with("xx") && text.starts_with(['1', '2', '3', '4', '5']);
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let exact = digits && text.parse().is_ok_and(|status: u16| (100..600).contains(&status));
    (class || exact).then(|| text.to_owned())
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

const EXPECTED: &str = "a status like 200, a class like \"2xx\", or a list of those";

impl<'de> Visitor<'de> for Reader {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, status: u64) -> Result<Self::Value, E> {
        self.visit_str(&status.to_string())
    }

    fn visit_i64<E: Error>(self, status: i64) -> Result<Self::Value, E> {
        self.visit_str(&status.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let found = pattern(text).ok_or_else(|| E::custom(format!("`{text}` is not {EXPECTED}")))?;
        Ok(vec![found])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Statuses(one)) = items.next_element()? {
            all.extend(one);
        }
        if all.is_empty() { Err(A::Error::custom("no status at all is meant")) } else { Ok(all) }
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = serde_json::json!([
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": "^([1-5]xx|[1-5][0-9][0-9])$"},
        ]);
        json_schema!({
            "description": "A status like 200, a class like \"2xx\", or a list of those.",
            "anyOf": [one[0], one[1], {"type": "array", "items": {"anyOf": one}, "minItems": 1}],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn numbers_classes_and_lists() {
        let read = |value: Value| from_value::<Statuses>(value);
        assert!(read(json!(201)).unwrap().contains(201) && !read(json!(201)).unwrap().contains(200));
        let mixed = read(json!(["2xx", 404])).unwrap();
        assert!(mixed.contains(204) && mixed.contains(404) && !mixed.contains(400));
        assert_eq!(read(json!(mixed)).unwrap(), mixed, "it is read as it is written");
        for bad in
            [json!("6xx"), json!(99), json!("ok"), json!([]), json!(true), json!([200, "x"]), json!("2x"), json!("+20")]
        {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
