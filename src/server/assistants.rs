//! Assistants: a graph with a configuration of its runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::Utc;
use serde_json::{Map, Value, json};

use super::body::{Fields, object};
use super::drawing::drawing;
use super::error::{Answer, ApiError};
use super::{Server, ids, shapes, state};
use crate::app::{AssistantFilter, AssistantText, Entry, ServedAssistant};
use crate::graph::{Body as NodeBody, CompiledGraph};

/// How deep `xray=true` looks.
const DEEPEST: usize = 16;
/// Most assistants in one answer.
const MOST: u64 = 1_000;

fn not_found() -> ApiError {
    ApiError::not_found("Not Found")
}

async fn known(server: &Server, id: &str) -> Answer<ServedAssistant> {
    let id = ids::given("assistant", id)?;
    let found = server.app.database().assistant(&id).await?;
    // One whose graph is no longer offered is nobody's.
    found.filter(|found| server.graphs.get(&found.graph).is_some()).ok_or_else(not_found)
}

/// The graph of an assistant's id, or of a graph's own name.
async fn entry<'s>(server: &'s Server, meant: &str) -> Answer<(String, &'s Entry)> {
    if let Some(entry) = server.graphs.get(meant) {
        return Ok((meant.to_owned(), entry));
    }
    let name = known(server, meant).await?.graph;
    let entry = server.graphs.get(&name).ok_or_else(not_found)?;
    Ok((name, entry))
}

/// What a body says of an assistant; what it does not say stays as it is.
fn text(fields: &Fields, before: AssistantText) -> Answer<AssistantText> {
    let mut text = before;
    if let Some(name) = fields.text("name")? {
        text.name = name.to_owned();
    }
    if let Some(description) = fields.text("description")? {
        text.description = Some(description.to_owned());
    }
    if fields.get("config").is_some() {
        text.config = fields.map("config")?;
        // LangGraph's two words for the same.
        text.context = Fields(text.config.clone()).map("configurable")?;
    }
    if fields.get("context").is_some() {
        text.context = fields.map("context")?;
    }
    if fields.get("metadata").is_some() {
        text.metadata.extend(fields.map("metadata")?);
    }
    Ok(text)
}

pub(super) async fn create(State(server): State<Arc<Server>>, body: Body) -> Answer {
    let fields = object(body).await?;
    let graph = graph_of(&server, &fields)?.ok_or_else(|| ApiError::invalid("`graph_id` is required"))?;
    let id = fields.text("assistant_id")?.map_or_else(|| Ok(ids::fresh()), |id| ids::given("assistant", id))?;
    let keeps = fields.word("if_exists", &["raise", "do_nothing"])? == Some("do_nothing");
    let named = AssistantText { name: "Untitled".to_owned(), ..AssistantText::default() };
    let database = server.app.database();
    match database.add_assistant(&id, &graph, text(&fields, named)?, Utc::now()).await? {
        Some(made) => Ok(state::ok(&shapes::assistant(&made))),
        None if keeps => Ok(state::ok(&shapes::assistant(&known(&server, &id).await?))),
        None => Err(ApiError::conflict(format!("Assistant with ID {id} already exists"))),
    }
}

fn graph_of(server: &Server, fields: &Fields) -> Answer<Option<String>> {
    let Some(graph) = fields.text("graph_id")? else { return Ok(None) };
    if server.graphs.get(graph).is_none() {
        let known: Vec<String> = server.graphs.names().map(|name| format!("'{name}'")).collect();
        return Err(ApiError::not_found(format!("Graph '{graph}' not found. Expected one of: [{}]", known.join(", "))));
    }
    Ok(Some(graph.to_owned()))
}

fn filter(fields: &Fields) -> Answer<AssistantFilter> {
    let owned = |key: &str| -> Answer<Option<String>> { Ok(fields.text(key)?.map(str::to_owned)) };
    Ok(AssistantFilter { graph: owned("graph_id")?, name: owned("name")?, metadata: fields.map("metadata")? })
}

async fn offered(server: &Server, fields: &Fields) -> Answer<Vec<ServedAssistant>> {
    let mut found = server.app.database().assistants(&filter(fields)?).await?;
    found.retain(|assistant| server.graphs.get(&assistant.graph).is_some());
    Ok(found)
}

pub(super) async fn search(State(server): State<Arc<Server>>, body: Body) -> Answer {
    let fields = object(body).await?;
    let limit = usize::try_from(fields.number("limit", 1, MOST)?.unwrap_or(10)).unwrap_or(10);
    let offset = usize::try_from(fields.number("offset", 0, u64::from(u32::MAX))?.unwrap_or(0)).unwrap_or(0);
    let all = offered(&server, &fields).await?;
    let page: Vec<Value> = all.iter().skip(offset).take(limit).map(shapes::assistant).collect();
    Ok(([("x-pagination-total", all.len().to_string())], state::ok(&json!(page))).into_response())
}

pub(super) async fn count(State(server): State<Arc<Server>>, body: Body) -> Answer {
    Ok(state::ok(&json!(offered(&server, &object(body).await?).await?.len())))
}

