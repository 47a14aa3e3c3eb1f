//! The parts of a release file that may be written short: `bake: 10s`, `approval: required`.
//!
//! One word or a map is a type of its own with its own reader, so that an error names the place and the accepted forms.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::units::{Millis, Share};
use crate::judge::Rule;

/// How the new version is watched after it got the traffic: `10s`, or `{ for: 10s, max_error_rate: 0.01 }`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BakeSpec {
    /// How long.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Millis>,
    /// Share of failed requests above which it goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_error_rate: Option<Share>,
    /// What the judge holds meanwhile; absent: `serving`'s p99.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Rule>,
}

/// Whether a human decides: `required`, `none`, or `{ mode: required, ttl: 24h }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ApprovalSpec {
    /// Whether; absent: as policy says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ApprovalMode>,
    /// How long the question stays open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Millis>,
}

/// The two words for an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalMode {
    /// A human decides.
    Required,
    /// None is asked.
    None,
}

/// The map form of [`BakeSpec`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BakeMap {
    #[serde(default, rename = "for")]
    duration: Option<Millis>,
    #[serde(default)]
    max_error_rate: Option<Share>,
    #[serde(default)]
    analysis: Option<Rule>,
}

/// The map form of [`ApprovalSpec`].
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalMap {
    #[serde(default)]
    mode: Option<ApprovalMode>,
    #[serde(default)]
    ttl: Option<Millis>,
}

impl BakeSpec {
    /// `over` where it says something, else `self`.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self {
            duration: over.duration.or(self.duration),
            max_error_rate: over.max_error_rate.or(self.max_error_rate),
            analysis: over.analysis.or(self.analysis),
        }
    }
}

impl ApprovalSpec {
    /// `over` where it says something, else `self`.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self { mode: over.mode.or(self.mode), ttl: over.ttl.or(self.ttl) }
    }
}

impl<'de> Deserialize<'de> for BakeSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bake;
        impl<'de> de::Visitor<'de> for Bake {
            type Value = BakeSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 10s, or a map such as { for: 10s, max_error_rate: 0.01 }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BakeSpec, E> {
                let ms = super::units::parse_duration_ms(text).map_err(E::custom)?;
                Ok(BakeSpec { duration: Some(Millis(ms)), ..BakeSpec::default() })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<BakeSpec, A::Error> {
                let BakeMap { duration, max_error_rate, analysis } =
                    BakeMap::deserialize(MapAccessDeserializer::new(map))?;
                Ok(BakeSpec { duration, max_error_rate, analysis })
            }
        }
        deserializer.deserialize_any(Bake)
    }
}

impl<'de> Deserialize<'de> for ApprovalSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Approval;
        impl<'de> de::Visitor<'de> for Approval {
            type Value = ApprovalSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("required, none, or a map such as { mode: required, ttl: 24h }")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<ApprovalSpec, E> {
                let mode = match word {
                    "required" => ApprovalMode::Required,
                    "none" => ApprovalMode::None,
                    _ => return Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                };
                Ok(ApprovalSpec { mode: Some(mode), ttl: None })
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<ApprovalSpec, A::Error> {
                let map = ApprovalMap::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ApprovalSpec { mode: map.mode, ttl: map.ttl })
            }
        }
        deserializer.deserialize_any(Approval)
    }
}

impl JsonSchema for BakeSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Bake".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<BakeMap>();
        let short = generator.subschema_for::<Millis>();
        json_schema!({ "anyOf": [short, map] })
    }
}

impl JsonSchema for ApprovalSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Approval".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<ApprovalMap>();
        let short = generator.subschema_for::<ApprovalMode>();
        json_schema!({ "anyOf": [short, map] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_and_long_forms() {
        let short: BakeSpec = serde_json::from_value(json!("10s")).expect("short");
        let long: BakeSpec = serde_json::from_value(json!({"for": "10s"})).expect("long");
        assert_eq!(short, long);
        let required: ApprovalSpec = serde_json::from_value(json!("required")).expect("short");
        assert_eq!(required.mode, Some(ApprovalMode::Required));
        let long: ApprovalSpec = serde_json::from_value(json!({"mode": "none", "ttl": "24h"})).expect("long");
        assert_eq!(long, ApprovalSpec { mode: Some(ApprovalMode::None), ttl: Some(Millis(86_400_000)) });
    }

    #[test]
    fn wrong_forms_name_the_right_ones() {
        for (value, part) in [(json!(10), "10s"), (json!({"fro": "1s"}), "fro"), (json!([1]), "10s")] {
            let error = serde_json::from_value::<BakeSpec>(value).expect_err("wrong").to_string();
            assert!(error.contains(part), "{error}");
        }
        let error = serde_json::from_value::<ApprovalSpec>(json!("maybe")).expect_err("wrong").to_string();
        assert!(error.contains("maybe") && error.contains("required, none"), "{error}");
    }

    #[test]
    fn an_overlay_keeps_what_it_does_not_name() {
        let base = BakeSpec { duration: Some(Millis(10_000)), max_error_rate: Some(Share(0.02)), analysis: None };
        let over = base.overlaid(serde_json::from_value(json!("5m")).expect("short"));
        let expected = BakeSpec { duration: Some(Millis(300_000)), max_error_rate: Some(Share(0.02)), analysis: None };
        assert_eq!(over, expected);
    }
}
