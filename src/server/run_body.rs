//! What a client asks for when it starts a run.

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value, json};

use super::authorise::Caller;
use super::body::Fields;
use super::error::{Answer, ApiError};
use super::{Server, ids, names};
use crate::app::{NewRun, RunBody};
use crate::graph::{Advance, Durability, Name, Nodes, Stops, ThreadId};

/// Most runs that wait in a thread's queue: whoever sends more than a person could read does not wait for their ends.
const MOST_WAITING: usize = 100;
/// The stream modes that are offered.
pub(super) const MODES: [&str; 7] = ["values", "updates", "custom", "debug", "tasks", "checkpoints", "events"];
/// Most supersteps of a run that does not say how many.
const RECURSION_LIMIT: u64 = 100;
/// Most that a run may say.
const MOST_STEPS: u64 = 1_000_000;
/// The longest a run may wait before it begins, in seconds: a year.
const LONGEST_WAIT: u64 = 366 * 24 * 3600;

/// A run that can be accepted.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// As the store takes it.
    pub new: NewRun,
    /// The run ends when its client goes away.
    pub ends_with_client: bool,
}

impl Asked {
    /// What is given as an answer to open questions.
    pub fn resume(&self) -> Option<&Value> {
        self.new.body.kwargs["command"].get("resume").filter(|resume| !resume.is_null())
    }

    /// Whether it goes where no edge leads, or writes as no node did.
    pub fn goes_past(&self) -> bool {
        let command = &self.new.body.kwargs["command"];
        ["goto", "update"].iter().any(|key| command.get(key).is_some()) || !self.new.body.kwargs["checkpoint"].is_null()
    }
}

/// Reads a run's body. `thread`: its thread; `None`: one of its own that ends with it.
pub(super) async fn asked(server: &Server, fields: &Fields, thread: Option<ThreadId>, by: &Caller) -> Answer<Asked> {
    let (assistant, graph) = assistant(server, fields).await?;
    let temporary = thread.is_none();
    let (id, thread) = (ids::fresh(), thread.unwrap_or_else(ThreadId::new));
    let at = Utc::now();
    let after = fields.number("after_seconds", 0, LONGEST_WAIT)?.unwrap_or(0);
    let strategy = fields.word("multitask_strategy", &["reject", "rollback", "interrupt", "enqueue"])?;
    let completion = fields.word("on_completion", &["delete", "keep"])?;
    let disconnect = fields.word("on_disconnect", &["cancel", "continue"])?;
    let create = fields.word("if_not_exists", &["create", "reject"])? == Some("create") || temporary;
    let mut metadata = Map::from_iter([("created_by".to_owned(), json!("system"))]);
    metadata.extend(fields.map("metadata")?);
    metadata.insert("assistant_id".to_owned(), json!(assistant));
    if let Some(url) = fields.text("webhook")? {
        server.app.admits_webhook(url).await?;
    }
    let keeps = temporary && completion == Some("keep");
    let kwargs = kwargs(fields, (&id, &thread, &assistant, &graph), temporary && !keeps)?;
    known_nodes(server, &graph, &kwargs)?;
    let body = RunBody {
        assistant,
        graph,
        metadata,
        kwargs,
        strategy: strategy.unwrap_or("enqueue").to_owned(),
        by: by.name().to_owned(),
        key: by.key().map(str::to_owned),
    };
    let due_at: DateTime<Utc> = at + Duration::seconds(i64::try_from(after).unwrap_or(0));
    let create = create.then(Map::new);
    let new = NewRun { id, thread, create, body, due_at, most_waiting: MOST_WAITING, at };
    Ok(Asked { new, ends_with_client: disconnect == Some("cancel") })
}

/// The assistant's id and its graph's name.
async fn assistant(server: &Server, fields: &Fields) -> Answer<(String, String)> {
    let Some(meant) = fields.text("assistant_id")? else {
        return Err(ApiError::invalid("`assistant_id` is required"));
    };
    if server.graphs.get(meant).is_some() {
        return Ok((ids::assistant(meant).to_string(), meant.to_owned()));
    }
    let Ok(id) = ids::given("assistant", meant) else {
        let known: Vec<&str> = server.graphs.names().collect();
        return Err(ApiError::invalid(format!(
            "Invalid assistant: '{meant}'. Must be either:\n- A valid assistant UUID, or\n- One of the registered graphs: {}",
            known.join(", ")
        )));
    };
    let found = server.app.database().assistant(&id).await?;
    let found = found.filter(|assistant| server.graphs.get(&assistant.graph).is_some());
    found.map(|found| (found.id, found.graph)).ok_or_else(|| ApiError::not_found("Thread or assistant not found."))
}