pub(super) async fn get(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer {
    Ok(state::ok(&shapes::assistant(&known(&server, &id).await?)))
}

pub(super) async fn patch(State(server): State<Arc<Server>>, Path(id): Path<String>, body: Body) -> Answer {
    let before = known(&server, &id).await?;
    let fields = object(body).await?;
    let graph = graph_of(&server, &fields)?.unwrap_or_else(|| before.graph.clone());
    if graph != before.graph && is_of_a_graph(&server, &before.id) {
        return Err(ApiError::conflict(format!("Assistant {} belongs to graph `{}`", before.id, before.graph)));
    }
    let text = text(&fields, before.text)?;
    let changed = server.app.database().change_assistant(&before.id, &graph, text, Utc::now()).await?;
    Ok(state::ok(&shapes::assistant(&changed.ok_or_else(not_found)?)))
}

/// Whether it is the one that a graph has from the beginning.
fn is_of_a_graph(server: &Server, id: &str) -> bool {
    server.graphs.names().any(|name| ids::assistant(name).to_string() == id)
}

/// The assistants that graphs have from the beginning stay.
pub(super) async fn delete(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer {
    let assistant = known(&server, &id).await?;
    if is_of_a_graph(&server, &assistant.id) {
        return Err(ApiError::conflict(format!("Assistant {} belongs to graph `{}`", assistant.id, assistant.graph)));
    }
    server.app.database().delete_assistant(&assistant.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn versions(State(server): State<Arc<Server>>, Path(id): Path<String>, body: Body) -> Answer {
    let assistant = known(&server, &id).await?;
    let fields = object(body).await?;
    let limit = usize::try_from(fields.number("limit", 1, MOST)?.unwrap_or(10)).unwrap_or(10);
    let offset = usize::try_from(fields.number("offset", 0, u64::from(u32::MAX))?.unwrap_or(0)).unwrap_or(0);
    let all = server.app.database().assistant_versions(&assistant.id).await?;
    let page: Vec<Value> = all.iter().skip(offset).take(limit).map(shapes::version).collect();
    Ok(state::ok(&json!(page)))
}

pub(super) async fn set_latest(State(server): State<Arc<Server>>, Path(id): Path<String>, body: Body) -> Answer {
    let assistant = known(&server, &id).await?;
    let fields = object(body).await?;
    let version = fields.number("version", 1, u64::from(u32::MAX))?;
    let version = version.ok_or_else(|| ApiError::invalid("`version` is required"))?;
    let changed = server.app.database().set_assistant_version(&assistant.id, version, Utc::now()).await?;
    Ok(state::ok(&shapes::assistant(&changed.ok_or_else(not_found)?)))
}

pub(super) async fn graph(
    State(server): State<Arc<Server>>,
    Path(meant): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let (_, entry) = entry(&server, &meant).await?;
    let depth = match query.get("xray").map(String::as_str) {
        None | Some("" | "false") => 0,
        Some("true") => DEEPEST,
        Some(depth) => depth.parse().map_err(|_| ApiError::invalid("`xray` is true, false or a depth"))?,
    };
    Ok(state::ok(&drawing(&entry.graph, depth.min(DEEPEST))))
}

pub(super) async fn schemas(State(server): State<Arc<Server>>, Path(meant): Path<String>) -> Answer {
    let (name, entry) = entry(&server, &meant).await?;
    Ok(state::ok(&schemas_of(&name, &entry.graph, entry.document().get("input").cloned())))
}

/// A graph's schemas: what it takes as its file says it, its state by its channels.
fn schemas_of(name: &str, graph: &CompiledGraph, input: Option<Value>) -> Value {
    let channel = |(name, channel): (&crate::graph::Name, &crate::graph::Channel)| {
        let word = channel.value.word();
        let schema = if word == "any" { json!({"title": name}) } else { json!({"title": name, "type": word}) };
        (name.to_string(), schema)
    };
    let properties: Map<String, Value> = graph.channels().iter().map(channel).collect();
    let state = json!({"title": format!("{name}_state"), "type": "object", "properties": properties});
    json!({
        "graph_id": name, "input_schema": input, "output_schema": null, "state_schema": state, "config_schema": {},
        "context_schema": null,
    })
}

pub(super) async fn subgraphs(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let assistant = known(&server, &id).await?;
    let entry = server.graphs.get(&assistant.graph).ok_or_else(not_found)?;
    let deep = query.get("recurse").is_some_and(|recurse| recurse == "true" || recurse == "1");
    let mut found = Map::new();
    inside(&entry.graph, "", deep, &mut found);
    Ok(state::ok(&Value::Object(found)))
}

pub(super) async fn subgraph(
    State(server): State<Arc<Server>>,
    Path((id, namespace)): Path<(String, String)>,
) -> Answer {
    let assistant = known(&server, &id).await?;
    let entry = server.graphs.get(&assistant.graph).ok_or_else(not_found)?;
    let mut found = Map::new();
    inside(&entry.graph, "", true, &mut found);
    found.retain(|name, _| *name == namespace);
    Ok(state::ok(&Value::Object(found)))
}

fn inside(graph: &CompiledGraph, prefix: &str, deep: bool, found: &mut Map<String, Value>) {
    for (name, entry) in graph.nodes() {
        let NodeBody::Subgraph(inner) = &entry.body else { continue };
        let path = format!("{prefix}{name}");
        found.insert(path.clone(), schemas_of(name, inner, None));
        if deep {
            inside(inner, &format!("{path}|"), deep, found);
        }
    }
}
