//! Workflow files: YAML (so also JSON) that describes a graph, and the way from the text to a [`crate::graph::CompiledGraph`].
//!
//! [`load`] reads a file, takes in the subgraphs that lie in files of their own and checks everything that can be checked without
//! knowing the node types; what it returns holds the *resolved document*, which is what a thread keeps. [`build`] makes a graph of such
//! a document, with the node types that a binary has ([`NodeTypes`]). Conditions are CEL and compiled once.

mod ask;
mod build;
mod cel;
mod check;
mod command;
mod commands;
mod convert;
mod deep;
mod duration;
mod edges;
mod expr;
mod fault;
mod handler;
mod http;
mod input;
mod json_schema;
mod load;
mod names;
mod one_or_many;
mod place;
mod registry;
mod retry;
mod route;
mod schema;
mod sleep;
mod strict;
#[cfg(test)]
mod tests;
mod tools;
mod wait;
mod whereabouts;

pub use build::build;
pub use cel::Expression;
pub use duration::TextDuration;
pub use handler::Handler;
pub use input::accept_input;
pub use load::{MAX_BYTES, ReadFile, ResolvedWorkflow, Source, load, no_files};
pub use one_or_many::OneOrMany;
pub use registry::{NodeTypes, Site};
pub use retry::{Retries, RetrySpec};
pub use schema::{CacheSpec, Case, EdgeSpec, InputSpec, NodeSpec, RetentionSpec, SendSpec, WorkflowFile, json_schema};
pub use tools::{Cel, parameter_schema};
