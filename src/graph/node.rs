//! Nodes: typed to write, erased to run.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ChannelType, Command, Commands, Context, Entry, Failure, Name, State, StoreError, Write};

/// Why a node did not end well.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NodeError {
    /// It waits for an answer. Comes from [`Context::interrupt`] and must be passed on with `?`.
    #[error("waits for an answer")]
    Suspended,
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A probe could not tell whether an effect happened: nobody may go on.
    #[error("{0}")]
    Stuck(Failure),
    /// The store failed; the thread stays as it was last committed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody cancelled the run.
    #[error("cancelled")]
    Cancelled,
    /// The run stops here and is resumable (the process was asked to end).
    #[error("drained")]
    Drained,
    /// A replay left the recorded path.
    #[error("{0}")]
    Diverged(Failure),
}

/// Where a node sends the graph next, beside its edges (LangGraph's `Command(goto=…)` and `Send`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goto {
    /// A node; `END` is allowed and does nothing.
    Node(Name),
    /// A node with an input of its own.
    Send {
        /// The node.
        to: Name,
        /// Its input.
        input: Value,
    },
    /// A command to a graph around the node's own, which ends with it. A router gives none.
    Command(Box<Command>),
}

/// What a node returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<W> {
    /// What it writes; fields that are null are not written.
    pub update: W,
    /// Where to go, beside the edges.
    pub goto: Vec<Goto>,
}

impl<W> Outcome<W> {
    /// Only writes.
    pub fn update(update: W) -> Self {
        Self { update, goto: Vec::new() }
    }
}

/// A typed node.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// The kind's name, the `type` in a workflow file.
    const KIND: &'static str;
    /// Counted up when the node's effects, reads or writes change their meaning: a thread that began with another version is
    /// refused instead of misread.
    const VERSION: u32;
    /// Channels it reads: a struct whose fields are channels.
    type Reads: DeserializeOwned + JsonSchema + Send;
    /// Channels it writes: a struct whose fields are channels; use `Option` for those that it may leave alone.
    type Writes: Serialize + JsonSchema + Send;
    /// Older versions whose threads this one takes on, by [`Node::migrate`].
    const MIGRATES_FROM: &'static [u32] = &[];

    /// What a version in [`Node::MIGRATES_FROM`] left in a thread's journal, as this one reads it; its place must stay.
    fn migrate(_from: u32, entry: Entry) -> Result<Entry, Failure> {
        Ok(entry)
    }

    /// Does its work. Runs again from its top after an interrupt or a crash; what it asked of `cx` before is remembered.
    async fn run(&self, cx: &Context, reads: Self::Reads) -> Result<Outcome<Self::Writes>, NodeError>;
}

/// A field that a node reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its type, as far as the schema tells.
    pub kind: ChannelType,
    /// Whether the node needs it (reads only).
    pub required: bool,
}

/// What `compile()` needs to know of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// The kind's name.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// Channels it reads; `None`: any.
    pub reads: Option<BTreeMap<String, Field>>,
    /// Channels of its own graph that it writes; `None`: any.
    pub writes: Option<BTreeMap<String, Field>>,
    /// Channels it writes on every run: two such nodes in one superstep conflict for certain.
    pub always_writes: Vec<String>,
    /// The channel to which it writes the answer to its question as it is.
    pub answers_into: Option<String>,
    /// Destinations of its gotos.
    pub gotos: Vec<String>,
    /// One of `gotos` is always taken.
    pub always_goes: bool,
    /// It may also go to, or send to, nodes that `gotos` does not name.
    pub any_goto: bool,
    /// The commands that it may give to graphs around its own.
    pub commands: Vec<Commands>,
    /// Versions whose threads this one takes on, by [`DynNode::migrate`].
    pub migrates_from: Vec<u32>,
    /// Parameters that belong to the graph's fingerprint.
    pub parameters: Value,
}

