//! A graph as it is drawn: nodes, edges, barriers, and the routers that choose among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Channel, Commands, DynNode, Failure, Field, Finding, Goto, Name, NodeInfo, NodePolicy, Persistence, State, digest,
};

/// The name before the first node.
pub const START: &str = "START";
/// The name behind the last one.
pub const END: &str = "END";

/// Chooses where to go from the state and the node's own fresh writes.
pub trait Router: Send + Sync + 'static {
    /// Every place it may choose; drawn, checked, fingerprinted.
    fn destinations(&self) -> Vec<Destination>;
    /// Chooses. Deterministic: it sees nothing but the state.
    fn route(&self, state: &State) -> Result<Vec<Goto>, Failure>;
    /// What belongs to the graph's fingerprint.
    fn parameters(&self) -> Value {
        Value::Null
    }
    /// Channels that it reads; `None`: any.
    fn reads(&self) -> Option<BTreeMap<String, Field>> {
        None
    }
    /// Whether it may choose nothing at all.
    fn may_stop(&self) -> bool {
        true
    }
}

/// A place that a router may choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The node, or [`END`].
    pub to: Name,
    /// What is written at the arrow.
    pub label: Option<String>,
    /// Whether it is reached by Sends.
    pub send: bool,
    /// The keys of what is sent; `None`: not known.
    pub keys: Option<Vec<Name>>,
}

impl Destination {
    /// A plain destination.
    pub fn node(to: impl Into<Name>) -> Self {
        Self { to: to.into(), label: None, send: false, keys: None }
    }
}

/// What a node consists of.
#[derive(Clone)]
pub enum Body {
    /// Code.
    Leaf(Arc<dyn DynNode>),
    /// Another graph; channels of the same name are shared.
    Subgraph(Arc<CompiledGraph>),
}

/// A node in a graph.
#[derive(Clone)]
pub struct NodeEntry {
    /// What it consists of.
    pub body: Body,
    /// How it is run.
    pub policy: NodePolicy,
    /// What compile() learned of it.
    pub info: NodeInfo,
}

/// A barrier: `to` is due when all of `from` have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// Its id: `ada+bob->cyn`.
    pub id: Name,
    /// Who must arrive.
    pub from: BTreeSet<Name>,
    /// Who is then due.
    pub to: Name,
}

/// Everything that leaves one node.
#[derive(Clone, Default)]
pub struct Leaving {
    /// Plain edges.
    pub to: Vec<Name>,
    /// Routers.
    pub routers: Vec<Arc<dyn Router>>,
    /// Ids of the barriers it arrives at.
    pub barriers: Vec<Name>,
}

/// A graph that has passed all checks and can be run.
pub struct CompiledGraph {
    pub(super) name: String,
    pub(super) channels: BTreeMap<Name, Channel>,
    pub(super) input_channels: Option<BTreeSet<Name>>,
    pub(super) nodes: BTreeMap<Name, NodeEntry>,
    pub(super) leaving: BTreeMap<Name, Leaving>,
    pub(super) barriers: BTreeMap<Name, Barrier>,
    pub(super) interrupt_before: BTreeSet<Name>,
    pub(super) interrupt_after: BTreeSet<Name>,
    pub(super) warnings: Vec<Finding>,
    /// Longest time of one superstep.
    pub(super) step_timeout: Option<Duration>,
    /// Commands of the nodes inside, subgraphs included, to graphs around this one.
    pub(super) commands: Vec<Commands>,
    /// Channels that no checkpoint has.
    pub(super) untracked: BTreeSet<Name>,
    /// Channels that keep a value for one superstep.
    pub(super) cleared: Vec<Name>,
    /// Nodes behind which nothing is undone any more.
    pub(super) commit_points: BTreeSet<Name>,
    /// Nodes that wait until nothing else is due.
    pub(super) deferred: BTreeSet<Name>,
    /// Made once: every advance compares it.
    pub(super) fingerprint: OnceLock<String>,
    /// Made once: every new thread keeps a copy.
    pub(super) versions: OnceLock<BTreeMap<String, u32>>,
}

impl CompiledGraph {
    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its channels.
    pub fn channels(&self) -> &BTreeMap<Name, Channel> {
        &self.channels
    }

    /// Its nodes.
    pub fn nodes(&self) -> &BTreeMap<Name, NodeEntry> {
        &self.nodes
    }

    /// What leaves a node, or [`START`].
    pub fn leaving(&self, node: &str) -> Option<&Leaving> {
        self.leaving.get(node)
    }

    /// Its barriers by id.
    pub fn barriers(&self) -> &BTreeMap<Name, Barrier> {
        &self.barriers
    }

    /// What is odd but allowed: unreachable nodes, channels that nobody uses.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// Nodes before which it stops.
    pub fn interrupt_before(&self) -> &BTreeSet<Name> {
        &self.interrupt_before
    }

    /// Nodes behind which it stops.
    pub fn interrupt_after(&self) -> &BTreeSet<Name> {
        &self.interrupt_after
    }

