//! What nodes inside a subgraph do in a graph around it (`goto` with `graph`), held against that graph: there its names are known.

use std::collections::BTreeMap;

use crate::graph::{Channel, END, Failure};

use super::fault::{Faults, Path, under};
use super::route::above;
use super::{NodeSpec, WorkflowFile};

/// A case of a node's `goto` that means a graph further out.
struct Meant<'f> {
    node: &'f NodeSpec,
    /// The node's place.
    at: Path,
    /// The case's number.
    index: usize,
}

/// Checks what the nodes inside `file`'s subgraphs do in `file`'s own graph.
pub(super) fn check(file: &WorkflowFile, channels: &BTreeMap<String, Channel>, path: &Path, faults: &mut Faults) {
    for (name, node) in &file.nodes {
        let Some(inner) = &node.graph else { continue };
        let mut meant = Vec::new();
        find(name, inner, true, &under(path, ["nodes", name, "graph"]), &mut meant);
        for Meant { node, at, index } in meant {
            let case = node.goto.iter().flatten().nth(index);
            for to in case.iter().flat_map(|case| case.to.names()) {
                if to != END && !file.nodes.contains_key(to) {
                    let known: Vec<&str> = file.nodes.keys().map(String::as_str).collect();
                    let message = format!("there is no node `{to}` in the graph in which subgraph `{name}` stands");
                    let failure = Failure::new("unknown_node", message);
                    let hint = format!("add it there, or use one of: {}", known.join(", "));
                    faults.push(under(&at, ["goto", &index.to_string(), "to"]), failure.hint(hint));
                }
            }
            for channel in node.set.iter().flatten().map(|(channel, _)| channel) {
                if !channels.contains_key(channel) {
                    let message =
                        format!("there is no channel `{channel}` in the graph in which subgraph `{name}` stands");
                    let failure = Failure::new("undeclared_channel", message);
                    faults.push(under(&at, ["set", channel]), failure.hint("declare it there, or mend the name"));
                }
            }
        }
    }
}

/// Everything inside subgraph node `name` that means the graph in which it stands.
fn find<'f>(name: &str, inner: &'f WorkflowFile, direct: bool, path: &Path, meant: &mut Vec<Meant<'f>>) {
    for (within, node) in &inner.nodes {
        let at = under(path, ["nodes", within]);
        for (index, case) in node.goto.iter().flatten().enumerate() {
            if case.graph.as_deref().is_some_and(|graph| above(graph).is_around(name, direct)) {
                meant.push(Meant { node, at: at.clone(), index });
            }
        }
        // The closest subgraph node of a name is the one that is meant.
        if let Some(deeper) = node.graph.as_deref().filter(|_| within != name) {
            find(name, deeper, false, &under(&at, ["graph"]), meant);
        }
    }
}