/// What an erased node returns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Produced {
    /// Its writes, in order.
    pub writes: Vec<Write>,
    /// Where to go, beside the edges.
    pub goto: Vec<Goto>,
}

/// What a task sees: the state, or a Send's payload.
#[derive(Debug, Clone, PartialEq)]
pub struct View(pub State);

/// A node with its types erased; what workflow files' node types implement directly.
#[async_trait]
pub trait DynNode: Send + Sync + 'static {
    /// What it is, reads and writes.
    fn info(&self) -> NodeInfo;
    /// What an older version, one of `NodeInfo.migrates_from`, left in a thread's journal, as this one reads it; its place must stay.
    fn migrate(&self, _from: u32, entry: Entry) -> Result<Entry, Failure> {
        Ok(entry)
    }
    /// Whether it can take this answer to its question; nothing is recorded of one that it cannot take.
    fn admits(&self, _answer: &Value) -> Result<(), Failure> {
        Ok(())
    }
    /// Does its work.
    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError>;
}

/// Retry of a failed node. LangGraph's defaults: 0.5 s × 2 up to 128 s, 3 attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Only failures of these codes, whatever they say of themselves; empty: those that say they are worth repeating.
    pub on: Vec<String>,
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// Pause before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// Each further pause is this many times longer.
    pub factor: f64,
    /// Longest pause, in milliseconds.
    pub max_ms: u64,
    /// Also repeat failures that do not say they are worth repeating.
    pub any_failure: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { on: Vec::new(), max_attempts: 3, initial_ms: 500, factor: 2.0, max_ms: 128_000, any_failure: false }
    }
}

impl RetryPolicy {
    /// Whether this failure is its matter.
    pub fn takes(&self, failure: &Failure) -> bool {
        match self.on.as_slice() {
            [] => self.any_failure || failure.retryable,
            codes => codes.contains(&failure.code),
        }
    }

    /// The pause after `failed` attempts, or `None` when there are no more.
    pub fn pause(&self, failed: u32, failure: &Failure) -> Option<Duration> {
        if failed >= self.max_attempts || !self.takes(failure) {
            return None;
        }
        let factor = self.factor.max(1.0).powi(i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX));
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds"
        )]
        let ms = ((self.initial_ms as f64 * factor).min(self.max_ms as f64)) as u64;
        Some(Duration::from_millis(ms))
    }
}

/// What stays of a subgraph between its visits: LangGraph's `checkpointer` of a subgraph (`None`, `True`, `False`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// Each visit begins anew, and its checkpoints are kept.
    #[default]
    Invocation,
    /// Its state stays: a visit begins with what the visit before left, as new input to a thread does.
    Thread,
    /// Each visit begins anew, and none of its checkpoints is kept: after a crash or a question it runs from its beginning. What it did to
    /// the world and what it was answered is in the journal and is not done or asked again.
    Off,
}

/// How the engine runs a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodePolicy {
    /// Repeat failed attempts, each by the first policy that takes its failure. All attempts count for each of them, as in LangGraph.
    pub retry: Vec<RetryPolicy>,
    /// Longest time of one attempt.
    pub timeout: Option<Duration>,
    /// What has been done up to this node's end is never undone.
    pub commit_point: bool,
    /// How long its questions stay open.
    pub interrupt_ttl: Option<Duration>,
    /// Longest time without a sign of life: something asked of its context, progress, an event.
    pub idle_timeout: Option<Duration>,
    /// Gives what it gave before for the same input.
    pub cache: Option<CachePolicy>,
    /// Where its failure leads instead of ending the run.
    pub on_error: Option<OnError>,
    /// Runs when nothing else is due any more (LangGraph's `defer`).
    pub defer: bool,
    /// What stays of it between its visits; for subgraphs.
    pub persistence: Persistence,
}