    /// Longest time of one superstep, where there is one.
    pub fn step_timeout(&self) -> Option<Duration> {
        self.step_timeout
    }

    /// The node that runs in namespace `ns` under this name.
    pub(super) fn node_at(&self, ns: &str, node: &str) -> Option<&NodeEntry> {
        let (here, inner) = ns.split_once('|').unwrap_or((ns, ""));
        if here.is_empty() {
            return self.nodes.get(node);
        }
        match &self.nodes.get(here.split(':').next()?)?.body {
            Body::Subgraph(graph) => graph.node_at(inner, node),
            Body::Leaf(_) => None,
        }
    }

    /// Shows every node that is no subgraph, those inside subgraphs too.
    pub(super) fn each_leaf(&self, see: &mut dyn FnMut(&NodeEntry)) {
        for entry in self.nodes.values() {
            match &entry.body {
                Body::Leaf(_) => see(entry),
                Body::Subgraph(inner) => inner.each_leaf(see),
            }
        }
    }

    /// Whether the channel that takes the answer of the node that asks in namespace `ns` admits this one; `None`: nothing is known of it.
    pub fn admits_answer(&self, ns: &str, node: &str, answer: &Value) -> Option<Result<(), Failure>> {
        let (here, inner) = ns.split_once('|').unwrap_or((ns, ""));
        if !here.is_empty() {
            let Body::Subgraph(graph) = &self.nodes.get(here.split(':').next()?)?.body else { return None };
            return graph.admits_answer(inner, node, answer);
        }
        let entry = self.nodes.get(node)?;
        if let Body::Leaf(asks) = &entry.body
            && let Err(refused) = asks.admits(answer)
        {
            return Some(Err(refused));
        }
        let name = entry.info.answers_into.as_ref()?;
        let channel = self.channels.get(name.as_str())?;
        Some(if channel.admits(answer) {
            Ok(())
        } else {
            let (wants, got) = (channel.value.word(), super::kind(answer));
            Err(Failure::new("bad_answer", format!("the answer to `{node}` must be {wants}, got {got}"))
                .because(format!("it goes into channel `{name}`"))
                .hint("nothing was recorded: answer again"))
        })
    }

    /// Node kinds with their versions, subgraphs included.
    pub fn node_versions(&self) -> BTreeMap<String, u32> {
        self.versions.get_or_init(|| self.count_versions()).clone()
    }

    fn count_versions(&self) -> BTreeMap<String, u32> {
        let mut versions = BTreeMap::new();
        for entry in self.nodes.values() {
            match &entry.body {
                Body::Leaf(_) => {
                    versions.insert(entry.info.kind.clone(), entry.info.version);
                }
                Body::Subgraph(inner) => versions.extend(inner.node_versions()),
            }
        }
        versions
    }

    /// The same as if its nodes had these versions.
    pub(super) fn fingerprint_as(&self, versions: &BTreeMap<String, u32>) -> String {
        digest(&self.describe_as(Some(versions)))
    }

    /// Digest of everything that decides how a thread runs.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.get_or_init(|| digest(&self.describe())).clone()
    }

    /// The graph as data: what the fingerprint is made of.
    pub fn describe(&self) -> Value {
        self.describe_as(None)
    }

    fn describe_as(&self, versions: Option<&BTreeMap<String, u32>>) -> Value {
        let version = |info: &NodeInfo| versions.and_then(|v| v.get(&info.kind)).copied().unwrap_or(info.version);
        let node = |entry: &NodeEntry| match &entry.body {
            Body::Leaf(_) => json!({
                "kind": entry.info.kind, "version": version(&entry.info), "parameters": entry.info.parameters,
                "commit_point": entry.policy.commit_point,
            }),
            Body::Subgraph(inner) => inner.describe_as(versions),
        };
        // Named only where they are used: a graph that has none keeps the fingerprint that it had before they were known.
        let node = |entry: &NodeEntry| {
            let mut told = node(entry);
            if let Some(by) = &entry.policy.on_error {
                told["on_error"] = json!(by);
            }
            if entry.policy.persistence != Persistence::Invocation {
                told["persistence"] = json!(entry.policy.persistence);
            }
            if entry.policy.defer {
                told["defer"] = Value::Bool(true);
            }
            told
        };
        let leaving = |l: &Leaving| {
            let routers: Vec<Value> = l
                .routers
                .iter()
                .map(|r| json!({"to": r.destinations().into_iter().map(|d| d.to).collect::<Vec<_>>(), "by": r.parameters()}))
                .collect();
            json!({"to": l.to, "routers": routers, "barriers": l.barriers})
        };
        json!({
            "name": self.name,
            "channels": self.channels,
            "nodes": self.nodes.iter().map(|(n, e)| (n.clone(), node(e))).collect::<BTreeMap<_, _>>(),
            "edges": self.leaving.iter().map(|(n, l)| (n.clone(), leaving(l))).collect::<BTreeMap<_, _>>(),
            "interrupt_before": self.interrupt_before,
            "interrupt_after": self.interrupt_after,
        })
    }
}
