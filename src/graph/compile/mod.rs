//! Everything that can be known to be wrong before a graph runs. What the graph is made of is looked at here; where it leads in `reach`,
//! what flows through it in `channels` and `sends`, how its nodes are run in `policies`.

mod channels;
mod policies;
mod reach;
mod sends;

use std::collections::{BTreeMap, BTreeSet};

use super::builder::StateGraph;
use super::channel::cleared;
use super::{
    Body, Channel, ChannelKind, Commands, CompiledGraph, END, Failure, Name, NodeEntry, NodeInfo, Persistence, START,
};
use reach::Paths;

/// Something that is wrong or odd, with the place in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What, and how to mend it.
    pub failure: Failure,
    /// Where.
    pub place: Place,
}

/// A place in a graph, as exact as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The graph as a whole.
    Graph,
    /// A node.
    Node(Name),
    /// Something that is said of a node: `timeout`, `on_error`, …
    Policy(Name, &'static str),
    /// An edge: plain, of a router, a goto, or to a handler.
    Edge {
        /// Where it begins.
        from: Name,
        /// Where it leads.
        to: Name,
    },
    /// A barrier.
    Barrier {
        /// Who must arrive.
        from: BTreeSet<Name>,
        /// Who is due then.
        to: Name,
    },
    /// A channel.
    Channel(Name),
    /// A node in `interrupt_before` or `interrupt_after`.
    Interrupt(Name),
}

/// All errors of a graph at once, each with its mend.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileErrors {
    /// The graph's name.
    pub graph: String,
    /// At least one.
    pub errors: Vec<Finding>,
}

impl std::fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "graph `{}` has {} error(s)", self.graph, self.errors.len())?;
        for Finding { failure, .. } in &self.errors {
            write!(f, "\n  {}: {}", failure.code, failure.message)?;
            if let Some(hint) = &failure.hint {
                write!(f, "\n    -> {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}

impl CompileErrors {
    /// As one failure: the first error's code, all of them as its cause.
    pub fn failure(&self) -> Failure {
        let first = self.errors.first().map(|finding| &finding.failure);
        let code = first.map_or("graph_invalid", |e| e.code.as_str());
        let mut failure = Failure::new(code, format!("graph `{}` is refused", self.graph)).because(self.to_string());
        failure.hint = first.and_then(|e| e.hint.clone());
        failure
    }
}

/// A graph under examination, and what was found.
struct Exam<'g> {
    graph: &'g StateGraph,
    nodes: &'g BTreeMap<Name, NodeEntry>,
    /// The engine could not run it.
    broken: Vec<Finding>,
    /// It could be run, and cannot end well.
    senseless: Vec<Finding>,
    /// Odd, but allowed.
    warnings: Vec<Finding>,
}

impl Exam<'_> {
    fn broken(&mut self, place: Place, failure: Failure) {
        self.broken.push(Finding { failure, place });
    }

    fn senseless(&mut self, place: Place, failure: Failure) {
        self.senseless.push(Finding { failure, place });
    }

    fn warn(&mut self, place: Place, failure: Failure) {
        self.warnings.push(Finding { failure, place });
    }

    fn is_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }
}

