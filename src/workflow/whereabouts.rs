//! Where in a file the places of a graph stand: `compile()` knows nodes and edges, people look for lines.

use crate::graph::{Body, CompiledGraph, Finding, Name, Place};

use super::fault::{Faults, Path, under};
use super::{Case, OneOrMany, WorkflowFile};

/// The path of a graph's place in its file's document, as exact as there is one.
pub(super) fn path_of(file: &WorkflowFile, place: &Place, path: &Path) -> Path {
    let inside: Vec<String> = match place {
        Place::Graph => Vec::new(),
        Place::Node(name) => vec!["nodes".into(), name.to_string()],
        Place::Policy(name, key) => vec!["nodes".into(), name.to_string(), (*key).to_owned()],
        Place::Channel(name) if file.channels.contains_key(name.as_str()) => vec!["channels".into(), name.to_string()],
        Place::Channel(name) => vec!["input".into(), "properties".into(), name.to_string()],
        Place::Edge { from, to } => edge(file, from, to).unwrap_or_default(),
        Place::Barrier { from, to } => barrier(file, |name| from.contains(name), from.len(), to).unwrap_or_default(),
        Place::Interrupt(name) => interrupt(file, name).unwrap_or_default(),
    };
    path.iter().cloned().chain(inside).collect()
}

/// A graph's warnings and those of its subgraphs, each with its path.
pub(super) fn warnings(file: &WorkflowFile, graph: &CompiledGraph, path: &Path, faults: &mut Faults) {
    for Finding { failure, place } in graph.warnings() {
        faults.push(path_of(file, place, path), failure.clone());
    }
    for (name, entry) in graph.nodes() {
        let inner = file.nodes.get(name.as_str()).and_then(|spec| spec.graph.as_deref());
        if let (Body::Subgraph(graph), Some(inner)) = (&entry.body, inner) {
            warnings(inner, graph, &under(path, ["nodes", name, "graph"]), faults);
        }
    }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// The key of one of several names.
fn named(names: &OneOrMany, name: &str) -> Option<usize> {
    names.names().iter().position(|n| n == name)
}

fn edge(file: &WorkflowFile, from: &Name, to: &Name) -> Option<Vec<String>> {
    for (index, edge) in file.edges.iter().enumerate() {
        if edge.from.names().len() > 1 || named(&edge.from, from).is_none() {
            continue;
        }
        let index = index.to_string();
        if let Some(which) = edge.to.as_ref().and_then(|names| named(names, to)) {
            return Some(keys(&["edges", &index, "to", &which.to_string()]));
        }
        if edge.send.as_ref().is_some_and(|send| *to == send.to) {
            return Some(keys(&["edges", &index, "send", "to"]));
        }
        if let Some(case) = case(edge.route.as_deref().unwrap_or_default(), to) {
            return Some(keys(&["edges", &index, "route", &case.to_string(), "to"]));
        }
    }
    let node = file.nodes.get(from.as_str())?;
    if let Some(case) = case(node.goto.as_deref().unwrap_or_default(), to) {
        return Some(keys(&["nodes", from, "goto", &case.to_string(), "to"]));
    }
    Some(keys(&["nodes", from]))
}

fn case(cases: &[Case], to: &Name) -> Option<usize> {
    cases.iter().position(|case| named(&case.to, to).is_some())
}

fn barrier(file: &WorkflowFile, waits_for: impl Fn(&str) -> bool, sources: usize, to: &Name) -> Option<Vec<String>> {
    let same = |edge: &super::EdgeSpec| {
        let from = edge.from.names();
        from.len() >= sources
            && from.iter().all(|name| waits_for(name))
            && edge.to.as_ref().is_some_and(|n| named(n, to).is_some())
    };
    let index = file.edges.iter().position(same)?;
    Some(keys(&["edges", &index.to_string(), "from"]))
}

fn interrupt(file: &WorkflowFile, name: &Name) -> Option<Vec<String>> {
    for (key, names) in [("interrupt_before", &file.interrupt_before), ("interrupt_after", &file.interrupt_after)] {
        if let Some(index) = names.iter().position(|n| n == name.as_str()) {
            return Some(keys(&[key, &index.to_string()]));
        }
    }
    None
}
