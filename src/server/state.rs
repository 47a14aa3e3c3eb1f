//! States: as they are, as they were, and changed from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::authorise::Caller;
use super::body::{Fields, object};
use super::error::{Answer, ApiError};
use super::{Server, ids, names, shapes, threads};
use crate::app::{App, ServedRun, ServedThread};
use crate::graph::{
    Body as NodeBody, Checkpoint, CompiledGraph, Event, EventRow, Failure, Interrupt, StateUpdate, StoreError, Task,
    Thread, ThreadId, Write,
};

/// Most of a history at once.
const MOST: u64 = 1_000;
/// Runs of a thread by which checkpoints are told apart.
const MOST_RUNS: usize = 10_000;

/// Everything that a thread's states are told from.
struct Chronicle<'s> {
    server: &'s Server,
    thread: Thread,
    graph: Arc<CompiledGraph>,
    events: Vec<EventRow>,
    runs: Vec<ServedRun>,
    asked: Vec<Interrupt>,
}

impl<'s> Chronicle<'s> {
    async fn of(server: &'s Server, thread: Thread) -> Answer<Self> {
        let store = server.app.store();
        let events = store.events(&thread.id, 0, usize::MAX).await?;
        let runs = server.app.database().api_runs(&thread.id, None, MOST_RUNS, 0).await?;
        let asked = store.interrupts(Some(&thread.id), false).await?;
        let graph = server.app.graph_of(&thread)?;
        Ok(Self { server, thread, graph, events, runs, asked })
    }

    /// Where the record says that a checkpoint came to be.
    fn place(&self, of: &Checkpoint) -> Option<usize> {
        self.events.iter().position(|row| match &row.event {
            Event::Checkpointed { ns, step, source, .. } => {
                *ns == of.ns && *step == of.step && *source == of.source && row.at >= of.at
            }
            _ => false,
        })
    }

    /// What the tasks of a checkpoint's superstep wrote.
    fn writes(&self, of: &Checkpoint) -> Vec<(&Event, &[Write])> {
        let Some(place) = self.place(of) else { return Vec::new() };
        let behind = self.events[place + 1..].iter();
        let until = behind.take_while(|row| !matches!(&row.event, Event::Checkpointed { ns, .. } if *ns == of.ns));
        until
            .filter_map(|row| match &row.event {
                event @ Event::Wrote { ns, writes, .. } if *ns == of.ns => Some((event, writes.as_slice())),
                _ => None,
            })
            .collect()
    }

    fn metadata(&self, of: &Checkpoint, parents: &Value) -> Value {
        let seq = self.place(of).map(|place| self.events[place].seq);
        let made = |run: &&ServedRun| {
            run.first.zip(seq).is_some_and(|(first, seq)| first < seq && run.last.is_none_or(|last| seq <= last))
        };
        let graph = self.runs.last().map_or(self.thread.workflow.as_str(), |run| run.body.graph.as_str());
        let mut told = json!({
            "graph_id": graph, "thread_id": self.thread.id, "source": of.source, "step": of.step, "parents": parents,
        });
        if let Some(run) = self.runs.iter().find(made) {
            told["assistant_id"] = json!(run.body.assistant);
            told["run_id"] = json!(run.id);
        }
        told
    }

    /// The questions of a task, and of those inside it.
    fn asked_by(&self, graph: &CompiledGraph, of: &Checkpoint, task: &Task, open: bool) -> Vec<&Interrupt> {
        let persistence = graph.nodes().get(&task.node).map(|entry| entry.policy.persistence).unwrap_or_default();
        let inside = task.inner_ns(&of.ns, of.fork, persistence);
        let belongs = |asked: &&Interrupt| {
            let key = &asked.key;
            let own = key.ns == of.ns && key.node == task.node && key.visit == task.visit && key.send == task.send();
            let deeper = *key.ns == *inside || key.ns.starts_with(&format!("{inside}|"));
            key.fork == of.fork && (own || deeper) && (!open || (asked.answer.is_none() && !asked.withdrawn))
        };
        self.asked.iter().filter(belongs).collect()
    }