/// `kept`: somebody has begun with this graph. What the engine can run it then runs, as it did when it was accepted.
pub(super) fn compile(graph: StateGraph, kept: bool) -> Result<CompiledGraph, CompileErrors> {
    let nodes: BTreeMap<Name, NodeEntry> =
        graph.nodes.iter().map(|(name, (body, policy))| (name.clone(), entry(name, body, policy))).collect();
    let mut exam =
        Exam { graph: &graph, nodes: &nodes, broken: Vec::new(), senseless: Vec::new(), warnings: Vec::new() };
    exam.names();
    exam.endpoints();
    if exam.broken.is_empty() {
        let paths = Paths::of(&graph, &nodes);
        exam.reach(&paths);
        exam.channels(&paths);
        exam.sends(&paths);
        exam.policies(&paths);
    }
    let Exam { broken: mut errors, senseless, mut warnings, .. } = exam;
    if kept {
        warnings.extend(senseless);
    } else {
        errors.extend(senseless);
    }
    if !errors.is_empty() {
        return Err(CompileErrors { graph: graph.name, errors });
    }
    let untracked = |(name, channel): (&Name, &Channel)| is_untracked(channel).then(|| name.clone());
    let those = |with: fn(&NodeEntry) -> bool| nodes.iter().filter(|(_, e)| with(e)).map(|(n, _)| n.clone()).collect();
    Ok(CompiledGraph {
        commit_points: those(|entry| entry.policy.commit_point),
        deferred: those(|entry| entry.policy.defer),
        step_timeout: graph.step_timeout,
        commands: nodes.values().flat_map(|entry| &entry.info.commands).cloned().collect(),
        untracked: graph.channels.iter().filter_map(untracked).collect(),
        cleared: cleared(&graph.channels),
        name: graph.name,
        channels: graph.channels,
        input_channels: graph.input_channels,
        nodes,
        leaving: graph.leaving,
        barriers: graph.barriers,
        interrupt_before: graph.interrupt_before,
        interrupt_after: graph.interrupt_after,
        warnings,
        fingerprint: std::sync::OnceLock::new(),
        versions: std::sync::OnceLock::new(),
    })
}

/// Whether a run may stop at a place inside that only a checkpoint can tell.
fn stops(graph: &CompiledGraph) -> bool {
    let inside = |entry: &NodeEntry| matches!(&entry.body, Body::Subgraph(inner) if stops(inner));
    !graph.interrupt_before.is_empty() || !graph.interrupt_after.is_empty() || graph.nodes.values().any(inside)
}

fn entry(name: &str, body: &Body, policy: &super::NodePolicy) -> NodeEntry {
    let info = match body {
        Body::Leaf(node) => node.info(),
        Body::Subgraph(inner) => subgraph_info(name, inner),
    };
    NodeEntry { body: body.clone(), policy: policy.clone(), info }
}

/// What a subgraph reads and writes depends on the channels that it shares; `channels` looks inside.
fn subgraph_info(name: &str, inner: &CompiledGraph) -> NodeInfo {
    let gotos: BTreeSet<String> = to_here(name, inner).flat_map(|commands| &commands.gotos).cloned().collect();
    // Those that mean a graph further out.
    let commands = inner.commands.iter().filter(|commands| !commands.graph.is_around(name, true)).cloned().collect();
    let gotos = gotos.into_iter().collect();
    let parameters = inner.describe();
    NodeInfo { kind: "subgraph".into(), version: 1, gotos, commands, parameters, ..NodeInfo::default() }
}

/// The commands that nodes inside a subgraph node give to the graph in which it stands.
fn to_here<'c>(name: &str, inner: &'c CompiledGraph) -> impl Iterator<Item = &'c Commands> {
    inner.commands.iter().filter(move |commands| commands.graph.is_around(name, true))
}

fn is_untracked(channel: &Channel) -> bool {
    matches!(channel.kind, ChannelKind::Untracked { .. })
}

/// Which types fit which kinds of channel.
pub const FITS: &str =
    "add, max, min fold numbers; append, union fold arrays; merge folds objects; a topic is an array";

