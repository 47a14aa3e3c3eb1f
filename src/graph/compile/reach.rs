//! Where a graph leads: nodes that nothing leads to, barriers that cannot be filled, cycles that cannot be left.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use super::super::builder::StateGraph;
use super::super::{END, Failure, Name, NodeEntry, START};
use super::{Exam, Place};

/// How an arrow leads on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Always.
    Plain,
    /// A router or a goto may choose it.
    Chosen,
    /// By Sends, with these keys.
    Sent(Option<Vec<Name>>),
    /// When the node has failed.
    Failed,
}

/// An arrow of the graph; barriers are apart.
#[derive(Debug, Clone)]
pub(super) struct Arrow {
    pub from: Name,
    pub to: Name,
    pub kind: Kind,
}

/// All arrows, and where they lead.
pub(super) struct Paths {
    pub arrows: Vec<Arrow>,
    /// Nodes that can run, as far as everything is declared. A barrier's target only can when all its sources can.
    pub reached: BTreeSet<Name>,
    /// Something that can run may go to nodes that it does not name.
    pub open: bool,
    /// Which of the arrows lead to a node.
    leading: BTreeMap<Name, Vec<usize>>,
}

impl Paths {
    pub fn of(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>) -> Self {
        let arrows = arrows(graph, nodes);
        let reached = reached(graph, &arrows);
        let open = nodes.iter().any(|(name, entry)| entry.info.any_goto && reached.contains(name));
        let mut leading: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
        for (n, arrow) in arrows.iter().enumerate() {
            leading.entry(arrow.to.clone()).or_default().push(n);
        }
        Self { arrows, reached, open, leading }
    }

    /// Whether a node certainly never runs.
    pub fn never_runs(&self, node: &str) -> bool {
        !self.open && !self.reached.contains(node)
    }

    /// Arrows that lead to a node.
    pub fn to(&self, node: &str) -> impl Iterator<Item = &Arrow> {
        self.leading.get(node).into_iter().flatten().map(|n| &self.arrows[*n])
    }
}

/// Nodes that something leads to from the start: each arrow and each barrier is followed once.
fn reached(graph: &StateGraph, arrows: &[Arrow]) -> BTreeSet<Name> {
    let mut leaving: BTreeMap<&str, Vec<&Name>> = BTreeMap::new();
    for arrow in arrows {
        leaving.entry(&arrow.from).or_default().push(&arrow.to);
    }
    let mut waits: Vec<_> = graph.barriers.values().map(|barrier| (barrier.from.len(), &barrier.to)).collect();
    let mut barriers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, barrier) in graph.barriers.values().enumerate() {
        barrier.from.iter().for_each(|from| barriers.entry(from).or_default().push(n));
    }
    let start = Name::from(START);
    let mut due = vec![&start];
    let mut reached = BTreeSet::new();
    while let Some(node) = due.pop() {
        if !reached.insert(node.clone()) {
            continue;
        }
        due.extend(leaving.get(node.as_str()).into_iter().flatten());
        for n in barriers.get(node.as_str()).into_iter().flatten() {
            let (missing, to) = &mut waits[*n];
            *missing -= 1;
            if *missing == 0 {
                due.push(to);
            }
        }
    }
    reached
}

fn arrows(graph: &StateGraph, nodes: &BTreeMap<Name, NodeEntry>) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (from, leaving) in &graph.leaving {
        let arrow = |to: Name, kind| Arrow { from: from.clone(), to, kind };
        arrows.extend(leaving.to.iter().map(|to| arrow(to.clone(), Kind::Plain)));
        for destination in leaving.routers.iter().flat_map(|r| r.destinations()) {
            let kind = if destination.send { Kind::Sent(destination.keys) } else { Kind::Chosen };
            arrows.push(arrow(destination.to, kind));
        }
    }
    for (name, entry) in nodes {
        let arrow = |to: Name, kind| Arrow { from: name.clone(), to, kind };
        arrows.extend(entry.info.gotos.iter().map(|to| arrow(to.into(), Kind::Chosen)));
        arrows.extend(entry.policy.on_error.iter().map(|by| arrow(by.to.clone(), Kind::Failed)));
    }
    arrows
}

