//! What flows through a graph: channels that are not there, hold something else, are never written, or written twice at once.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Body, Channel, ChannelKind, ChannelType, CompiledGraph, Failure, Field, Name, NodeEntry};
use super::reach::{Kind, Paths};
use super::{Exam, FITS, Place, is_untracked, to_here};

impl Exam<'_> {
    pub(super) fn channels(&mut self, paths: &Paths) {
        for (name, channel) in &self.graph.channels {
            if let Some(why) = channel.misfit() {
                let failure = Failure::new("bad_reducer", format!("channel `{name}` {why}")).hint(FITS);
                self.senseless(Place::Channel(name.clone()), failure);
            }
        }
        for name in self.graph.input_channels.iter().flatten() {
            if !self.graph.channels.contains_key(name) {
                self.broken(Place::Channel(name.clone()), no_channel("the input", name, "writes"));
            }
        }
        let blind = blind(paths, self);
        for (node, entry) in self.nodes {
            self.fields(node, entry, !blind.contains(node));
            if let Body::Subgraph(inner) = &entry.body {
                self.shared(node, inner);
            }
        }
        self.never_written(&blind);
        self.never_used();
        self.concurrent_writes();
    }

    /// What a node reads and writes, held against the channels. `sees_channels`: it does not only see what it is sent.
    fn fields(&mut self, node: &Name, entry: &NodeEntry, sees_channels: bool) {
        let place = || Place::Node(node.clone());
        if sees_channels {
            for (name, field) in entry.info.reads.iter().flatten() {
                self.field(place(), node, (name, field), "reads");
            }
        }
        for (name, field) in entry.info.writes.iter().flatten() {
            self.field(place(), node, (name, field), "writes");
        }
        if let Some(channel) = entry.policy.on_error.as_ref().and_then(|by| by.into.as_ref()) {
            let failure = Field { kind: ChannelType::Object, required: true };
            self.field(Place::Policy(node.clone(), "on_error"), node, (channel, &failure), "writes");
        }
        for name in entry.policy.cache.iter().flat_map(|cache| &cache.by) {
            let any = Field { kind: ChannelType::Any, required: true };
            self.field(Place::Policy(node.clone(), "cache"), node, (name, &any), "reads");
        }
    }

    fn field(&mut self, place: Place, node: &str, (name, field): (&str, &Field), does: &str) {
        let Some(channel) = self.graph.channels.get(name) else {
            // A read that is not required may be absent: the graph simply has no such channel.
            if field.required || does == "writes" {
                self.broken(place, no_channel(&format!("`{node}`"), name, does));
            }
            return;
        };
        // One item is as good a write to a topic as a list.
        let item = does == "writes" && matches!(channel.kind, ChannelKind::Topic { .. });
        if !item && !agree(field.kind, held(channel)) {
            let (is, wants) = (held(channel).word(), field.kind.word());
            let message = format!("`{node}` {does} `{name}` as {wants}, but the channel holds {is}");
            self.broken(place, Failure::new("channel_type", message).hint("make the two agree"));
        }
    }

    /// Channels of the same name in a subgraph and around it are one: they must hold the same.
    fn shared(&mut self, node: &Name, inner: &CompiledGraph) {
        for name in to_here(node, inner).flat_map(|commands| &commands.writes) {
            let any = Field { kind: ChannelType::Any, required: false };
            self.field(Place::Node(node.clone()), node, (name, &any), "writes");
        }
        for (name, channel) in &self.graph.channels {
            let Some(inside) = inner.channels.get(name) else { continue };
            let goes_in = inner.input_channels.as_ref().is_none_or(|input| input.contains(name));
            let comes_out = writes_of(inner).is_none_or(|writes| writes.contains(name.as_str()));
            if is_untracked(channel) && !is_untracked(inside) {
                let message = format!("subgraph `{node}` would keep channel `{name}`, which is untracked here");
                let failure = Failure::new("untracked_shared", message);
                let hint = "declare it as untracked there too, or rename one of the two";
                self.broken(Place::Node(node.clone()), failure.hint(hint));
            }
            if (goes_in || comes_out) && !agree(held(inside), held(channel)) {
                let (here, there) = (held(channel).word(), held(inside).word());
                let message =
                    format!("subgraph `{node}` shares channel `{name}`, which holds {here} here and {there} inside");
                let failure = Failure::new("channel_type", message).hint("make the two agree, or rename one of them");
                self.senseless(Place::Node(node.clone()), failure);
            }
        }
    }

    fn never_written(&mut self, blind: &BTreeSet<Name>) {
        let Some(mut written) = self.graph.input_channels.clone() else { return };
        for (node, entry) in self.nodes {
            let Some(writes) = entry_writes(entry) else { return };
            written.extend(writes.into_iter().map(Name::from));
            if let Body::Subgraph(inner) = &entry.body {
                written.extend(to_here(node, inner).flat_map(|commands| &commands.writes).map(Name::from));
            }
        }
        let missing = |name: &str, field: &Field| {
            let has_initial = self.graph.channels.get(name).is_some_and(|c| c.kind.initial().is_some());
            field.required && !has_initial && !written.contains(name)
        };
        let mut found: Vec<(Place, String, String)> = Vec::new();
        for (node, entry) in self.nodes.iter().filter(|(node, _)| !blind.contains(*node)) {
            let reads = entry.info.reads.iter().flatten().filter(|(name, field)| missing(name, field));
            found.extend(reads.map(|(name, _)| (Place::Node(node.clone()), format!("`{node}`"), name.clone())));
        }
        for (from, leaving) in &self.graph.leaving {
            for router in &leaving.routers {
                let reads = router.reads().into_iter().flatten();
                let to = router.destinations().into_iter().next().map(|d| d.to).unwrap_or_default();
                let place = Place::Edge { from: from.clone(), to };
                let who = format!("the edge from `{from}`");
                found.extend(reads.filter(|(n, f)| missing(n, f)).map(|(name, _)| (place.clone(), who.clone(), name)));
            }
        }
        for (place, who, name) in found {
            let failure = Failure::new("never_written", format!("{who} reads channel `{name}`, which nothing writes"))
                .hint(format!("let a node or the input write it, or ask first whether it is there: has(state.{name})"));
            self.senseless(place, failure);
        }
    }

    /// Channels that no node reads or writes. One that a node writes is part of what a run leaves, so somebody may look at it there.
    fn never_used(&mut self) {
        let mut used: BTreeSet<String> = BTreeSet::new();
        for (node, entry) in self.nodes {
            let (Some(reads), Some(writes)) = (entry_reads(entry), entry_writes(entry)) else { return };
            used.extend(reads.into_iter().chain(writes));
            if let Body::Subgraph(inner) = &entry.body {
                used.extend(to_here(node, inner).flat_map(|commands| commands.writes.iter().cloned()));
            }
        }
        for router in self.graph.leaving.values().flat_map(|l| &l.routers) {
            let Some(reads) = router.reads() else { return };
            used.extend(reads.into_keys());
        }
        for name in self.graph.channels.keys().filter(|name| !used.contains(name.as_str())) {
            let given = self.graph.input_channels.as_ref().is_some_and(|input| input.contains(name));
            let message = if given {
                format!("no node reads channel `{name}`, which the input writes")
            } else {
                format!("no node reads or writes channel `{name}`")
            };
            let failure = Failure::new("never_read", message).hint("use it, or remove it");
            self.warn(Place::Channel(name.clone()), failure);
        }
    }

    /// Nodes that a plain fan-out starts in one superstep and that each always write one channel that takes one write.
    fn concurrent_writes(&mut self) {
        let mut told = BTreeSet::new();
        for (from, leaving) in &self.graph.leaving {
            for deferred in [false, true] {
                // Deferred nodes run later than their siblings, but with each other.
                let is_one = |to: &&Name| self.nodes.get(*to).is_some_and(|entry| entry.policy.defer == deferred);
                let together: BTreeSet<&Name> = leaving.to.iter().filter(is_one).collect();
                let mut writer: BTreeMap<&str, &Name> = BTreeMap::new();
                for node in together {
                    for channel in &self.nodes[node].info.always_writes {
                        let plain = self.graph.channels.get(channel.as_str()).is_some_and(|c| c.kind.is_single());
                        let Some(other) = plain.then(|| writer.insert(channel, node)).flatten() else { continue };
                        if told.insert((other, node, channel)) {
                            let message = format!(
                                "`{other}` and `{node}` both write `{channel}` in the superstep after `{from}`"
                            );
                            let failure = Failure::new("invalid_concurrent_update", message)
                                .hint(format!("give `{channel}` a reducer, or let them run one after the other"));
                            self.senseless.push(super::Finding {
                                failure,
                                place: Place::Edge { from: from.clone(), to: node.clone() },
                            });
                        }
                    }
                }
            }
        }
    }
}

