//! `ask`: puts a question to a human and writes the answer to a channel.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{ChannelType, Context, DynNode, Failure, Field, NodeError, NodeInfo, Produced, View, Write};

use super::Expression;

pub(super) const KIND: &str = "ask";

/// What a file says of an `ask` node; stands beside `type`, not under `with`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskSpec {
    pub prompt: String,
    pub into: String,
}

pub(super) struct Ask {
    prompt: Expression,
    into: String,
    parameters: Value,
}

impl Ask {
    pub fn new(spec: AskSpec) -> Result<Self, Failure> {
        let parameters = json!(spec);
        Ok(Self { prompt: Expression::compile(&spec.prompt)?, into: spec.into, parameters })
    }
}

#[async_trait]
impl DynNode for Ask {
    fn info(&self) -> NodeInfo {
        let any = Field { kind: ChannelType::Any, required: false };
        let names = self.prompt.names();
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: (!names.whole).then(|| names.all().map(|name| (name.clone(), any)).collect()),
            writes: Some(BTreeMap::from([(self.into.clone(), any)])),
            always_writes: vec![self.into.clone()],
            answers_into: Some(self.into.clone()),
            gotos: Vec::new(),
            parameters: self.parameters.clone(),
        }
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let answer = cx.interrupt(&self.prompt.value(&view.0)?).await?;
        Ok(Produced { writes: vec![Write::new(self.into.clone(), answer)], goto: Vec::new() })
    }
}
