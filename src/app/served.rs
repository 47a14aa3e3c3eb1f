//! What the server offers of a home: its graphs by name, and how their threads begin.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::request::request_of;
use super::stops::{Listening, needs_host};
use super::workflows::{MODEL_DEPLOYER, ROLLBACK};
use super::{App, Overrides, Start};
use crate::graph::{Advance, Born, CompiledGraph, Failure, Record, RunEnd, Thread, ThreadId};
use crate::nodes::RollbackRequest;
use crate::release::{DeployRequest, ModelName};
pub use crate::store::{
    Accepted, AskedCancel, AssistantFilter, AssistantText, Mark, NewRun, NewRunWebhook, Place, RunBody, RunEnded,
    RunRestsOn, RunStatus, ServedAssistant, ServedRun, ServedStatus, ServedThread, SortKey, Spoken, ThreadSearch, Went,
    run_stopped,
};
use crate::workflow::ResolvedWorkflow;

/// A graph that the server offers.
pub struct Entry {
    workflow: ResolvedWorkflow,
    built_in: bool,
    /// The graph.
    pub graph: Arc<CompiledGraph>,
}

impl Entry {
    /// The workflow's document.
    pub fn document(&self) -> &Value {
        &self.workflow.document
    }
}

/// The graphs that the server offers, by name.
pub struct Catalogue(BTreeMap<String, Entry>);

impl Catalogue {
    /// A release, a rollback, and every `NAME.yaml` in `folder` that has a name. The strategies are parts of a release: by themselves
    /// they would move traffic without its checks and its approval.
    pub fn of(app: &App, folder: Option<&Path>) -> Result<Self, Failure> {
        let mut all = BTreeMap::new();
        for name in [MODEL_DEPLOYER, ROLLBACK] {
            let workflow = app.workflow(name)?;
            let graph = app.build(&workflow)?;
            all.insert(name.to_owned(), Entry { workflow, built_in: true, graph });
        }
        for path in folder.map_or_else(|| Ok(Vec::new()), files)? {
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else { continue };
            let workflow = match app.workflow(&path.to_string_lossy()) {
                Ok(workflow) => workflow,
                // Without a name it is a subgraph's file.
                Err(failure) if failure.code == "missing_key" => continue,
                Err(failure) => return Err(failure),
            };
            if all.contains_key(&name) || workflow.name != name {
                let message = format!("{} is not offered as `{name}`", path.display());
                return Err(Failure::new("workflow_name", message)
                    .because(format!(
                        "it calls itself `{}`; {MODEL_DEPLOYER} and {ROLLBACK} are the home's own",
                        workflow.name
                    ))
                    .hint("a file is offered by its name: let `name:` and the file's name be the same"));
            }
            if let Some(kind) = release_node(&workflow.document) {
                let message = format!("{} is not offered: it has a node of type {kind}", path.display());
                return Err(Failure::new("workflow_name", message)
                    .because("only the home's own graphs release and roll back: with their checks, their approval and their record")
                    .hint("let it run the graph model_deployer through the API, or start it in the terminal"));
            }
            let graph = app.build(&workflow)?;
            all.insert(name, Entry { workflow, built_in: false, graph });
        }
        Ok(Self(all))
    }

    /// The graph of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.0.get(name)
    }

    /// Whether it is the binary's own.
    pub fn is_built_in(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|entry| entry.built_in)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Node types that change what serves, or say that somebody has approved it.
const RELEASE_NODES: [&str; 16] = [
    "deployment_planner",
    "packager",
    "deployment_executor",
    "validation",
    "approval_gate",
    "work_gate",
    "traffic_shift",
    "finalise",
    "retire",
    "rollback",
    "make_room",
    "canary",
    "ab_test",
    "shadow",
    "rolling",
    "watch",
];

/// A node of a release in a document, or in a graph inside it.
fn release_node(document: &Value) -> Option<String> {
    let nodes = document.get("nodes")?.as_object()?;
    nodes.values().find_map(|node| {
        let kind = node.get("type").and_then(Value::as_str).filter(|kind| RELEASE_NODES.contains(kind));
        kind.map(str::to_owned).or_else(|| node.get("graph").and_then(release_node))
    })
}

fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>, Failure> {
    let unreadable = |e: std::io::Error| {
        Failure::new("workflow_unreadable", format!("{} cannot be read", folder.display()))
            .because(e.to_string())
            .hint("name a folder with workflow files: --workflows DIR")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A thread of a run, to be kept with its lease in the transaction that accepts the run.
pub struct BornServed {
    graph: Arc<CompiledGraph>,
    born: Born,
    records: Vec<Record>,
}

impl BornServed {
    /// What is to be kept.
    pub fn kept(&self) -> (Thread, Vec<Record>) {
        (self.born.thread().clone(), self.records.clone())
    }
}

impl App {
    /// Accepts a thread of one of the server's graphs. A release begins with the deployment engineer's document, or with
    /// `{"request": …}`.
    pub async fn begin_served(
        &self,
        id: &ThreadId,
        entry: &Entry,
        input: Map<String, Value>,
        by: &str,
    ) -> Result<(), Failure> {
        let invalid = |what: &str, e: serde_json::Error| {
            Failure::new("request_invalid", format!("`{what}` cannot be read")).because(e.to_string())
        };
        match entry.workflow.name.as_str() {
            MODEL_DEPLOYER => {
                let mut request: DeployRequest = match input.get("request") {
                    Some(request) => serde_json::from_value(request.clone()).map_err(|e| invalid("request", e))?,
                    None => request_of(&Value::Object(input).to_string(), &Overrides::default())?,
                };
                // Who asks is who called, whatever the document says: nobody approves in another's name.
                request.requested_by = Some(by.to_owned());
                self.start_deploy_as(Start { id: Some(id.clone()), approved_by: None }, &request).await?;
            }
            ROLLBACK => {
                let asked = input.get("rollback").cloned().unwrap_or_default();
                let mut request: RollbackRequest = serde_json::from_value(asked).map_err(|e| invalid("rollback", e))?;
                request.requested_by = Some(by.to_owned());
                self.start_rollback_as(Some(id.clone()), &request).await?;
            }
            _ => {
                self.accept(Some(id.clone()), &entry.workflow, input, BTreeMap::new()).await?;
            }
        }
        Ok(())
    }

    /// Whether a thread of a graph may be accepted and taken on in one: what a release looks at in between, or a run's end has to clean up
    /// or to tell, takes two steps.
    pub fn goes_at_once(&self, entry: &Entry) -> bool {
        !entry.built_in && entry.workflow.document.get("retention").is_none() && !self.is_tracing()
    }

    /// A run's thread, to be kept with the run's acceptance and taken on by [`App::take_on_served`]; `None`: it begins as others do, which
    /// also says what is wrong with its input.
    pub fn born_served(&self, id: &ThreadId, entry: &Entry, input: Map<String, Value>) -> Option<BornServed> {
        let (graph, new) = self.acceptable(Some(id.clone()), &entry.workflow, input, BTreeMap::new()).ok()?;
        if !Born::can(&graph) {
            return None;
        }
        let (born, records) = self.engine().born(&graph, new).ok()?;
        Some(BornServed { graph, born, records })
    }

    /// Goes on with a thread that was kept with its run.
    pub async fn take_on_served(&self, born: BornServed, how: Advance) -> Result<RunEnd, Failure> {
        let BornServed { graph, born, .. } = born;
        let id = born.thread().id.clone();
        let listening = Listening::to_new(self, &id, how.stop);
        let how = Advance { stop: listening.stop.clone(), ..how };
        let end = self.engine().take_on(&graph, born, how).await.map_err(|e| e.failure())?;
        self.forget_ended(&id, end.status).await;
        Ok(listening.heard_by(end))
    }

    /// Accepts a thread of such a graph and goes on with it until it ends, waits or is asked to stop: as durable as
    /// [`App::begin_served`] and [`App::advance`] one after the other, in one transaction less.
    pub async fn invoke_served(
        &self,
        id: &ThreadId,
        entry: &Entry,
        input: Map<String, Value>,
        how: Advance,
    ) -> Result<RunEnd, Failure> {
        let (graph, new) = self.acceptable(Some(id.clone()), &entry.workflow, input, BTreeMap::new())?;
        let listening = Listening::to_new(self, id, how.stop);
        let how = Advance { stop: listening.stop.clone(), ..how };
        let (_, end) = self.engine().invoke(&graph, new, how).await.map_err(|e| e.failure())?;
        self.forget_ended(id, end.status).await;
        Ok(listening.heard_by(end))
    }

    /// Accepts a rollback to a version, and leaves it to the home's runner.
    pub async fn begin_rollback(
        &self,
        model: &str,
        to: String,
        reason: Option<String>,
        by: String,
    ) -> Result<ThreadId, Failure> {
        let model = ModelName::new(model).map_err(|e| Failure::new("request_value", e.to_string()))?;
        let request = RollbackRequest { model, to: Some(to), reason, requested_by: Some(by) };
        let id = self.start_rollback(&request).await?;
        self.leave(&id).await?;
        Ok(id)
    }

    /// Whether a thread releases a model, or takes one back: then its state is changed by nobody from outside.
    pub async fn is_release(&self, id: &ThreadId) -> Result<bool, Failure> {
        let thread = self.store().thread(id).await.map_err(|e| e.failure())?;
        Ok(thread.is_some_and(|thread| needs_host(&thread)))
    }
}
