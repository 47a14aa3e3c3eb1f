//! From files to a resolved document.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::graph::{CompiledGraph, Failure};

use super::build::{Lowering, MAX_NESTING, lower};
use super::deep;
use super::fault::{Fault, Faults, Path, under};
use super::place::{Place, find};
use super::{NodeTypes, WorkflowFile, tools, whereabouts};

/// Largest workflow file: a hundred times what anybody writes by hand.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Most files that one workflow takes in. A file may be taken in twice, so that depth alone would not bound the whole.
const MAX_FILES: usize = 100;

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name: for people, and to know it again.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Reads the file of a subgraph: given the name of the file that asks for it and the path as it is written there.
pub type ReadFile<'a> = &'a dyn Fn(&str, &str) -> Result<Source, Failure>;

/// For workflows whose subgraphs are all inline.
pub fn no_files(_: &str, wanted: &str) -> Result<Source, Failure> {
    Err(Failure::new("no_files", format!("`{wanted}` cannot be read here"))
        .because("this workflow did not come from a directory")
        .hint("put the subgraph inline under `graph`"))
}

/// A workflow with everything that belongs to it.
#[derive(Debug, Clone)]
pub struct ResolvedWorkflow {
    /// Its name.
    pub name: String,
    /// The canonical document, subgraph files inlined: what a thread keeps and [`super::build`] takes.
    pub document: Value,
    file: WorkflowFile,
    sources: Sources,
}

impl ResolvedWorkflow {
    /// Makes the relative paths of its nodes (`cwd`, files of secrets) count from `folder`, wherever it is run.
    pub fn in_folder(mut self, folder: &std::path::Path) -> Result<Self, Failure> {
        settle(&mut self.file, folder);
        self.document = document(&self.file)?;
        Ok(self)
    }

    /// Builds its graph. Errors name file, line and column.
    pub fn build(&self, types: &NodeTypes) -> Result<Arc<CompiledGraph>, Failure> {
        let mut faults = Faults::default();
        let how = Lowering { types: Some(types), kept: false };
        let graph = deep::run(|| lower(&self.file, &self.name, how, &Path::new(), &mut faults))?;
        faults.into_result(&self.name, |fault| self.sources.show(fault))?;
        graph.ok_or_else(|| Failure::new("graph_invalid", format!("workflow `{}` gives no graph", self.name)))
    }
}

impl ResolvedWorkflow {
    /// What is odd in its graph but allowed, subgraphs included, each with file, line and column.
    pub fn warnings(&self, graph: &CompiledGraph) -> Vec<Failure> {
        let mut faults = Faults::default();
        whereabouts::warnings(&self.file, graph, &Path::new(), &mut faults);
        faults.0.into_iter().map(|fault| self.sources.show(fault)).collect()
    }

    /// For those who want no warnings: they are errors.
    pub fn refuse_warnings(&self, graph: &CompiledGraph) -> Result<(), Failure> {
        let mut faults = Faults::default();
        whereabouts::warnings(&self.file, graph, &Path::new(), &mut faults);
        faults.into_result(&self.name, |fault| self.sources.show(fault))
    }
}

/// Reads a workflow, takes in its subgraphs' files and checks everything that does not depend on node types.
pub fn load(text: &str, file_name: &str, read: ReadFile<'_>) -> Result<ResolvedWorkflow, Failure> {
    let mut loading = Loading { read, sources: Sources::default(), open: Vec::new() };
    let source = Source { name: file_name.to_owned(), text: text.to_owned() };
    let file = loading.file(source, Path::new())?;
    let sources = loading.sources;
    let Some(name) = file.name.clone().filter(|name| !name.trim().is_empty()) else {
        let failure = Failure::new("missing_key", "the workflow has no `name`").hint("add `name: …` at its top");
        return Err(sources.show(Fault { path: Path::new(), failure }));
    };
    let mut faults = Faults::default();
    deep::run(|| lower(&file, &name, Lowering { types: None, kept: false }, &Path::new(), &mut faults))?;
    faults.into_result(&name, |fault| sources.show(fault))?;
    Ok(ResolvedWorkflow { name, document: document(&file)?, file, sources })
}

fn document(file: &WorkflowFile) -> Result<Value, Failure> {
    serde_json::to_value(file)
        .map_err(|e| Failure::new("document_not_json", "the workflow cannot be written as JSON").because(e.to_string()))
}

fn settle(file: &mut WorkflowFile, folder: &std::path::Path) {
    for node in file.nodes.values_mut() {
        tools::settle(node, folder);
        if let Some(inner) = &mut node.graph {
            settle(inner, folder);
        }
    }
}