impl Exam<'_> {
    pub(super) fn reach(&mut self, paths: &Paths) {
        self.barriers(paths);
        self.cycles(paths);
        for (name, entry) in self.nodes.iter().filter(|(name, _)| !paths.reached.contains(*name)) {
            let place = Place::Node(name.clone());
            if entry.policy.defer && !paths.open {
                let failure = Failure::new("never_due", format!("nothing leads to the deferred node `{name}`"));
                self.senseless(place, failure.hint("`defer` says when it runs, an edge says that it does: add one"));
            } else {
                let failure = Failure::new("unreachable_node", format!("nothing leads to node `{name}`"));
                self.warn(place, failure.hint("add an edge to it, or remove it"));
            }
        }
    }

    fn barriers(&mut self, paths: &Paths) {
        for barrier in self.graph.barriers.values() {
            let missing: Vec<String> =
                barrier.from.iter().filter(|from| paths.never_runs(from)).map(|from| format!("`{from}`")).collect();
            if missing.is_empty() {
                continue;
            }
            let message = format!(
                "the barrier before `{}` cannot be filled: nothing leads to {}",
                barrier.to,
                missing.join(", ")
            );
            let hint = if missing.iter().any(|m| *m == format!("`{}`", barrier.to)) {
                "a node cannot wait for itself: take it out of the list".to_owned()
            } else {
                format!("add an edge to {}, or take it out of the list", missing.join(" and "))
            };
            let place = Place::Barrier { from: barrier.from.clone(), to: barrier.to.clone() };
            self.senseless(place, Failure::new("barrier_unfillable", message).hint(hint));
        }
    }

    fn cycles(&mut self, paths: &Paths) {
        let mut told: Vec<BTreeSet<&str>> = Vec::new();
        // Plain edges are followed whatever else happens, unless the node fails and something handles that, or it leaves the graph.
        let handled = |name: &Name| {
            let leaves = |entry: &NodeEntry| entry.policy.on_error.is_some() || !entry.info.commands.is_empty();
            self.nodes.get(name).is_some_and(leaves)
        };
        let plain = paths.arrows.iter().filter(|a| a.kind == Kind::Plain && a.to != END && a.from != START);
        let plain = plain.filter(|a| paths.reached.contains(&a.from) && !handled(&a.from));
        told.extend(circles(&DiGraphMap::from_edges(plain.map(|a| (a.from.as_str(), a.to.as_str())))));
        // Others can be left where an arrow leads out of them, or where a router may choose nothing.
        let barriers = self.graph.barriers.values();
        let barriers = barriers.flat_map(|b| b.from.iter().map(|from| (from.as_str(), b.to.as_str())));
        let all = paths.arrows.iter().map(|a| (a.from.as_str(), a.to.as_str())).chain(barriers);
        let map = DiGraphMap::from_edges(all);
        for circle in circles(&map) {
            let left = circle.iter().any(|n| map.neighbors(n).any(|to| !circle.contains(to)));
            let known = told.iter().any(|before| before.is_subset(&circle));
            if !left && !known && circle.iter().all(|node| self.leads_on(node)) {
                told.push(circle);
            }
        }
        for circle in told {
            let names: Vec<&str> = circle.iter().copied().collect();
            let message = match names.as_slice() {
                [one] => format!("`{one}` leads to itself, always"),
                _ => format!("the cycle {} cannot be left", names.join(", ")),
            };
            let inside = paths.arrows.iter().find(|a| circle.contains(&*a.from) && circle.contains(&*a.to));
            let place = inside.map_or(Place::Graph, |a| Place::Edge { from: a.from.clone(), to: a.to.clone() });
            let hint = "let a conditional edge (`route`) decide whether it goes on; a plain edge is always followed";
            self.senseless(place, Failure::new("endless_cycle", message).hint(hint));
        }
    }

    /// Whether something is due for certain when this node has ended well.
    fn leads_on(&self, node: &str) -> bool {
        if self.nodes.get(node).is_some_and(|entry| !entry.info.commands.is_empty()) {
            return false;
        }
        let goes = self.nodes.get(node).is_some_and(|entry| entry.info.always_goes);
        let leaving = self.graph.leaving.get(node);
        goes || leaving.is_some_and(|l| !l.to.is_empty() || l.routers.iter().any(|router| !router.may_stop()))
    }
}

/// Strongly connected parts that are cycles.
fn circles<'m>(map: &DiGraphMap<&'m str, ()>) -> Vec<BTreeSet<&'m str>> {
    let parts = tarjan_scc(map).into_iter();
    let circles = parts.filter(|part| part.len() > 1 || map.contains_edge(part[0], part[0]));
    circles.map(|part| part.into_iter().collect()).collect()
}