/// Nodes that do not see the channels when they run: those that only Sends lead to.
fn blind(paths: &Paths, exam: &Exam<'_>) -> BTreeSet<Name> {
    let waiting: BTreeSet<&Name> = exam.graph.barriers.values().map(|barrier| &barrier.to).collect();
    let only_sent = |node: &Name| {
        let mut leads = paths.to(node).map(|arrow| matches!(arrow.kind, Kind::Sent(_))).peekable();
        leads.peek().is_some() && leads.all(|sent| sent)
    };
    exam.nodes.keys().filter(|node| !waiting.contains(node) && only_sent(node)).cloned().collect()
}

/// Channels that a node may write; `None`: any.
fn entry_writes(entry: &NodeEntry) -> Option<BTreeSet<String>> {
    let mut writes: BTreeSet<String> = match &entry.body {
        Body::Leaf(_) => entry.info.writes.as_ref()?.keys().cloned().collect(),
        Body::Subgraph(inner) => writes_of(inner)?,
    };
    writes.extend(entry.policy.on_error.iter().filter_map(|by| by.into.as_ref()).map(Name::to_string));
    Some(writes)
}

/// What a channel is read as: a topic is a list, whatever its declared type.
fn held(channel: &Channel) -> ChannelType {
    if matches!(channel.kind, ChannelKind::Topic { .. }) { ChannelType::Array } else { channel.value }
}