/// How YAML is read: as YAML 1.2, bounded.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // `on`, `yes`, `no` are words here, not booleans.
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            // A subgraph in a subgraph takes three levels.
            max_depth: 4 * MAX_NESTING,
            max_nodes: 100_000,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
    }
}

/// Texts by the path of the document that they fill.
#[derive(Debug, Clone, Default)]
struct Sources(BTreeMap<Path, Source>);

impl Sources {
    /// A fault with its file, line and column, and the line itself.
    fn show(&self, fault: Fault) -> Failure {
        let depth = (0..=fault.path.len()).rev().find(|depth| self.0.contains_key(&fault.path[..*depth]));
        let Some((source, inside)) = depth.and_then(|d| Some((self.0.get(&fault.path[..d])?, &fault.path[d..]))) else {
            return fault.failure;
        };
        placed(fault.failure, source, find(&source.text, inside))
    }
}

fn placed(mut failure: Failure, source: &Source, place: Option<Place>) -> Failure {
    let Some(place) = place else {
        failure.message = format!("{}: {}", source.name, failure.message);
        return failure;
    };
    failure.message = format!("{}:{}:{}: {}", source.name, place.line, place.column, failure.message);
    let excerpt = place.excerpt(&source.text);
    failure.cause = Some(match failure.cause.take() {
        Some(cause) => format!("{excerpt}\n{cause}"),
        None => excerpt,
    });
    failure
}

struct Loading<'a> {
    read: ReadFile<'a>,
    sources: Sources,
    /// Files on the way from the root to here, to find circles.
    open: Vec<String>,
}

impl Loading<'_> {
    fn file(&mut self, source: Source, path: Path) -> Result<WorkflowFile, Failure> {
        let mut file = deep::run(|| parse(&source))??;
        self.open.push(source.name.clone());
        self.sources.0.insert(path.clone(), source);
        self.take_in(&mut file, &path)?;
        self.open.pop();
        Ok(file)
    }

    /// Replaces every `file` by the graph that it names.
    fn take_in(&mut self, file: &mut WorkflowFile, path: &Path) -> Result<(), Failure> {
        for (name, node) in &mut file.nodes {
            let at = under(path, ["nodes", name]);
            let inside = under(&at, ["graph"]);
            match (&mut node.graph, &node.file) {
                (Some(inner), None) => self.take_in(inner, &inside)?,
                (None, Some(wanted)) => {
                    let inner = self.wanted(wanted, inside).map_err(|failure| match failure {
                        Wanted::Unreadable(failure) => self.sources.show(Fault { path: under(&at, ["file"]), failure }),
                        Wanted::Bad(failure) => failure,
                    })?;
                    node.graph = Some(Box::new(inner));
                    node.file = None;
                }
                // None or both: the check tells it with its place.
                _ => {}
            }
        }
        Ok(())
    }

    fn wanted(&mut self, wanted: &str, inside: Path) -> Result<WorkflowFile, Wanted> {
        let from = self.open.last().cloned().unwrap_or_default();
        let source = (self.read)(&from, wanted).map_err(Wanted::Unreadable)?;
        if self.open.contains(&source.name) {
            let circle = self.open.iter().chain([&source.name]).map(String::as_str).collect::<Vec<_>>().join(" -> ");
            let failure = Failure::new("subgraph_circle", format!("`{wanted}` contains itself")).because(circle);
            return Err(Wanted::Unreadable(failure));
        }
        if self.sources.0.len() >= MAX_FILES || self.open.len() > MAX_NESTING {
            let message = format!("more than {MAX_FILES} files, or nested more than {MAX_NESTING} deep");
            return Err(Wanted::Unreadable(Failure::new("too_deep", message)));
        }
        self.file(source, inside).map_err(Wanted::Bad)
    }
}

enum Wanted {
    /// Shown at the place that names the file.
    Unreadable(Failure),
    /// Has its own place already.
    Bad(Failure),
}

fn parse(source: &Source) -> Result<WorkflowFile, Failure> {
    if source.text.len() > MAX_BYTES {
        let message = format!("{}: a workflow file of {} bytes is refused", source.name, source.text.len());
        return Err(Failure::new("workflow_too_large", message).hint(format!("at most {MAX_BYTES} bytes are read")));
    }
    serde_saphyr::from_str_with_options(&source.text, options()).map_err(|error| {
        let plain = error.without_snippet();
        let place = plain.location().and_then(Place::of);
        let formatter = serde_saphyr::UserMessageFormatter;
        let message = plain.render_with_formatter(&formatter);
        placed(Failure::new("bad_workflow", message), source, place)
    })
}
