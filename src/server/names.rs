//! The API's names of the ends of a graph.

use crate::graph::{END, START};

/// The engine's name for a node that a client names.
pub(super) fn node(name: &str) -> &str {
    match name {
        "__start__" => START,
        "__end__" => END,
        other => other,
    }
}

/// A client's name for a node.
pub(super) fn told(name: &str) -> &str {
    match name {
        START => "__start__",
        END => "__end__",
        other => other,
    }
}