/// When a node's earlier result serves again, for all threads of a store. LangGraph's `CachePolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachePolicy {
    /// How long; `None`: for good.
    pub ttl: Option<Duration>,
    /// The channels that must be the same; empty: everything that the node reads.
    pub by: Vec<String>,
}

/// What handles a node's failure. Nothing is undone: the handler decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnError {
    /// The handler, a node; or [`super::END`].
    pub to: Name,
    /// The channel that gets the failure: `{code, message, cause, node}`.
    pub into: Option<Name>,
}

/// A typed node as a [`DynNode`].
pub struct Typed<N: Node> {
    node: N,
    /// What its schemas say; made once, not on every run.
    reads: BTreeMap<String, Field>,
    writes: BTreeMap<String, Field>,
}

impl<N: Node> Typed<N> {
    /// Erases a node's types.
    pub fn new(node: N) -> Self {
        let reads = fields(&schemars::schema_for!(N::Reads).to_value());
        let writes = fields(&schemars::schema_for!(N::Writes).to_value());
        Self { node, reads, writes }
    }
}

#[async_trait]
impl<N: Node> DynNode for Typed<N> {
    fn info(&self) -> NodeInfo {
        // A field that may be null or left out is one that the node may leave alone.
        let always = |(_, field): &(&String, &Field)| field.required && field.kind != ChannelType::Any;
        NodeInfo {
            kind: N::KIND.to_owned(),
            version: N::VERSION,
            migrates_from: N::MIGRATES_FROM.to_vec(),
            reads: Some(self.reads.clone()),
            writes: Some(self.writes.clone()),
            any_goto: true,
            always_writes: self.writes.iter().filter(always).map(|(name, _)| name.clone()).collect(),
            ..NodeInfo::default()
        }
    }

    fn migrate(&self, from: u32, entry: Entry) -> Result<Entry, Failure> {
        N::migrate(from, entry)
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let reads = self.reads(view)?;
        let outcome = self.node.run(cx, reads).await?;
        let update = serde_json::to_value(&outcome.update).map_err(|e| {
            Failure::new("writes_not_json", format!("what `{}` writes is not JSON", N::KIND)).because(e.to_string())
        })?;
        let Value::Object(update) = update else {
            let failure = Failure::new("writes_not_object", format!("`{}` must write a struct of channels", N::KIND));
            return Err(failure.into());
        };
        let writes = update.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| Write::new(k, v)).collect();
        Ok(Produced { writes, goto: outcome.goto })
    }
}

impl<N: Node> Typed<N> {
    fn reads(&self, view: &View) -> Result<N::Reads, Failure> {
        let wanted = self.reads.keys().filter_map(|name| Some((name.clone(), view.0.get(name)?.clone())));
        let seen: Map<String, Value> = wanted.collect();
        serde_json::from_value(Value::Object(seen)).map_err(|e| {
            Failure::new("reads_mismatch", format!("node type `{}` cannot read its channels", N::KIND))
                .because(e.to_string())
                .hint("a channel it needs was not written, or holds another shape")
        })
    }
}

/// The fields of a struct's JSON Schema.
fn fields(schema: &Value) -> BTreeMap<String, Field> {
    let required: Vec<&str> =
        schema["required"].as_array().map(|r| r.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
    let Some(properties) = schema["properties"].as_object() else { return BTreeMap::new() };
    let field = |name: &String, of: &Value| Field { kind: kind_of(of), required: required.contains(&name.as_str()) };
    properties.iter().map(|(name, of)| (name.clone(), field(name, of))).collect()
}

fn kind_of(schema: &Value) -> ChannelType {
    match schema["type"].as_str() {
        Some("integer") => ChannelType::Integer,
        Some("number") => ChannelType::Number,
        Some("string") => ChannelType::String,
        Some("boolean") => ChannelType::Boolean,
        Some("array") => ChannelType::Array,
        Some("object") => ChannelType::Object,
        // A union, a reference or no type at all: the value is checked when it is read.
        _ => ChannelType::Any,
    }
}