    /// The state at a checkpoint. `newest`: it is the newest of its namespace; `deep`: with the states of subgraphs.
    async fn state(&self, of: &Checkpoint, newest: bool, deep: bool) -> Answer<Value> {
        let graph = graph_at(&self.graph, &of.ns);
        let root = if of.ns.is_empty() { json!({}) } else { json!({"": self.root_id().await?}) };
        let partial = if newest {
            self.server.app.store().partial(&self.thread.id, &of.ns, &of.id).await?.results
        } else {
            Vec::new()
        };
        let wrote = self.writes(of);
        let (mut tasks, mut next, mut asked_all) = (Vec::new(), Vec::new(), Vec::new());
        for task in &of.frontier {
            let id = ids::task(&self.thread.id, of, task);
            let wrote = wrote.iter().find(|(event, _)| {
                matches!(event, Event::Wrote { node, path, .. } if *node == task.node && *path == task.path)
            });
            let result = match partial.iter().find(|result| result.path == task.path) {
                Some(result) => Some(shapes::writes(&result.writes)),
                None => wrote.map(|(_, writes)| shapes::writes(writes)),
            };
            let asked = match &graph {
                Some(graph) => self.asked_by(graph, of, task, newest),
                None => Vec::new(),
            };
            let failure = self.thread.failure.as_ref().filter(|_| newest && result.is_none());
            let failure =
                failure.filter(|f| f.node.as_deref().is_none_or(|at| at.split('|').any(|n| n == &*task.node)));
            let error = failure.map(|f| format!("{}: {}", f.code, f.message));
            if result.is_none() || !newest {
                next.push(names::told(&task.node).to_owned());
            }
            let inner = match (&graph, newest && result.is_none()) {
                (Some(graph), true) => self.inner(graph, of, task).await?,
                _ => None,
            };
            let (checkpoint, state) = match inner {
                None => (Value::Null, Value::Null),
                Some(inner) if deep => (Value::Null, Box::pin(self.state(&inner, true, true)).await?),
                Some(inner) => {
                    let ns = ids::namespace(&self.thread.id, of.fork, &inner.ns);
                    (json!({"thread_id": self.thread.id, "checkpoint_ns": ns}), Value::Null)
                }
            };
            let asked: Vec<Value> = asked.into_iter().map(shapes::question).collect();
            asked_all.extend(asked.iter().cloned());
            tasks.push(json!({
                "id": id, "name": task.node, "path": ids::path(task), "error": error, "interrupts": asked,
                "checkpoint": checkpoint, "state": state, "result": result,
            }));
        }
        next.sort();
        let parent = of.parent.as_ref().map(|id| shapes::pointer(&self.thread.id, of.fork, &of.ns, id.as_str()));
        Ok(json!({
            "values": of.values, "next": next, "tasks": tasks, "metadata": self.metadata(of, &root),
            "created_at": shapes::time(of.at), "checkpoint": shapes::pointer(&self.thread.id, of.fork, &of.ns, of.id.as_str()),
            "parent_checkpoint": parent, "interrupts": asked_all, "checkpoint_id": of.id, "parent_checkpoint_id": of.parent,
        }))
    }

    async fn root_id(&self) -> Answer<Option<String>> {
        let root = self.server.app.store().latest(&self.thread.id, "").await?;
        Ok(root.map(|root| root.id.to_string()))
    }

    /// The newest checkpoint of the graph inside a task, where it has begun.
    async fn inner(&self, graph: &CompiledGraph, of: &Checkpoint, task: &Task) -> Answer<Option<Checkpoint>> {
        let Some(entry) = graph.nodes().get(&task.node) else { return Ok(None) };
        if !matches!(entry.body, NodeBody::Subgraph(_)) {
            return Ok(None);
        }
        let ns = task.inner_ns(&of.ns, of.fork, entry.policy.persistence);
        Ok(self.server.app.store().latest(&self.thread.id, &ns).await?)
    }
}

/// The graph of a namespace.
fn graph_at(root: &Arc<CompiledGraph>, ns: &str) -> Option<Arc<CompiledGraph>> {
    let mut graph = root.clone();
    for segment in ns.split('|').filter(|segment| !segment.is_empty()) {
        let node = segment.split(':').next()?;
        graph = match &graph.nodes().get(node)?.body {
            NodeBody::Subgraph(inner) => inner.clone(),
            NodeBody::Leaf(_) => return None,
        };
    }
    Some(graph)
}

/// The state of a thread that has none yet.
fn nothing(thread: &ThreadId) -> Value {
    json!({
        "values": {}, "next": [], "tasks": [], "metadata": {}, "created_at": null,
        "checkpoint": {"checkpoint_id": null, "thread_id": thread, "checkpoint_ns": ""},
        "parent_checkpoint": null, "interrupts": [], "checkpoint_id": null, "parent_checkpoint_id": null,
    })
}