impl Exam<'_> {
    fn names(&mut self) {
        if self.graph.step_timeout.is_some_and(|limit| limit.is_zero()) {
            let message = format!("graph `{}` gives a superstep no time", self.graph.name);
            let failure = Failure::new("bad_step_timeout", message);
            self.broken(Place::Graph, failure.hint("give it some, or leave `step_timeout` out"));
        }
        for what in &self.graph.duplicates {
            let failure = Failure::new("duplicate", format!("{what} is declared twice")).hint("rename one of them");
            self.broken(Place::Graph, failure);
        }
        for name in &self.graph.policies_of_nobody {
            let failure = Failure::new("unknown_node", format!("there is no node `{name}` to set a policy for"));
            self.broken(Place::Graph, failure);
        }
        for name in self.graph.nodes.keys() {
            let bad = name.is_empty() || name.contains(['|', ':', '#', '[', '/']) || name.starts_with("__");
            if bad || name == START || name == END {
                let failure = Failure::new("reserved_name", format!("a node cannot be called `{name}`"))
                    .hint("use letters, digits, `_`, `-`, `.`; START and END are the graph's own ends");
                self.broken(Place::Node(name.clone()), failure);
            }
        }
        self.persistence();
        for node in self.graph.interrupt_before.iter().chain(&self.graph.interrupt_after) {
            if !self.is_node(node) {
                self.unknown(Place::Interrupt(node.clone()), node, "an interrupt names it");
            }
        }
    }

    fn persistence(&mut self) {
        for (name, (body, policy)) in &self.graph.nodes {
            let why = match (body, policy.persistence) {
                (_, Persistence::Invocation) | (Body::Subgraph(_), Persistence::Thread) => continue,
                (Body::Leaf(_), _) => "it is no subgraph",
                (Body::Subgraph(inner), Persistence::Off) if stops(inner) => {
                    "a run stops before or behind nodes inside it"
                }
                (Body::Subgraph(_), Persistence::Off) => continue,
            };
            let failure = Failure::new("bad_persistence", format!("`{name}` cannot have this `persistence`"));
            let place = Place::Policy(name.clone(), "persistence");
            self.broken(place, failure.because(why).hint("leave it out"));
        }
    }

    fn unknown(&mut self, place: Place, node: &str, why: &str) {
        let known: Vec<&str> = self.graph.nodes.keys().map(Name::as_str).collect();
        let failure = Failure::new("unknown_node", format!("there is no node `{node}` ({why})"))
            .hint(format!("add it, or use one of: {}", known.join(", ")));
        self.broken(place, failure);
    }

    fn endpoints(&mut self) {
        let edge = |from: &Name, to: &Name| Place::Edge { from: from.clone(), to: to.clone() };
        for (from, leaving) in &self.graph.leaving {
            if from != START && !self.is_node(from) {
                let to = leaving.to.first().cloned().unwrap_or_default();
                self.unknown(edge(from, &to), from, "an edge leaves it");
            }
            let routed = leaving.routers.iter().flat_map(|r| r.destinations()).map(|d| d.to);
            for to in leaving.to.iter().cloned().chain(routed) {
                if to != END && !self.is_node(&to) {
                    self.unknown(edge(from, &to), &to, &format!("an edge from `{from}` leads to it"));
                }
            }
        }
        for barrier in self.graph.barriers.values().filter(|b| !self.nodes.contains_key(&b.to)) {
            let place = Place::Barrier { from: barrier.from.clone(), to: barrier.to.clone() };
            self.unknown(place, &barrier.to, "a barrier leads to it");
        }
        for (name, entry) in self.nodes {
            let gotos = entry.info.gotos.iter().map(Name::from).map(|to| (to, "goes to it"));
            for (to, why) in gotos.filter(|(to, _)| *to != END && !self.nodes.contains_key(to)).collect::<Vec<_>>() {
                self.unknown(edge(name, &to), &to, &format!("`{name}` {why}"));
            }
            if let Some(by) = entry.policy.on_error.as_ref().filter(|by| by.to != END && !self.is_node(&by.to)) {
                let place = Place::Policy(name.clone(), "on_error");
                self.unknown(place, &by.to, &format!("it handles the failure of `{name}`"));
            }
        }
        let entered = self.graph.leaving.get(START).is_some_and(|l| !l.to.is_empty() || !l.routers.is_empty());
        if !entered {
            let failure = Failure::new("no_entry", format!("graph `{}` has no entry", self.graph.name));
            self.broken(Place::Graph, failure.hint("add an edge from START"));
        }
    }
}
