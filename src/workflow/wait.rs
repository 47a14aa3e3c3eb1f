//! `wait`: for a signal, or until the time is over, whichever comes first.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{ChannelType, Context, DynNode, Failure, Field, NodeError, NodeInfo, Produced, View, Woken, Write};

use super::sleep::End;
use super::{OneOrMany, TextDuration};

pub(super) const KIND: &str = "wait";

/// What a file says of a `wait` node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitSpec {
    /// The signal's name, or several: the first that comes counts.
    pub signal: OneOrMany,
    /// How long at most, from when the node is first due (for ever).
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub length: Option<TextDuration>,
    /// Until when at most: CEL expression of a time as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The channel that gets what ended the wait: `{signal, value, by}`, all of them null when the time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
}

pub(super) struct Wait {
    signals: Vec<String>,
    end: End,
    into: Option<String>,
    parameters: Value,
}

impl Wait {
    pub fn new(spec: &WaitSpec) -> Result<Self, Failure> {
        let signals = spec.signal.names().to_vec();
        if signals.is_empty() || signals.iter().any(String::is_empty) {
            return Err(Failure::new("bad_parameters", "a `wait` needs the name of a signal")
                .hint("as in `with: {signal: go}`; a `sleep` waits for the time alone"));
        }
        let end = End::new(spec.length, spec.until.as_deref())?;
        Ok(Self { signals, end, into: spec.into.clone(), parameters: json!(spec) })
    }
}

#[async_trait]
impl DynNode for Wait {
    fn info(&self) -> NodeInfo {
        let object = Field { kind: ChannelType::Object, required: true };
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: self.end.reads(),
            writes: Some(self.into.iter().map(|channel| (channel.clone(), object)).collect::<BTreeMap<_, _>>()),
            always_writes: self.into.iter().cloned().collect(),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let woken = cx.wait(&self.signals, self.end.until(view)?).await?;
        let told = match woken {
            Woken::Signal { name, value, by } => json!({"signal": name, "value": value, "by": by}),
            Woken::Timer => json!({"signal": null, "value": null, "by": null}),
        };
        let write = |channel: &String| Write::new(channel.clone(), told.clone());
        Ok(Produced { writes: self.into.iter().map(write).collect(), goto: Vec::new() })
    }
}
