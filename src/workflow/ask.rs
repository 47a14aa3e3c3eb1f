//! `ask`: puts a question to a human and writes the answer to a channel.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{ChannelType, Context, DynNode, Failure, Field, NodeError, NodeInfo, Produced, View, Write};

use super::{Expression, json_schema, names};

pub(super) const KIND: &str = "ask";

/// What a file says of an `ask` node; stands beside `type`, not under `with`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskSpec {
    pub prompt: String,
    pub into: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<String>,
}

pub(super) struct Ask {
    prompt: Expression,
    into: String,
    answer: Option<jsonschema::Validator>,
    expired: Option<Expression>,
    parameters: Value,
}

impl Ask {
    pub fn new(spec: AskSpec) -> Result<Self, Failure> {
        let parameters = json!(spec);
        let answer = spec.answer.as_ref().map(validator).transpose()?;
        let expired = spec.expired.as_deref().map(Expression::compile).transpose()?;
        Ok(Self { prompt: Expression::compile(&spec.prompt)?, into: spec.into, answer, expired, parameters })
    }
}

pub(super) fn validator(schema: &Value) -> Result<jsonschema::Validator, Failure> {
    json_schema::validator(schema).map_err(|why| Failure::new("bad_schema", "`answer` is no JSON Schema").because(why))
}

/// Whether what is written where nobody answers could have been answered.
pub(super) fn fits(schema: Option<&jsonschema::Validator>, outcome: &Value) -> Result<(), Failure> {
    let misfits = schema.map(|schema| json_schema::misfits(schema, outcome)).unwrap_or_default();
    let Some((place, why)) = misfits.into_iter().next() else { return Ok(()) };
    Err(Failure::new("bad_outcome", format!("what `expired` gives does not meet the question's schema{place}"))
        .because(why)
        .hint("mend `expired` or `answer`: whoever reads the answer relies on the schema"))
}

#[async_trait]
impl DynNode for Ask {
    fn info(&self) -> NodeInfo {
        let any = Field { kind: ChannelType::Any, required: false };
        let (asked, expired) = (self.prompt.names(), self.expired.as_ref().map(Expression::names));
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: names::reads([asked], expired),
            writes: Some(BTreeMap::from([(self.into.clone(), any)])),
            always_writes: vec![self.into.clone()],
            answers_into: Some(self.into.clone()),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    fn admits(&self, answer: &Value) -> Result<(), Failure> {
        let misfits = self.answer.as_ref().map(|schema| json_schema::misfits(schema, answer)).unwrap_or_default();
        let Some((place, why)) = misfits.into_iter().next() else { return Ok(()) };
        Err(Failure::new("bad_answer", format!("the answer does not meet the question's schema{place}"))
            .because(why)
            .hint("nothing was recorded: answer again"))
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let answer = match (cx.interrupt(&self.prompt.value(&view.0)?).await, &self.expired) {
            (Err(NodeError::Failed(failure)), Some(expired)) if failure.code == "expired" => {
                let outcome = expired.value(&view.0)?;
                fits(self.answer.as_ref(), &outcome)?;
                outcome
            }
            (answer, _) => answer?,
        };
        Ok(Produced { writes: vec![Write::new(self.into.clone(), answer)], goto: Vec::new() })
    }
}