/// What the run row keeps of the body.
fn kwargs(fields: &Fields, of: (&str, &ThreadId, &str, &str), temporary: bool) -> Answer<Value> {
    let (run, thread, assistant, graph) = of;
    let input = match fields.get("input") {
        None => Value::Null,
        Some(Value::Object(map)) => Value::Object(map.clone()),
        Some(_) => return Err(ApiError::invalid("`input` must be an object")),
    };
    let command = command(fields)?;
    if !input.is_null() && !command.is_null() {
        return Err(ApiError::invalid("`input` and `command` exclude each other: new input begins the graph anew"));
    }
    let mut config = fields.map("config")?;
    let limit = Fields(config.clone()).number("recursion_limit", 1, MOST_STEPS)?;
    config.extend(limit.map(|limit| ("recursion_limit".to_owned(), json!(limit))));
    let mut configurable = Fields(config.clone()).map("configurable")?;
    configurable.extend([
        ("run_id".to_owned(), json!(run)),
        ("thread_id".to_owned(), json!(thread)),
        ("graph_id".to_owned(), json!(graph)),
        ("assistant_id".to_owned(), json!(assistant)),
    ]);
    config.insert("configurable".to_owned(), Value::Object(configurable));
    let durability = fields.word("durability", &["sync", "async", "exit"])?.unwrap_or("sync");
    Ok(json!({
        "input": input, "command": command, "config": config, "context": fields.map("context")?,
        "stream_mode": modes(fields)?, "interrupt_before": stops(fields, "interrupt_before")?,
        "interrupt_after": stops(fields, "interrupt_after")?, "webhook": fields.text("webhook")?, "feedback_keys": null,
        "temporary": temporary, "subgraphs": fields.flag("stream_subgraphs")?, "resumable": fields.flag("stream_resumable")?,
        "checkpoint_during": durability != "exit", "durability": durability, "checkpoint": checkpoint(fields)?,
    }))
}

/// The id of the checkpoint from which the run goes on, where one is named.
fn checkpoint(fields: &Fields) -> Answer<Value> {
    let named = Fields(fields.map("checkpoint")?);
    let id = match named.text("checkpoint_id")? {
        Some(id) => Some(id.to_owned()),
        None => fields.text("checkpoint_id")?.map(str::to_owned),
    };
    Ok(json!(id))
}

fn command(fields: &Fields) -> Answer<Value> {
    let Some(given) = fields.get("command") else { return Ok(Value::Null) };
    let Value::Object(map) = given else { return Err(ApiError::invalid("`command` must be an object")) };
    let of = Fields(map.clone());
    let update = of.map("update")?;
    let goto = of.texts("goto").map_err(|_| {
        ApiError::invalid(
            "`command.goto` is a node's name or a list of names; sending to nodes from outside is not offered",
        )
    })?;
    let mut command = Map::new();
    command.extend(of.get("resume").map(|resume| ("resume".to_owned(), resume.clone())));
    // Clients send all keys, also those that say nothing.
    if !update.is_empty() {
        command.insert("update".to_owned(), Value::Object(update));
    }
    if let Some(goto) = goto.filter(|goto| !goto.is_empty()) {
        let nodes: Vec<&str> = goto.iter().map(|node| names::node(node)).collect();
        command.insert("goto".to_owned(), json!(nodes));
    }
    if command.is_empty() {
        return Err(ApiError::invalid("`command` has none of `resume`, `update` and `goto`"));
    }
    if command.contains_key("resume") && command.len() > 1 {
        return Err(ApiError::invalid("`command.resume` excludes `update` and `goto`: they withdraw the question"));
    }
    Ok(Value::Object(command))
}

/// The stream modes of a body, or of a query.
pub(super) fn modes(fields: &Fields) -> Answer<Vec<String>> {
    let given = fields.texts("stream_mode")?.unwrap_or_else(|| vec!["values".to_owned()]);
    known_modes(given)
}

pub(super) fn known_modes(given: Vec<String>) -> Answer<Vec<String>> {
    match given.iter().find(|mode| !MODES.contains(&mode.as_str())) {
        Some(unknown) => Err(ApiError::invalid(format!("there is no stream mode \"{unknown}\": {}", MODES.join(", ")))),
        None => Ok(given),
    }
}

fn stops(fields: &Fields, key: &str) -> Answer<Value> {
    Ok(match fields.get(key) {
        Some(Value::String(all)) if all == "*" => json!("*"),
        _ => json!(fields.texts(key)?),
    })
}

fn known_nodes(server: &Server, graph: &str, kwargs: &Value) -> Answer<()> {
    let Some(entry) = server.graphs.get(graph) else { return Ok(()) };
    for key in ["interrupt_before", "interrupt_after"] {
        let named = kwargs[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(unknown) = named.clone().find(|node| !entry.graph.nodes().contains_key(*node)) {
            return Err(ApiError::invalid(format!("`{key}`: graph `{graph}` has no node `{unknown}`")));
        }
    }
    Ok(())
}

/// How the engine is to take a run on.
pub(super) fn advance(body: &RunBody) -> Advance {
    let kwargs = &body.kwargs;
    let nodes = |key: &str| match &kwargs[key] {
        Value::String(_) => Nodes::All,
        Value::Array(some) => {
            Nodes::Named(some.iter().filter_map(Value::as_str).map(Name::from).collect::<BTreeSet<_>>())
        }
        _ => Nodes::default(),
    };
    let limit = kwargs["config"]["recursion_limit"].as_u64().unwrap_or(RECURSION_LIMIT);
    let durability = match kwargs["durability"].as_str() {
        Some("async") => Durability::Async,
        Some("exit") => Durability::Exit,
        _ => Durability::Sync,
    };
    let begins = !kwargs["input"].is_null();
    Advance {
        recursion_limit: u32::try_from(limit).unwrap_or(u32::MAX),
        durability,
        tells_writes: true,
        stops: Stops { before: nodes("interrupt_before"), after: nodes("interrupt_after"), begins },
        ..Advance::default()
    }
}
