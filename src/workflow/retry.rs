//! `retry`: one policy, or a list of them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::graph::{Failure, RetryPolicy};

use super::TextDuration;
use super::fault::{Faults, Path, under};

/// A node's retry policy; what is left out is as in LangGraph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrySpec {
    /// Only failures of these codes, whether or not they say they are worth repeating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// Attempts in all, the first included (3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Pause before the second attempt (500ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<TextDuration>,
    /// Each further pause is this many times longer (2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Longest pause (128s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<TextDuration>,
    /// Also repeat failures that do not say they are worth repeating (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_failure: Option<bool>,
}

impl RetrySpec {
    /// As the engine takes it.
    pub fn policy(&self) -> RetryPolicy {
        let default = RetryPolicy::default();
        RetryPolicy {
            on: self.on.clone().unwrap_or_default(),
            max_attempts: self.max_attempts.unwrap_or(default.max_attempts),
            initial_ms: self.initial.map_or(default.initial_ms, TextDuration::ms),
            factor: self.factor.unwrap_or(default.factor),
            max_ms: self.max.map_or(default.max_ms, TextDuration::ms),
            any_failure: self.any_failure.unwrap_or(default.any_failure),
        }
    }
}

/// A policy, or a list of them. Remembers which it was, so that a document is kept as it was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Retries {
    /// One for all failures.
    One(RetrySpec),
    /// The first that takes a failure counts.
    Many(Vec<RetrySpec>),
}

impl Retries {
    /// The policies in order.
    pub fn policies(&self) -> &[RetrySpec] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// What makes no sense, with its place.
    pub(super) fn check(&self, path: &Path, faults: &mut Faults) {
        if self.policies().is_empty() {
            faults.push(path.clone(), Failure::new("bad_retry", "a list of policies has none in it"));
        }
        let mut all_taken = false;
        for (index, policy) in self.policies().iter().enumerate() {
            let at = match self {
                Self::One(_) => path.clone(),
                Self::Many(_) => under(path, [&index.to_string()]),
            };
            if all_taken {
                let failure = Failure::new("bad_retry", "a policy before this one takes every failure");
                faults.push(at.clone(), failure.hint("move it up, or give the other one `on`"));
            }
            all_taken |= policy.on.is_none() && policy.any_failure == Some(true);
            policy.check(&at, faults);
        }
    }
}

impl RetrySpec {
    fn check(&self, path: &Path, faults: &mut Faults) {
        let mut wrong = |key: &str, message: &str| {
            faults.push(under(path, [key]), Failure::new("bad_retry", message));
        };
        if self.max_attempts == Some(0) {
            wrong("max_attempts", "a node is attempted at least once");
        }
        if self.factor.is_some_and(|factor| !(1.0..=1_000.0).contains(&factor)) {
            wrong("factor", "a pause can only get longer: factor must be from 1 to 1000");
        }
        if self.on.as_ref().is_some_and(Vec::is_empty) {
            wrong("on", "`on` names no failure");
        }
        if self.on.is_some() && self.any_failure.is_some() {
            wrong("any_failure", "`on` says which failures are repeated: `any_failure` has no meaning beside it");
        }
    }
}

impl Serialize for Retries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(one) => one.serialize(serializer),
            Self::Many(many) => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Retries {
    // By hand: an untagged enum would lose the place of a mistake.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;

        impl<'de> Visitor<'de> for Seen {
            type Value = Retries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a retry policy, or a list of them")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Retries, M::Error> {
                RetrySpec::deserialize(MapAccessDeserializer::new(map)).map(Retries::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Retries, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Retries::Many)
            }
        }

        deserializer.deserialize_any(Seen)
    }
}

impl JsonSchema for Retries {
    fn schema_name() -> Cow<'static, str> {
        "Retries".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<RetrySpec>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}
