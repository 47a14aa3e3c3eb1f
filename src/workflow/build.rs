//! From a resolved document to a graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::graph::{CachePolicy, Channel, CompiledGraph, DynNode, Failure, Finding, NodePolicy, StateGraph};

use super::check::check;
use super::deep;
use super::fault::{Faults, Path, under};
use super::registry::{SUBGRAPH, Unknown};
use super::{
    Handler, NodeSpec, NodeTypes, Retries, RetrySpec, Site, TextDuration, WorkflowFile, ask, edges, expr, input,
    strict, whereabouts,
};

/// Deepest nesting of subgraphs; a build goes down once for each.
pub(super) const MAX_NESTING: usize = 16;

/// Builds the graph of a resolved document that a thread kept. It was accepted once: what only makes no sense is no error any more, so that
/// a later version's stricter look at workflows leaves nobody's run behind.
pub fn build(document: &Value, types: &NodeTypes) -> Result<Arc<CompiledGraph>, Failure> {
    let file = deep::run(|| parse(document))??;
    let mut faults = Faults::default();
    let how = Lowering { types: Some(types), kept: true };
    let graph = deep::run(|| lower(&file, "workflow", how, &Path::new(), &mut faults))?;
    faults.into_result(file.name.as_deref().unwrap_or("workflow"), pathed)?;
    graph.ok_or_else(|| Failure::new("graph_invalid", "the workflow gives no graph"))
}

pub(super) fn parse(document: &Value) -> Result<WorkflowFile, Failure> {
    serde_json::from_value(document.clone()).map_err(|error| {
        Failure::new("document_damaged", "a stored workflow document cannot be read").because(error.to_string())
    })
}

/// Without a file at hand the path is the place.
fn pathed(fault: super::fault::Fault) -> Failure {
    let mut failure = fault.failure;
    if !fault.path.is_empty() {
        failure.message = format!("at {}: {}", fault.path.join("."), failure.message);
    }
    failure
}

/// How a file becomes a graph.
#[derive(Clone, Copy)]
pub(super) struct Lowering<'t> {
    /// Without them unknown types are taken as they come, so that the rest can be checked.
    pub types: Option<&'t NodeTypes>,
    /// A thread began with it.
    pub kept: bool,
}

/// Lowers a file and its inline subgraphs.
pub(super) fn lower(
    file: &WorkflowFile,
    name: &str,
    how: Lowering<'_>,
    path: &Path,
    faults: &mut Faults,
) -> Option<Arc<CompiledGraph>> {
    let before = faults.0.len();
    let name = file.name.as_deref().unwrap_or(name);
    let channels = input::channels(file, path, faults);
    check(file, &channels, path, faults);
    if !how.kept {
        strict::check(file, path, faults);
    }
    let mut graph = StateGraph::new(name);
    if let Some(input) = &file.input {
        graph = graph.input(input.properties.keys());
    }
    for (node, spec) in &file.nodes {
        graph = add_node(graph, node, spec, Site { graph: name, node, channels: &channels }, how, path, faults);
    }
    for (index, edge) in file.edges.iter().enumerate() {
        graph = edges::add(graph, edge, &under(path, ["edges", &index.to_string()]), faults);
    }
    graph = graph.interrupt_before(file.interrupt_before.iter()).interrupt_after(file.interrupt_after.iter());
    if let Some(TextDuration(limit)) = file.step_timeout {
        graph = graph.step_timeout(limit);
    }
    graph = channels.into_iter().fold(graph, |graph, (name, channel): (String, Channel)| graph.channel(name, channel));
    if faults.0.len() > before {
        return None;
    }
    match if how.kept { graph.compile_kept() } else { graph.compile() } {
        Ok(graph) => Some(Arc::new(graph)),
        Err(errors) => {
            for Finding { failure, place } in errors.errors {
                faults.push(whereabouts::path_of(file, &place, path), failure);
            }
            None
        }
    }
}

fn add_node(
    graph: StateGraph,
    name: &str,
    spec: &NodeSpec,
    site: Site<'_>,
    how: Lowering<'_>,
    path: &Path,
    faults: &mut Faults,
) -> StateGraph {
    let at = under(path, ["nodes", name]);
    let graph = if spec.kind == SUBGRAPH {
        match subgraph(name, spec, how, &at, faults) {
            Some(inner) => graph.subgraph(name, inner),
            None => return graph,
        }
    } else {
        match leaf(spec, &site, how.types) {
            Ok(node) => graph.dyn_node(name, node),
            Err(failure) => {
                // Faults of the built-in types were told with their exact places by the check.
                let told = faults.0.iter().any(|fault| fault.path.starts_with(&at));
                if !told {
                    let key = if failure.code == "unknown_node_type" { "type" } else { "with" };
                    faults.push(under(&at, [key]), failure);
                }
                return graph;
            }
        }
    };
    let policy = NodePolicy {
        retry: spec.retry.iter().flat_map(Retries::policies).map(RetrySpec::policy).collect(),
        timeout: spec.timeout.map(|TextDuration(limit)| limit),
        commit_point: spec.commit_point,
        interrupt_ttl: spec.ttl.map(|TextDuration(ttl)| ttl),
        idle_timeout: spec.idle_timeout.map(|TextDuration(limit)| limit),
        cache: spec
            .cache
            .as_ref()
            .map(|cache| CachePolicy { ttl: cache.ttl.map(|TextDuration(ttl)| ttl), by: cache.by.clone() }),
        on_error: spec.on_error.as_ref().map(Handler::policy),
        defer: spec.defer,
        persistence: spec.persistence.unwrap_or_default(),
    };
    graph.policy(name, policy)
}

fn subgraph(
    name: &str,
    spec: &NodeSpec,
    how: Lowering<'_>,
    at: &Path,
    faults: &mut Faults,
) -> Option<Arc<CompiledGraph>> {
    // The check has told where there is none.
    let inner = spec.graph.as_deref()?;
    let inside = under(at, ["graph"]);
    // Three keys of the path lead one graph down.
    if inside.len() / 3 > MAX_NESTING {
        let failure = Failure::new("too_deep", format!("subgraphs are nested more than {MAX_NESTING} deep"));
        faults.push(inside, failure.hint("flatten them"));
        return None;
    }
    lower(inner, name, how, &inside, faults)
}

fn leaf(spec: &NodeSpec, site: &Site<'_>, types: Option<&NodeTypes>) -> Result<Arc<dyn DynNode>, Failure> {
    let kind = spec.kind.as_str();
    let with = match kind {
        expr::KIND | ask::KIND => own_keys(spec),
        _ => spec.with.clone().unwrap_or(Value::Null),
    };
    match types {
        Some(types) => types.make(kind, with, site),
        None if kind == expr::KIND || kind == ask::KIND => NodeTypes::generic().make(kind, with, site),
        None => Ok(Arc::new(Unknown(kind.to_owned()))),
    }
}

/// The keys beside `type` that are the parameters of the generic types.
fn own_keys(spec: &NodeSpec) -> Value {
    let mut own = BTreeMap::new();
    own.extend(spec.set.as_ref().map(|set| ("set", json!(set))));
    own.extend(spec.goto.as_ref().map(|goto| ("goto", json!(goto))));
    own.extend(spec.prompt.as_ref().map(|prompt| ("prompt", json!(prompt))));
    own.extend(spec.answer.as_ref().map(|answer| ("answer", answer.clone())));
    own.extend(spec.expired.as_ref().map(|expired| ("expired", json!(expired))));
    own.extend(spec.into.as_ref().map(|into| ("into", json!(into))));
    Value::Object(own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}