fn writes_of(graph: &CompiledGraph) -> Option<BTreeSet<String>> {
    let each: Option<Vec<BTreeSet<String>>> = graph.nodes.values().map(entry_writes).collect();
    Some(each?.into_iter().flatten().collect())
}

/// Channels that a node may read; `None`: any.
fn entry_reads(entry: &NodeEntry) -> Option<BTreeSet<String>> {
    let mut reads: BTreeSet<String> = match &entry.body {
        Body::Leaf(_) => entry.info.reads.as_ref()?.keys().cloned().collect(),
        Body::Subgraph(inner) => {
            let nodes: Option<Vec<BTreeSet<String>>> = inner.nodes.values().map(entry_reads).collect();
            let routers = inner.leaving.values().flat_map(|l| &l.routers);
            let routers: Option<Vec<_>> = routers.map(|router| router.reads()).collect();
            nodes?.into_iter().flatten().chain(routers?.into_iter().flat_map(BTreeMap::into_keys)).collect()
        }
    };
    reads.extend(entry.policy.cache.iter().flat_map(|cache| cache.by.iter().cloned()));
    Some(reads)
}

fn no_channel(who: &str, name: &str, does: &str) -> Failure {
    Failure::new("undeclared_channel", format!("{who} {does} channel `{name}`, which is not declared"))
        .hint("declare it, or mend the name")
}

/// Whether a value of one type may be one of the other.
fn agree(one: ChannelType, other: ChannelType) -> bool {
    use ChannelType as T;
    one == other
        || matches!((one, other), (T::Any, _) | (_, T::Any) | (T::Number, T::Integer) | (T::Integer, T::Number))
}