pub(super) async fn get(
    State(server): State<Arc<Server>>,
    Path(thread): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let id = known(&server, &thread).await?.id;
    let deep = query.get("subgraphs").is_some_and(|deep| deep == "true" || deep == "1");
    look(&server, &id, None, None, deep).await
}

pub(super) async fn at(
    State(server): State<Arc<Server>>,
    Path((thread, checkpoint)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let id = known(&server, &thread).await?.id;
    let deep = query.get("subgraphs").is_some_and(|deep| deep == "true" || deep == "1");
    look(&server, &id, Some(&checkpoint), None, deep).await
}

pub(super) async fn at_checkpoint(State(server): State<Arc<Server>>, Path(thread): Path<String>, body: Body) -> Answer {
    let id = known(&server, &thread).await?.id;
    let fields = object(body).await?;
    let named = Fields(fields.map("checkpoint")?);
    let checkpoint = named.text("checkpoint_id")?;
    look(&server, &id, checkpoint, named.text("checkpoint_ns")?, fields.flag("subgraphs")?).await
}

async fn look(server: &Server, id: &ThreadId, checkpoint: Option<&str>, ns: Option<&str>, deep: bool) -> Answer {
    let Some(thread) = server.app.store().thread(id).await? else { return Ok(Json(nothing(id)).into_response()) };
    let of = Chronicle::of(server, thread).await?;
    let line = line(server, id, ns.unwrap_or_default()).await?;
    let newest = server.app.store().latest(id, &line).await?;
    let found = match (checkpoint, newest) {
        (None, newest) => newest.map(|newest| (newest, true)),
        (Some(wanted), Some(newest)) if newest.id.as_str() == wanted => Some((newest, true)),
        (Some(wanted), _) => {
            let history = server.app.store().history(id, &line).await?;
            history.into_iter().find(|c| c.id.as_str() == wanted).map(|found| (found, false))
        }
    };
    let Some((found, newest)) = found else {
        return Err(ApiError::not_found(format!("Thread {id} has no checkpoint {}", checkpoint.unwrap_or_default())));
    };
    Ok(Json(of.state(&found, newest, deep).await?).into_response())
}

/// The engine's namespace for one that a client names.
async fn line(server: &Server, id: &ThreadId, told: &str) -> Answer<String> {
    if told.is_empty() {
        return Ok(String::new());
    }
    let all = server.app.store().namespaces(id).await?;
    let found = all.into_iter().find(|ns| ids::namespace(id, 0, ns) == told);
    found.ok_or_else(|| ApiError::not_found(format!("Thread {id} has no namespace {told}")))
}

pub(super) async fn history_by_query(
    State(server): State<Arc<Server>>,
    Path(thread): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let mut fields = Map::new();
    if let Some(limit) = query.get("limit") {
        let limit: u64 = limit.parse().map_err(|_| ApiError::invalid("`limit` is a whole number"))?;
        fields.insert("limit".to_owned(), json!(limit));
    }
    fields.extend(query.get("before").map(|before| ("before".to_owned(), json!({"checkpoint_id": before}))));
    past(&server, &thread, &Fields(fields)).await
}

pub(super) async fn history(State(server): State<Arc<Server>>, Path(thread): Path<String>, body: Body) -> Answer {
    let fields = object(body).await?;
    past(&server, &thread, &fields).await
}

async fn past(server: &Server, thread: &str, fields: &Fields) -> Answer {
    let id = known(server, thread).await?.id;
    let limit = fields.number("limit", 1, MOST)?.unwrap_or(10);
    let named = |key: &str| -> Answer<Option<String>> {
        Ok(Fields(fields.map(key)?).text("checkpoint_id")?.map(str::to_owned))
    };
    let ns = Fields(fields.map("checkpoint")?).text("checkpoint_ns")?.unwrap_or_default().to_owned();
    let (before, from, metadata) = (named("before")?, named("checkpoint")?, fields.map("metadata")?);
    let Some(found) = server.app.store().thread(&id).await? else { return Ok(Json(json!([])).into_response()) };
    let of = Chronicle::of(server, found).await?;
    let mut line = server.app.store().history(&id, &line(server, &id, &ns).await?).await?;
    line.reverse();
    let newest = line.first().map(|c| c.id.clone());
    if let Some(before) = before {
        let at = line.iter().position(|c| c.id.as_str() == before);
        let at = at.ok_or_else(|| ApiError::not_found(format!("Thread {id} has no checkpoint {before}")))?;
        line.drain(..=at);
    }
    if let Some(from) = from {
        line.drain(..line.iter().position(|c| c.id.as_str() == from).unwrap_or(0));
    }
    let mut told = Vec::new();
    for checkpoint in line {
        let state = of.state(&checkpoint, Some(&checkpoint.id) == newest.as_ref(), false).await?;
        if metadata.iter().all(|(key, value)| state["metadata"].get(key) == Some(value)) {
            told.push(state);
        }
        if told.len() as u64 >= limit {
            break;
        }
    }
    Ok(Json(told).into_response())
}

/// Changes a thread's state from outside; with a checkpoint it branches off there.
pub(super) async fn update(
    State(server): State<Arc<Server>>,
    Extension(_caller): Extension<Caller>,
    Path(thread): Path<String>,
    body: Body,
) -> Answer {
    let served = known(&server, &thread).await?;
    let id = served.id.clone();
    let fields = object(body).await?;
    let values = match fields.get("values") {
        None => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => return Err(ApiError::invalid("`values` must be an object, or null")),
    };
    let as_node = fields.text("as_node")?.map(names::node);
    let checkpoint = match Fields(fields.map("checkpoint")?).text("checkpoint_id")? {
        Some(id) => Some(id.to_owned()),
        None => fields.text("checkpoint_id")?.map(str::to_owned),
    };
    let open = server.app.database().open_runs(&id).await?;
    if let Some(run) = open.first() {
        return Err(ApiError::conflict(format!("Thread {id} has in-flight runs: {} is {}", run.id, run.status.word())));
    }
    if !served.begun {
        return Err(ApiError::conflict(format!(
            "Thread {id} has no state yet: its first run says of which graph it is"
        )));
    }
    change(&server, &id, values, as_node, checkpoint).await.map_err(|failure| match failure.code.as_str() {
        "unknown_node" => {
            let node = fields.text("as_node").ok().flatten().unwrap_or_default();
            ApiError::new(StatusCode::BAD_REQUEST, format!("Node {node} does not exist"))
        }
        _ => failure.into(),
    })?;
    server.app.database().touch_api_thread(&id, chrono::Utc::now()).await?;
    server.bell.ring(&id);
    let latest = server.app.store().latest(&id, "").await?;
    let latest = latest.ok_or_else(|| ApiError::conflict("the thread has no checkpoint"))?;
    let pointer = shapes::pointer(&id, latest.fork, "", latest.id.as_str());
    Ok(Json(json!({"checkpoint": pointer, "configurable": pointer, "checkpoint_id": latest.id})).into_response())
}

async fn change(
    server: &Server,
    id: &ThreadId,
    values: Map<String, Value>,
    as_node: Option<&str>,
    checkpoint: Option<String>,
) -> Result<(), Failure> {
    let latest = server.app.store().latest(id, "").await.map_err(|e| e.failure())?;
    let stands = latest.as_ref().map(|latest| latest.id.to_string());
    if let Some(checkpoint) = checkpoint.filter(|wanted| Some(wanted) != stands.as_ref()) {
        return server.app.fork(id, &checkpoint, &values, as_node).await.map(drop);
    }
    if values.is_empty() && as_node.is_none() {
        // A copy of what is there, as LangGraph makes one: what was due is due, what was asked is asked anew.
        return match stands {
            Some(stands) => server.app.fork(id, &stands, &values, None).await.map(drop),
            None => Ok(()),
        };
    }
    let as_node = match as_node {
        Some(node) => node.into(),
        None => server.executor.wrote_last(id).await?,
    };
    server.app.bulk_update(id, &[vec![StateUpdate::new(values, as_node)]]).await
}

/// The thread that a client names.
async fn known(server: &Server, thread: &str) -> Answer<ServedThread> {
    let id = ids::thread(thread)?;
    threads::known(server, &id).await
}

/// The values that a run left: of the newest checkpoint that was there at its end.
pub(super) async fn values_after(server: &Server, run: &ServedRun) -> Answer<Value> {
    Ok(values_left(&server.app, run).await?)
}

/// The same, wherever it is asked for.
pub(super) async fn values_left(app: &App, run: &ServedRun) -> Result<Value, StoreError> {
    match app.database().newest(&run.thread).await? {
        Some(latest) if latest.at <= run.updated_at => Ok(json!(latest.values)),
        Some(_) => {
            let then = app.database().checkpoint_by(&run.thread, run.updated_at).await?;
            Ok(then.map_or_else(|| json!({}), |then| json!(then.values)))
        }
        None => Ok(json!({})),
    }
}

/// A plain answer.
pub(super) fn ok(value: &Value) -> Response {
    Json(value).into_response()
}
