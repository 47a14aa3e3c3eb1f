//! `ask`: puts a question to a human and writes the answer to a channel.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{ChannelType, Context, DynNode, Failure, Field, NodeError, NodeInfo, Produced, View, Write};

use super::names::Names;
use super::{Expression, json_schema, names};

pub(super) const KIND: &str = "ask";
/// What `set` calls the answer.
pub(super) const ANSWER: &str = "answer";

/// What a file says of an `ask` node; stands beside `type`, not under `with`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AskSpec {
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Channel → CEL expression of what the node sees, and of `answer`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<String>,
}

pub(super) struct Ask {
    prompt: Expression,
    into: Option<String>,
    set: Vec<(String, Expression)>,
    answer: Option<jsonschema::Validator>,
    expired: Option<Expression>,
    parameters: Value,
}

impl Ask {
    pub fn new(spec: AskSpec) -> Result<Self, Failure> {
        let parameters = json!(spec);
        let answer = spec.answer.as_ref().map(validator).transpose()?;
        let expired = spec.expired.as_deref().map(Expression::compile).transpose()?;
        let compiled = |(channel, source): (String, String)| Ok((channel, Expression::compile(&source)?));
        let set = spec.set.into_iter().map(compiled).collect::<Result<_, Failure>>()?;
        Ok(Self { prompt: Expression::compile(&spec.prompt)?, into: spec.into, set, answer, expired, parameters })
    }
}

impl Ask {
    /// What is read of the state: in `set` the answer is no channel.
    fn reads(&self, asked: &Names, expired: Option<&Names>) -> Option<BTreeMap<String, Field>> {
        let mut set = names::reads(self.set.iter().map(|(_, value)| value.names()), [])?;
        set.remove(ANSWER);
        let mut reads = names::reads([asked], expired)?;
        for (name, field) in set {
            reads.entry(name).or_insert(field).required |= field.required;
        }
        Some(reads)
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
        let written: Vec<String> =
            self.into.iter().chain(self.set.iter().map(|(channel, _)| channel)).cloned().collect();
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: self.reads(asked, expired),
            writes: Some(written.iter().map(|channel| (channel.clone(), any)).collect()),
            always_writes: written,
            answers_into: self.into.clone(),
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
        let mut seen = view.0.clone();
        seen.insert(ANSWER, answer.clone());
        let set = self.set.iter().map(|(channel, value)| Ok(Write::new(channel.clone(), value.value(&seen)?)));
        let set = set.collect::<Result<Vec<_>, Failure>>()?;
        let into = self.into.iter().map(|into| Write::new(into.clone(), answer.clone()));
        Ok(Produced { writes: into.chain(set).collect(), goto: Vec::new() })
    }
}
