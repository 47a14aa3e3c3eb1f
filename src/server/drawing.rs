//! Graphs as clients draw them: nodes and edges, subgraphs inside with `xray`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::names::told;
use crate::graph::{Body, CompiledGraph, END, START};

/// Nodes and edges; subgraphs are opened up to `depth` levels deep.
pub(super) fn drawing(graph: &CompiledGraph, depth: usize) -> Value {
    let mut drawn = Drawn::default();
    drawn.node(START, "");
    drawn.level(graph, "", depth, ("__start__", "__end__"));
    drawn.nodes.push(json!({"id": "__end__"}));
    json!({"nodes": drawn.nodes, "edges": drawn.edges})
}

#[derive(Default)]
struct Drawn {
    nodes: Vec<Value>,
    edges: Vec<Value>,
    seen: BTreeSet<(String, String)>,
}

impl Drawn {
    fn node(&mut self, name: &str, prefix: &str) {
        let id = format!("{prefix}{}", told(name));
        self.nodes.push(json!({"id": id, "type": "runnable", "data": {"name": id}}));
    }

    fn edge(&mut self, source: &str, target: &str, label: Option<&str>, conditional: bool) {
        if !self.seen.insert((source.to_owned(), target.to_owned())) {
            return;
        }
        let mut edge = Map::from_iter([("source".to_owned(), json!(source)), ("target".to_owned(), json!(target))]);
        edge.extend(label.map(|label| ("data".to_owned(), json!(label))));
        if conditional {
            edge.insert("conditional".to_owned(), json!(true));
        }
        self.edges.push(Value::Object(edge));
    }

    /// One graph; `ends`: what stands before its first and behind its last node.
    fn level(&mut self, graph: &CompiledGraph, prefix: &str, depth: usize, ends: (&str, &str)) {
        let opened = |name: &str| match graph.nodes().get(name).map(|entry| &entry.body) {
            Some(Body::Subgraph(inner)) if depth > 0 => Some(inner.clone()),
            _ => None,
        };
        for name in graph.nodes().keys() {
            match opened(name) {
                None => self.node(name, prefix),
                Some(inner) => {
                    let own = format!("{prefix}{name}:");
                    self.level(&inner, &own, depth - 1, ("", ""));
                }
            }
        }
        let firsts = |name: &str| ids(graph, name, prefix, ends, depth, true);
        let lasts = |name: &str| ids(graph, name, prefix, ends, depth, false);
        for (from, to, label, conditional) in arrows(graph) {
            for source in lasts(&from) {
                for target in firsts(&to) {
                    // An arrow from or to an end of an opened graph is drawn by the graph around it.
                    if !source.is_empty() && !target.is_empty() {
                        self.edge(&source, &target, label.as_deref(), conditional);
                    }
                }
            }
        }
    }
}

/// What stands for a node in a drawing: itself, or the first or last nodes of the graph inside it.
fn ids(graph: &CompiledGraph, name: &str, prefix: &str, ends: (&str, &str), depth: usize, first: bool) -> Vec<String> {
    match name {
        START => return vec![ends.0.to_owned()],
        END => return vec![ends.1.to_owned()],
        _ => {}
    }
    let Some(Body::Subgraph(inner)) = graph.nodes().get(name).map(|entry| &entry.body).filter(|_| depth > 0) else {
        return vec![format!("{prefix}{name}")];
    };
    let own = format!("{prefix}{name}:");
    let next: Vec<String> = match first {
        true => arrows(inner).into_iter().filter(|(from, ..)| from == START).map(|(_, to, ..)| to).collect(),
        false => arrows(inner).into_iter().filter(|(_, to, ..)| to == END).map(|(from, ..)| from).collect(),
    };
    next.iter().flat_map(|name| ids(inner, name, &own, ("", ""), depth - 1, first)).collect()
}

/// All arrows of a graph: from, to, label, whether it is one of several choices. A node without one leads to the end.
fn arrows(graph: &CompiledGraph) -> Vec<(String, String, Option<String>, bool)> {
    let mut all = Vec::new();
    for name in std::iter::once(START).chain(graph.nodes().keys().map(|name| name.as_str())) {
        let before = all.len();
        let Some(leaving) = graph.leaving(name) else {
            all.push((name.to_owned(), END.to_owned(), None, false));
            continue;
        };
        all.extend(leaving.to.iter().map(|to| (name.to_owned(), to.to_string(), None, false)));
        let barriers = leaving.barriers.iter().filter_map(|id| graph.barriers().get(id));
        all.extend(barriers.map(|barrier| (name.to_owned(), barrier.to.to_string(), None, false)));
        let chosen = leaving.routers.iter().flat_map(|router| router.destinations());
        all.extend(chosen.map(|to| (name.to_owned(), to.to.to_string(), to.label.filter(|l| !l.is_empty()), true)));
        let gotos = graph.nodes().get(name).map(|entry| entry.info.gotos.clone()).unwrap_or_default();
        all.extend(gotos.into_iter().map(|to| (name.to_owned(), to, None, true)));
        if all.len() == before {
            all.push((name.to_owned(), END.to_owned(), None, false));
        }
    }
    all
}
