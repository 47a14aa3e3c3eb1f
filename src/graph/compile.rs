//! Everything that can be known to be wrong before a graph runs. Topology by petgraph.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use petgraph::visit::Dfs;

use super::builder::StateGraph;
use super::{
    Body, Channel, ChannelKind, ChannelType, Commands, CompiledGraph, END, Failure, Field, Name, NodeEntry, NodeInfo,
    Persistence, START,
};

/// All errors of a graph at once, each with its mend.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileErrors {
    /// The graph's name.
    pub graph: String,
    /// At least one.
    pub errors: Vec<Failure>,
}

impl std::fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "graph `{}` has {} error(s)", self.graph, self.errors.len())?;
        for error in &self.errors {
            write!(f, "\n  {}: {}", error.code, error.message)?;
            if let Some(hint) = &error.hint {
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
        let code = self.errors.first().map_or("graph_invalid", |e| e.code.as_str());
        let mut failure = Failure::new(code, format!("graph `{}` is refused", self.graph)).because(self.to_string());
        failure.hint = self.errors.first().and_then(|e| e.hint.clone());
        failure
    }
}

pub(super) fn compile(graph: StateGraph) -> Result<CompiledGraph, CompileErrors> {
    let nodes: BTreeMap<Name, NodeEntry> =
        graph.nodes.iter().map(|(name, (body, policy))| (name.clone(), entry(name, body, policy))).collect();
    let mut errors = Vec::new();
    names(&graph, &mut errors);
    endpoints(&graph, &nodes, &mut errors);
    let arrows = arrows(&graph, &nodes);
    if errors.is_empty() {
        endless_cycles(&nodes, &arrows, &mut errors);
        channels(&graph, &nodes, &mut errors);
        concurrent_writes(&graph, &nodes, &mut errors);
    }
    if !errors.is_empty() {
        return Err(CompileErrors { graph: graph.name, errors });
    }
    let warnings = warnings(&graph, &nodes, &arrows);
    let untracked = |(name, channel): (&Name, &Channel)| is_untracked(channel).then(|| name.clone());
    Ok(CompiledGraph {
        step_timeout: graph.step_timeout,
        commands: nodes.values().flat_map(|entry| &entry.info.commands).cloned().collect(),
        untracked: graph.channels.iter().filter_map(untracked).collect(),
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

fn entry(name: &str, body: &Body, policy: &super::NodePolicy) -> NodeEntry {
    let info = match body {
        Body::Leaf(node) => node.info(),
        Body::Subgraph(inner) => subgraph_info(name, inner),
    };
    NodeEntry { body: body.clone(), policy: policy.clone(), info }
}

/// A subgraph writes what its nodes write and reads what they read, as far as the parent has channels of these names.
fn subgraph_info(name: &str, inner: &CompiledGraph) -> NodeInfo {
    let gotos: BTreeSet<String> = to_here(name, inner).flat_map(|commands| &commands.gotos).cloned().collect();
    // Those that mean a graph further out.
    let commands = inner.commands.iter().filter(|commands| !commands.graph.is_around(name, true)).cloned().collect();
    let gotos = gotos.into_iter().collect();
    NodeInfo { kind: "subgraph".into(), version: 1, gotos, commands, ..NodeInfo::default() }
        .with_parameters(inner.describe())
}

/// The commands that nodes inside a subgraph node give to the graph in which it stands.
fn to_here<'c>(name: &str, inner: &'c CompiledGraph) -> impl Iterator<Item = &'c Commands> {
    inner.commands.iter().filter(move |commands| commands.graph.is_around(name, true))
}

impl NodeInfo {
    fn with_parameters(mut self, parameters: serde_json::Value) -> Self {
        self.parameters = parameters;
        self
    }
}

fn names(graph: &StateGraph, errors: &mut Vec<Failure>) {
    if graph.step_timeout.is_some_and(|limit| limit.is_zero()) {
        let failure = Failure::new("bad_step_timeout", format!("graph `{}` gives a superstep no time", graph.name));
        errors.push(failure.hint("give it some, or leave `step_timeout` out"));
    }
    for what in &graph.duplicates {
        errors.push(Failure::new("duplicate", format!("{what} is declared twice")).hint("rename one of them"));
    }
    for name in &graph.policies_of_nobody {
        errors.push(Failure::new("unknown_node", format!("there is no node `{name}` to set a policy for")));
    }
    for name in graph.nodes.keys() {
        let bad = name.is_empty() || name.contains(['|', ':', '#', '[', '/']) || name.starts_with("__");
        if bad || name == START || name == END {
            let failure = Failure::new("reserved_name", format!("a node cannot be called `{name}`"));
            errors.push(failure.hint("use letters, digits, `_`, `-`, `.`; START and END are the graph's own ends"));
        }
    }
    for (name, (body, policy)) in &graph.nodes {
        let why = match (body, policy.persistence) {
            (_, Persistence::Invocation) | (Body::Subgraph(_), Persistence::Thread) => continue,
            (Body::Leaf(_), _) => "it is no subgraph",
            (Body::Subgraph(inner), Persistence::Off) if stops(inner) => "a run stops before or behind nodes inside it",
            (Body::Subgraph(_), Persistence::Off) => continue,
        };
        let failure = Failure::new("bad_persistence", format!("`{name}` cannot have this `persistence`"));
        errors.push(failure.because(why).hint("leave it out"));
    }
    for node in graph.interrupt_before.iter().chain(&graph.interrupt_after) {
        if !graph.nodes.contains_key(node) {
            errors.push(unknown(node, "an interrupt names it", graph));
        }
    }
}

/// Whether a run may stop at a place inside that only a checkpoint can tell.
fn stops(graph: &CompiledGraph) -> bool {
    let inside = |entry: &NodeEntry| matches!(&entry.body, Body::Subgraph(inner) if stops(inner));
    !graph.interrupt_before.is_empty() || !graph.interrupt_after.is_empty() || graph.nodes.values().any(inside)
}

fn unknown(node: &str, why: &str, graph: &StateGraph) -> Failure {
    let known: Vec<&str> = graph.nodes.keys().map(Name::as_str).collect();
    Failure::new("unknown_node", format!("there is no node `{node}` ({why})"))
        .hint(format!("add it, or use one of: {}", known.join(", ")))
}

fn endpoints(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>, errors: &mut Vec<Failure>) {
    let exists = |name: &str| name == END || nodes.contains_key(name);
    for (from, leaving) in &graph.leaving {
        if from != START && !nodes.contains_key(from) {
            errors.push(unknown(from, "an edge leaves it", graph));
        }
        let routed = leaving.routers.iter().flat_map(|r| r.destinations()).map(|d| d.to);
        for to in leaving.to.iter().cloned().chain(routed) {
            if !exists(&to) {
                errors.push(unknown(&to, &format!("an edge from `{from}` leads to it"), graph));
            }
        }
    }
    for barrier in graph.barriers.values().filter(|b| !nodes.contains_key(&b.to)) {
        errors.push(unknown(&barrier.to, "a barrier leads to it", graph));
    }
    for (name, entry) in nodes {
        for to in entry.info.gotos.iter().filter(|to| !exists(to)) {
            errors.push(unknown(to, &format!("`{name}` goes to it"), graph));
        }
        for by in entry.policy.on_error.iter().filter(|by| !exists(&by.to)) {
            errors.push(unknown(&by.to, &format!("it handles the failure of `{name}`"), graph));
        }
    }
    let entered = graph.leaving.get(START).is_some_and(|l| !l.to.is_empty() || !l.routers.is_empty());
    if !entered {
        let failure = Failure::new("no_entry", format!("graph `{}` has no entry", graph.name));
        errors.push(failure.hint("add an edge from START"));
    }
}

type Arrows = BTreeSet<(Name, Name)>;

fn arrows(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>) -> Arrows {
    let mut arrows = Arrows::new();
    for (from, leaving) in &graph.leaving {
        let routed = leaving.routers.iter().flat_map(|r| r.destinations()).map(|d| d.to);
        arrows.extend(leaving.to.iter().cloned().chain(routed).map(|to| (from.clone(), to)));
        let barriers = leaving.barriers.iter().filter_map(|id| graph.barriers.get(id));
        arrows.extend(barriers.map(|b| (from.clone(), b.to.clone())));
    }
    for (name, entry) in nodes {
        arrows.extend(entry.info.gotos.iter().map(|to| (name.clone(), to.into())));
        arrows.extend(entry.policy.on_error.iter().map(|by| (name.clone(), by.to.clone())));
    }
    arrows
}

fn map(arrows: &Arrows) -> DiGraphMap<&str, ()> {
    DiGraphMap::from_edges(arrows.iter().map(|(a, b)| (a.as_str(), b.as_str())))
}

/// A strongly connected part that nothing leaves and that has no leaf: it can only run for ever.
fn endless_cycles(nodes: &BTreeMap<Name, NodeEntry>, arrows: &Arrows, errors: &mut Vec<Failure>) {
    let map = map(arrows);
    for part in tarjan_scc(&map) {
        let inside: BTreeSet<&str> = part.iter().copied().collect();
        let is_cycle = part.len() > 1 || map.contains_edge(part[0], part[0]);
        let left = part.iter().any(|n| map.neighbors(n).any(|to| !inside.contains(to)));
        if is_cycle && !left && part.iter().all(|n| nodes.contains_key(*n)) {
            let names: Vec<&str> = inside.into_iter().collect();
            errors.push(
                Failure::new("endless_cycle", format!("the cycle {} cannot be left", names.join(", ")))
                    .hint("add a conditional edge out of it, or to END"),
            );
        }
    }
}

fn channels(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>, errors: &mut Vec<Failure>) {
    let open = graph.input_channels.is_none() || nodes.values().any(|n| n.info.writes.is_none());
    let mut written: BTreeSet<&str> = graph.input_channels.iter().flatten().map(Name::as_str).collect();
    written.extend(nodes.values().flat_map(|n| n.info.writes.iter().flatten()).map(|(name, _)| name.as_str()));
    written.extend(nodes.values().filter_map(|n| n.policy.on_error.as_ref()?.into.as_deref()));
    for (name, channel) in &graph.channels {
        if let Some(why) = channel.misfit() {
            errors.push(Failure::new("bad_reducer", format!("channel `{name}` {why}")).hint(FITS));
        }
    }
    for (node, entry) in nodes {
        let Body::Subgraph(inner) = &entry.body else { continue };
        for name in to_here(node, inner).flat_map(|commands| &commands.writes) {
            let any = Field { kind: ChannelType::Any, required: false };
            check_field(&graph.channels, node, name, &any, "writes", errors);
        }
        for name in graph.channels.iter().filter(|(_, c)| is_untracked(c)).map(|(name, _)| name) {
            if inner.channels.get(name).is_some_and(|c| !is_untracked(c)) {
                let message = format!("subgraph `{node}` would keep channel `{name}`, which is untracked here");
                let hint = "declare it as untracked there too, or rename one of the two";
                errors.push(Failure::new("untracked_shared", message).hint(hint));
            }
        }
    }
    for name in graph.input_channels.iter().flatten().filter(|name| !graph.channels.contains_key(*name)) {
        errors.push(no_channel("the input", name, "writes"));
    }
    for (node, entry) in nodes {
        for (name, field) in entry.info.reads.iter().flatten() {
            check_field(&graph.channels, node, name, field, "reads", errors);
            let has_initial = graph.channels.get(name.as_str()).is_some_and(|c| c.kind.initial().is_some());
            if field.required && !open && !has_initial && !written.contains(name.as_str()) {
                errors.push(
                    Failure::new("never_written", format!("`{node}` reads channel `{name}`, which nothing writes"))
                        .hint("let a node or the input write it, or make the field optional"),
                );
            }
        }
        for (name, field) in entry.info.writes.iter().flatten() {
            check_field(&graph.channels, node, name, field, "writes", errors);
        }
        if let Some(channel) = entry.policy.on_error.as_ref().and_then(|by| by.into.as_ref()) {
            let failure = Field { kind: ChannelType::Object, required: true };
            check_field(&graph.channels, node, channel, &failure, "writes", errors);
        }
        for name in entry.policy.cache.iter().flat_map(|cache| &cache.by) {
            let any = Field { kind: ChannelType::Any, required: true };
            check_field(&graph.channels, node, name, &any, "reads", errors);
        }
    }
}

fn is_untracked(channel: &Channel) -> bool {
    matches!(channel.kind, ChannelKind::Untracked { .. })
}

/// Which types fit which kinds of channel.
pub const FITS: &str =
    "add, max, min fold numbers; append, union fold arrays; merge folds objects; a topic is an array";

fn no_channel(who: &str, name: &str, does: &str) -> Failure {
    Failure::new("undeclared_channel", format!("{who} {does} channel `{name}`, which is not declared"))
        .hint("declare it, or mend the name")
}

fn check_field(
    channels: &BTreeMap<Name, Channel>,
    node: &str,
    name: &str,
    field: &Field,
    does: &str,
    errors: &mut Vec<Failure>,
) {
    let Some(channel) = channels.get(name) else {
        // A read that is not required may be absent: the graph simply has no such channel.
        if field.required || does == "writes" {
            errors.push(no_channel(&format!("`{node}`"), name, does));
        }
        return;
    };
    // A topic is read as a list, whatever its declared type; one item is as good a write as a list.
    let topic = matches!(channel.kind, ChannelKind::Topic { .. });
    let value = if topic { ChannelType::Array } else { channel.value };
    let agree = field.kind == value
        || (topic && does == "writes")
        || field.kind == ChannelType::Any
        || value == ChannelType::Any
        || (field.kind == ChannelType::Number) == (value == ChannelType::Integer)
            && matches!(field.kind, ChannelType::Number | ChannelType::Integer)
            && matches!(value, ChannelType::Number | ChannelType::Integer);
    if !agree {
        let (is, wants) = (value.word(), field.kind.word());
        errors.push(
            Failure::new("channel_type", format!("`{node}` {does} `{name}` as {wants}, but the channel holds {is}"))
                .hint("make the two agree"),
        );
    }
}

/// Nodes that a plain fan-out starts in one superstep and that each always write one channel that takes one.
fn concurrent_writes(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>, errors: &mut Vec<Failure>) {
    let mut told = BTreeSet::new();
    for (from, leaving) in &graph.leaving {
        let together: BTreeSet<&Name> = leaving.to.iter().filter(|to| nodes.contains_key(*to)).collect();
        let mut writer: BTreeMap<&str, &str> = BTreeMap::new();
        for node in together {
            for channel in &nodes[node].info.always_writes {
                let plain = graph.channels.get(channel.as_str()).is_some_and(|c| c.kind.is_single());
                let Some(other) = plain.then(|| writer.insert(channel, node)).flatten() else { continue };
                if told.insert((other, node.as_str(), channel)) {
                    errors.push(
                        Failure::new(
                            "invalid_concurrent_update",
                            format!("`{other}` and `{node}` both write `{channel}` in the superstep after `{from}`"),
                        )
                        .hint(format!("give `{channel}` a reducer, or let them run one after the other")),
                    );
                }
            }
        }
    }
}

fn warnings(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>, arrows: &Arrows) -> Vec<Failure> {
    let mut warnings = Vec::new();
    let mut map = map(arrows);
    map.add_node(START);
    let mut reached = BTreeSet::new();
    let mut dfs = Dfs::new(&map, START);
    while let Some(node) = dfs.next(&map) {
        reached.insert(node.to_owned());
    }
    for node in nodes.keys().filter(|node| !reached.contains(node.as_str())) {
        warnings.push(
            Failure::new("unreachable_node", format!("nothing leads to node `{node}`"))
                .hint("add an edge to it, or remove it"),
        );
    }
    // Routers and untyped nodes may read anything, so silence is only broken where every reader is known.
    let all_known =
        nodes.values().all(|n| n.info.reads.is_some()) && graph.leaving.values().all(|l| l.routers.is_empty());
    let read: BTreeSet<&str> =
        nodes.values().flat_map(|n| n.info.reads.iter().flatten()).map(|(k, _)| k.as_str()).collect();
    if all_known {
        for name in graph.channels.keys().filter(|name| !read.contains(name.as_str())) {
            warnings.push(Failure::new("never_read", format!("no node reads channel `{name}`")));
        }
    }
    warnings
}
