//! `on_error`: a node's name, or `{to, into}`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::graph::OnError;

/// What handles a node's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// The node, or END.
    pub to: String,
    /// The channel that gets `{code, message, cause, node}`.
    pub into: Option<String>,
}

impl Handler {
    /// As the engine takes it.
    pub fn policy(&self) -> OnError {
        OnError { to: self.to.as_str().into(), into: self.into.as_deref().map(Into::into) }
    }
}

/// The long form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    into: Option<String>,
}

impl Serialize for Handler {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.into {
            None => serializer.serialize_str(&self.to),
            Some(_) => Long { to: self.to.clone(), into: self.into.clone() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Handler {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;

        impl<'de> Visitor<'de> for Seen {
            type Value = Handler;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a node, or `{to, into}`")
            }

            fn visit_str<E: de::Error>(self, to: &str) -> Result<Handler, E> {
                Ok(Handler { to: to.to_owned(), into: None })
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Handler, M::Error> {
                let Long { to, into } = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Handler { to, into })
            }
        }

        deserializer.deserialize_any(Seen)
    }
}

impl JsonSchema for Handler {
    fn schema_name() -> Cow<'static, str> {
        "Handler".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The node that handles a failure, and the channel that gets it: {code, message, cause, node}.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"to": {"type": "string"}, "into": {"type": "string"}},
                    "required": ["to"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
