//! The version of a stored structure, checked when it is read.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A stored structure's format version: always `N` in memory; reading any other number is an error that says so, because a newer
/// binary may have written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format<const N: u32>;

impl<const N: u32> Serialize for Format<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(N)
    }
}

impl<'de, const N: u32> Deserialize<'de> for Format<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = u32::deserialize(deserializer)?;
        if found == N {
            return Ok(Self);
        }
        Err(de::Error::custom(format!("format {found} is not the one this tidegate reads ({N})")))
    }
}

impl<const N: u32> JsonSchema for Format<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Format{N}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "const": N })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_number_only() {
        assert_eq!(serde_json::from_str::<Format<1>>("1").expect("1 is read"), Format);
        let error = serde_json::from_str::<Format<1>>("2").expect_err("2 is refused").to_string();
        assert!(error.contains("format 2") && error.contains("(1)"), "{error}");
    }
}
