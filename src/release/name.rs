//! The public name of a model.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a model's name must look like.
pub const NAME_PATTERN: &str = "^[a-z0-9][a-z0-9-]{0,62}$";

/// Paths that the gateway answers itself, so no model may have them as its prefix.
pub const RESERVED_NAMES: [&str; 5] = ["healthz", "livez", "metrics", "readyz", "tidegate"];

/// A model's public name: the first part of its endpoint's path, the key of its history. `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(String);

/// Text that cannot be a model's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` cannot be a model's name: {why}")]
pub struct NameError {
    /// What was written.
    pub value: String,
    /// Why not.
    pub why: &'static str,
}

impl ModelName {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is not a name or is reserved for the gateway.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let fail = |why| Err(NameError { value: text.to_owned(), why });
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.len() > 63 || !text.starts_with(is_plain) || !text.chars().all(|c| is_plain(c) || c == '-') {
            return fail("use 1 to 63 lower-case letters, digits and dashes, not starting with a dash");
        }
        if RESERVED_NAMES.contains(&text) {
            return fail("the gateway answers that path itself");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name nearest to free text such as a file's stem: `Iris_CLF` gives `iris-clf`.
    ///
    /// # Errors
    /// When nothing usable is left.
    pub fn derived_from(text: &str) -> Result<Self, NameError> {
        let dashed: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        let parts: Vec<&str> = dashed.split('-').filter(|part| !part.is_empty()).collect();
        let joined = parts.join("-");
        let short = joined.get(..joined.len().min(63)).unwrap_or_default();
        Self::new(short.trim_end_matches('-')).map_err(|error| NameError { value: text.to_owned(), why: error.why })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for ModelName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ModelName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": NAME_PATTERN, "not": { "enum": RESERVED_NAMES } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_and_bad_names() {
        for name in ["iris", "a", "0-x", &"a".repeat(63)] {
            assert!(ModelName::new(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "Iris", "a_b", "a/b", "..", "é", "metrics", &"a".repeat(64)] {
            assert!(ModelName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn derived_names() {
        assert_eq!(ModelName::derived_from("Iris_CLF v2").expect("usable").as_str(), "iris-clf-v2");
        assert!(ModelName::derived_from("___").is_err());
    }

    proptest! {
        #[test]
        fn what_is_derived_is_a_name(text in "\\PC{0,100}") {
            if let Ok(name) = ModelName::derived_from(&text) {
                prop_assert!(ModelName::new(name.as_str()).is_ok());
            }
        }
    }
}
