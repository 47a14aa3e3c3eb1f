//! What may stand in a workflow file. Unknown keys are errors everywhere.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::graph::{Channel, Persistence};

use super::{Handler, OneOrMany, Retries, TextDuration};

/// A workflow: a graph of nodes over named channels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkflowFile {
    /// Its name. A subgraph without one is called as its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version of the file's format: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it takes; without this an input may write every channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputSpec>,
    /// The state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channels: BTreeMap<String, Channel>,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeSpec>,
    /// The edges.
    pub edges: Vec<EdgeSpec>,
    /// Longest time of one superstep. A run that exceeds it fails, undoes nothing, and can be continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_timeout: Option<TextDuration>,
    /// Nodes before which a run stops until it is resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interrupt_before: Vec<String>,
    /// Nodes behind which a run stops until it is resumed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interrupt_after: Vec<String>,
    /// How much of its runs' history stays; without this all of it. At the top of a workflow only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
}

/// How much of the history stays: carried out at the end of each run, by whoever ran it. Releases, the audit and what has not ended stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionSpec {
    /// Checkpoints of each graph of a run: so many of the newest, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<u32>,
    /// Whole runs of this workflow go so long after they ended: at least `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<TextDuration>,
}

/// The input, as a JSON Schema of an object. Types, `enum`, `required` and defaults of the top level are held; what lies deeper is the
/// matter of the nodes that read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// `object`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The channels that an input may write; one that is not declared under `channels` is declared by this.
    #[serde(default)]
    pub properties: BTreeMap<String, Value>,
    /// Those that it must write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Only `false` makes sense: an unknown key is always an error.
    #[serde(default, rename = "additionalProperties", skip_serializing_if = "Option::is_none")]
    pub additional_properties: Option<bool>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its type: `expr`, `ask`, `subgraph`, or one that the binary adds.
    #[serde(rename = "type")]
    pub kind: String,
    /// `expr` and `ask`: channel → CEL expression, all evaluated on what the node sees; of `ask` also on its `answer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<BTreeMap<String, String>>,
    /// `expr`: where to go beside the edges; the first case that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goto: Option<Vec<Case>>,
    /// `ask`: CEL expression of the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// `ask`: JSON Schema that an answer must meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// `ask`: CEL expression of the answer that counts when nobody gave one within `ttl`; without it the node fails then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<String>,
    /// `ask`: the channel that gets the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// `subgraph`: the graph; channels of the same name are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Box<WorkflowFile>>,
    /// `subgraph`: the graph's file, relative to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `subgraph`: what stays of it between its visits (`invocation`: each begins anew).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Parameters of the node's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Repeats failed attempts: a policy, or a list of which the first counts that takes the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retries>,
    /// Longest time of one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TextDuration>,
    /// How long the node's questions stay open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TextDuration>,
    /// What has been done up to this node's end is never undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub commit_point: bool,
    /// Longest time of one attempt without a sign of life: progress, an effect, a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<TextDuration>,
    /// Gives what the node gave before for the same input, instead of running it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    /// The node that handles the failure of this one, after its retries; nothing is undone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<Handler>,
    /// Runs when nothing else is due any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub defer: bool,
}

/// When a node's earlier result serves again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// How long (for good).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TextDuration>,
    /// The channels that must be the same (everything that the node reads).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
}

/// One case of a `route` or a `goto`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// CEL condition; without one the case always holds and must be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Where to go.
    pub to: OneOrMany,
    /// `goto`: the graph in which to go, and to which `set` writes, instead of the node's own, which ends: `parent`, or the name of a
    /// subgraph node around this one, for the graph in which that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<String>,
}

/// An edge: `from` and one of `to`, `route`, `send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeSpec {
    /// Where it begins; a list is a barrier that waits for all.
    pub from: OneOrMany,
    /// Where it leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<OneOrMany>,
    /// The first case that holds says where it leads; it sees the state with the node's own fresh writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Vec<Case>>,
    /// Runs a node once for each item of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<SendSpec>,
}

/// A fan-out over a list: the node runs once for each item and sees only `{as: item}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSpec {
    /// The node.
    pub to: String,
    /// CEL expression of the list.
    pub each: String,
    /// What the node sees the item as.
    #[serde(rename = "as")]
    pub name: String,
}

/// The JSON Schema of a workflow file, for editors and for `tidegate schema workflow`.
pub fn json_schema() -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let tools = super::tools::subschemas(&mut generator);
    let mut schema = generator.into_root_schema_for::<WorkflowFile>().to_value();
    let parameters = |(kind, parameters): (&str, schemars::Schema)| {
        let of_kind = json!({"properties": {"type": {"const": kind}}});
        json!({"if": of_kind, "then": {"properties": {"with": parameters}, "required": ["with"]}})
    };
    schema["$defs"]["NodeSpec"]["allOf"] = tools.into_iter().map(parameters).collect();
    schema
}
