//! From a file's edges to the graph's: plain, barrier, route, send.

use std::sync::Arc;

use crate::graph::{END, Failure, START, StateGraph};

use super::check::check_cases;
use super::fault::{Faults, Path, under};
use super::route::{Cases, Route, SendEach};
use super::{EdgeSpec, Expression, SendSpec};

/// Adds one edge; what is wrong with it goes to `faults`.
pub(super) fn add(graph: StateGraph, edge: &EdgeSpec, path: &Path, faults: &mut Faults) -> StateGraph {
    let from = edge.from.names();
    let mut wrong = |key: &str, failure| faults.push(under(path, [key]), failure);
    if from.is_empty() {
        wrong("from", bad("an edge comes from nowhere", "name the node, or START"));
        return graph;
    }
    if from.iter().any(|name| name == END) {
        wrong("from", bad("an edge cannot leave END", "remove it"));
        return graph;
    }
    match (&edge.to, &edge.route, &edge.send) {
        (Some(to), None, None) => {
            if to.names().is_empty() {
                wrong("to", bad("an edge leads nowhere", "name a node, or END"));
            }
            if from.len() > 1 && from.iter().any(|name| name == START) {
                wrong("from", bad("START cannot be part of a barrier", "give it an edge of its own"));
                return graph;
            }
            plain_or_barrier(graph, from, to.names())
        }
        (None, Some(cases), None) => match only(from) {
            Ok(from) => routed(graph, from, cases, path, faults),
            Err(failure) => {
                wrong("from", failure);
                graph
            }
        },
        (None, None, Some(send)) => match only(from) {
            Ok(from) => sent(graph, from, send, path, faults),
            Err(failure) => {
                wrong("from", failure);
                graph
            }
        },
        _ => {
            let failure = bad("an edge needs one of `to`, `route`, `send`", "keep one of them");
            faults.push(path.clone(), failure);
            graph
        }
    }
}

fn bad(message: &str, hint: &str) -> Failure {
    Failure::new("bad_edge", message).hint(hint)
}

fn only(from: &[String]) -> Result<&str, Failure> {
    match from {
        [from] => Ok(from),
        _ => Err(bad("only a plain `to` can wait for several nodes", "let the barrier lead to a node that routes")),
    }
}

fn plain_or_barrier(mut graph: StateGraph, from: &[String], to: &[String]) -> StateGraph {
    for to in to {
        graph = match from {
            [one] => graph.edge(one, to),
            // Nothing runs at END, so nothing has to wait for the others there.
            many if to == END => many.iter().fold(graph, |graph, from| graph.edge(from, END)),
            many => graph.barrier(many.iter().cloned(), to),
        };
    }
    graph
}

fn routed(graph: StateGraph, from: &str, cases: &[super::Case], path: &Path, faults: &mut Faults) -> StateGraph {
    let at = under(path, ["route"]);
    check_cases(cases, &at, faults);
    for (index, _) in cases.iter().enumerate().filter(|(_, case)| case.graph.is_some()) {
        let failure = Failure::new("misplaced_key", "`graph` has no meaning in a `route`");
        let hint = "let a node go to another graph: `goto` of an `expr` node";
        faults.push(under(&at, [&index.to_string(), "graph"]), failure.hint(hint));
    }
    if cases.last().is_none_or(|last| last.when.is_some()) {
        let failure = Failure::new("route_open", format!("the route from `{from}` may have nowhere to go"));
        faults.push(at, failure.hint("end it with a case without `when`, such as `- to: END`"));
    }
    match Cases::compile(cases) {
        Ok(cases) => graph.router(from, Arc::new(Route { from: from.to_owned(), cases })),
        // check_cases has told it with its place.
        Err(_) => graph,
    }
}

fn sent(graph: StateGraph, from: &str, send: &SendSpec, path: &Path, faults: &mut Faults) -> StateGraph {
    if send.to == END {
        faults.push(under(path, ["send", "to"]), bad("nothing can be sent to END", "name a node"));
    }
    match Expression::compile(&send.each) {
        Ok(each) => {
            let (from, to, name) = (from.to_owned(), send.to.clone(), send.name.clone());
            graph.router(from.clone(), Arc::new(SendEach { from, to: to.into(), each, name }))
        }
        Err(failure) => {
            faults.push(under(path, ["send", "each"]), failure);
            graph
        }
    }
}
