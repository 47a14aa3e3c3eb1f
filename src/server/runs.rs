//! Runs: accepted, followed, stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;

use super::apply::via;
use super::authorise::{Action, Caller, Subject, authorise};
use super::begins::{Begins, is_release_graph};
use super::body::{Fields, json as body_json, object};
use super::error::{Answer, ApiError};
use super::project::Wanted;
use super::run_body::{Asked, asked, known_modes, modes};
use super::stops::Cancel;
use super::stream::{Told, follow, located, seen};
use super::wait::{Of, wait as wait_for};
use super::{Server, ids, resume, shapes, threads};
use crate::app::{Accepted, RunStatus, ServedRun};
use crate::graph::{Failure, ThreadId};

/// Most runs in one answer.
const MOST: usize = 1_000;
/// Most runs of one batch.
const MOST_IN_BATCH: usize = 100;
const IN_FLIGHT: &str =
    "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.";

/// A run that was accepted.
struct Begun {
    run: ServedRun,
    ends_with_client: bool,
    resumable: bool,
    wanted: Wanted,
}

/// Accepts a run: when this returns it is durable.
async fn accept(server: &Arc<Server>, caller: &Caller, fields: &Fields, thread: Option<ThreadId>) -> Answer<Begun> {
    let named = thread.is_some();
    let asked = asked(server, fields, thread, caller).await?;
    let thread = asked.new.thread.clone();
    if asked.resume().is_some() || asked.goes_past() {
        authorise(caller, Action::Decide, &Subject::Thread(thread.to_string()))?;
    }
    // One that is made for the run is none yet.
    let is_release = named && server.app.is_release(&thread).await?;
    if is_release && (!asked.new.body.kwargs["input"].is_null() || asked.goes_past()) {
        return Err(ApiError::conflict(format!(
            "Thread {thread} is a release, whose state nobody changes from outside: use a thread of its own"
        )));
    }
    let kwargs = &asked.new.body.kwargs;
    let wanted = Wanted {
        modes: modes(fields)?.into_iter().collect(),
        subgraphs: kwargs["subgraphs"].as_bool().unwrap_or(false),
    };
    let resumable = kwargs["resumable"].as_bool().unwrap_or(false);
    let turn = server.executor.turn(&thread);
    let _turn = turn.lock().await;
    let is_answer = answered(server, caller, &asked).await?;
    let born = if named { None } else { server.executor.born(&asked.new) };
    let accepted = match &born {
        Some(born) => server.app.database().accept_run_with(asked.new.clone(), born.kept()).await,
        None => server.app.database().accept_run(asked.new.clone()).await,
    };
    if is_answer && !matches!(accepted, Ok(Accepted::Queued { .. })) {
        // The answer counts all the same: the runner goes on with it.
        server.app.leave(&thread).await?;
    }
    let accepted = accepted?;
    let (run, before) = match accepted {
        Accepted::Queued { run, before } => (*run, before),
        Accepted::NoThread => return Err(ApiError::not_found("Thread or assistant not found.")),
        Accepted::Busy => return Err(ApiError::conflict(IN_FLIGHT)),
        Accepted::Full => return Err(full()),
        Accepted::OtherGraph(graph) => return Err(other_graph(&thread, &graph)),
    };
    if let Err(failure) = make_way(server, &run, &before).await {
        server.app.database().delete_run(&run.id).await?;
        server.executor.kick(&thread);
        return Err(failure.into());
    }
    let begins = born.map_or(Begins::New, |born| Begins::Born(Box::new(born)));
    let first = (run.status == RunStatus::Running).then(|| (run.clone(), begins));
    server.executor.kick_with(&thread, first);
    // A release is nobody's who closes a window.
    let ends_with_client = asked.ends_with_client && !is_release && !is_release_graph(&run);
    Ok(Begun { run, ends_with_client, resumable, wanted })
}

/// Records the answer of a run that is about to be accepted: it counts for what is asked now, and whoever comes second is told who was
/// first. Behind a branch off a checkpoint nothing is asked before the run has begun.
async fn answered(server: &Arc<Server>, caller: &Caller, asked: &Asked) -> Answer<bool> {
    let new = &asked.new;
    let Some(answer) = asked.resume().filter(|_| new.body.kwargs["checkpoint"].is_null()) else { return Ok(false) };
    let Some(known) = server.app.database().api_thread(&new.thread).await? else { return Ok(false) };
    let open = server.app.database().open_runs(&new.thread).await?;
    if new.body.strategy == "reject" && !open.is_empty() {
        return Err(ApiError::conflict(IN_FLIGHT));
    }
    if open.len() >= new.most_waiting {
        return Err(full());
    }
    if let Some(graph) = known.graph.filter(|graph| *graph != new.body.graph) {
        return Err(other_graph(&new.thread, &graph));
    }
    resume::answer(&server.app, &new.thread, answer, caller.person(), &via(&new.id)).await?;
    Ok(true)
}

fn full() -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "So many runs wait in this thread that no more is taken.")
}

fn other_graph(thread: &ThreadId, graph: &str) -> ApiError {
    ApiError::conflict(format!(
        "Thread {thread} belongs to graph `{graph}`: a thread keeps the graph that it began with"
    ))
}

/// A run that wants so stops those before it.
async fn make_way(server: &Arc<Server>, run: &ServedRun, before: &[ServedRun]) -> Result<(), Failure> {
    let how = match run.body.strategy.as_str() {
        "interrupt" => Cancel::Interrupt,
        "rollback" => Cancel::Rollback,
        _ => return Ok(()),
    };
    for earlier in before.iter().rev() {
        server.executor.cancel(earlier, how, &run.body.by).await?;
    }
    Ok(())
}

fn location(run: &ServedRun) -> String {
    match run.body.kwargs["temporary"] == Value::Bool(true) {
        true => format!("/runs/{}", run.id),
        false => format!("/threads/{}/runs/{}", run.thread, run.id),
    }
}

fn created(begun: &Begun) -> Response {
    let location = location(&begun.run);
    ([(header::CONTENT_LOCATION, location)], Json(accepted(&begun.run))).into_response()
}

/// A run as it was accepted: that it is under way already is nothing that a client may rely on.
fn accepted(run: &ServedRun) -> Value {
    shapes::run(&ServedRun { status: RunStatus::Pending, ..run.clone() })
}

async fn streamed(server: &Arc<Server>, begun: Begun) -> Answer {
    let location = location(&begun.run);
    let told =
        Told { wanted: begun.wanted, ids: begun.resumable, after: None, ends_with_client: begun.ends_with_client };
    follow(server, begun.run, told, &location).await
}

fn waited(server: &Arc<Server>, begun: Begun) -> Response {
    // Where a thread is named, also one that was made for the run: the values come from there.
    let location = format!("/threads/{}/runs/{}", begun.run.thread, begun.run.id);
    wait_for(server, begun.run, Of::Values, begun.ends_with_client, &location)
}

/// The run that a request is for: in the thread that it names, or in one of its own.
async fn begin(server: &Arc<Server>, caller: &Caller, thread: Option<&str>, body: Body) -> Answer<Begun> {
    let thread = thread.map(ids::thread).transpose()?;
    let fields = object(body).await?;
    accept(server, &caller.still(&server.app).await?, &fields, thread).await
}

pub(super) async fn create(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(thread): Path<String>,
    body: Body,
) -> Answer {
    Ok(created(&begin(&server, &caller, Some(&thread), body).await?))
}

pub(super) async fn stream(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(thread): Path<String>,
    body: Body,
) -> Answer {
    streamed(&server, begin(&server, &caller, Some(&thread), body).await?).await
}

pub(super) async fn wait(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(thread): Path<String>,
    body: Body,
) -> Answer {
    Ok(waited(&server, begin(&server, &caller, Some(&thread), body).await?))
}

pub(super) async fn create_stateless(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer {
    Ok(created(&begin(&server, &caller, None, body).await?))
}

pub(super) async fn stream_stateless(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer {
    streamed(&server, begin(&server, &caller, None, body).await?).await
}

pub(super) async fn wait_stateless(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer {
    Ok(waited(&server, begin(&server, &caller, None, body).await?))
}

pub(super) async fn batch(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Answer {
    let Value::Array(all) = body_json(body).await? else {
        return Err(ApiError::invalid("the body is no list of runs"));
    };
    if all.len() > MOST_IN_BATCH {
        return Err(ApiError::invalid(format!("a batch has at most {MOST_IN_BATCH} runs")));
    }
    let mut runs = Vec::with_capacity(all.len());
    for one in all {
        let Value::Object(map) = one else { return Err(ApiError::invalid("a run is an object")) };
        runs.push(accepted(&accept(&server, &caller, &Fields(map), None).await?.run));
    }
    Ok(Json(runs).into_response())
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Path(thread): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let id = ids::thread(&thread)?;
    threads::known(&server, &id).await?;
    let number = |key: &str, default: usize| match query.get(key) {
        None => Ok(default),
        Some(text) => match text.parse::<u32>() {
            Ok(number) => Ok(number as usize),
            Err(_) => Err(ApiError::invalid(format!("`{key}` is a whole number from 0 to {}", u32::MAX))),
        },
    };
    let status = match query.get("status") {
        None => None,
        Some(word) => {
            Some(RunStatus::parse(word).ok_or_else(|| ApiError::invalid(format!("there is no status \"{word}\"")))?)
        }
    };
    let (limit, offset) = (number("limit", 10)?.min(MOST), number("offset", 0)?);
    let runs = server.app.database().api_runs(&id, status, limit, offset).await?;
    Ok(Json(runs.iter().map(shapes::run).collect::<Vec<_>>()).into_response())
}

/// The run that a client names; `missing`: what it is told where there is none.
async fn known(server: &Server, thread: &str, run: &str, missing: &str) -> Answer<ServedRun> {
    let (thread, run) = (ids::thread(thread)?, ids::given("run", run)?);
    let found = server.app.database().api_run(&run).await?;
    found.filter(|found| found.thread == thread).ok_or_else(|| ApiError::not_found(missing))
}

pub(super) async fn get(State(server): State<Arc<Server>>, Path((thread, run)): Path<(String, String)>) -> Answer {
    Ok(Json(shapes::run(&known(&server, &thread, &run, "Not Found").await?)).into_response())
}

/// Removes a run; one that is under way is stopped first, so that its thread is free.
pub(super) async fn delete(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path((thread, run)): Path<(String, String)>,
) -> Answer {
    let run = known(&server, &thread, &run, "Not Found").await?;
    if server.executor.cancel(&run, Cancel::Interrupt, caller.name()).await? {
        server.executor.over(&run).await?;
    }
    server.app.database().delete_run(&run.id).await?;
    server.bell.ring(&run.thread);
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn join(State(server): State<Arc<Server>>, Path((thread, run)): Path<(String, String)>) -> Answer {
    let run = known(&server, &thread, &run, "Run not found").await?;
    let location = format!("/threads/{}/runs/{}", run.thread, run.id);
    Ok(wait_for(&server, run, Of::Values, false, &location))
}

/// The stream of a run from its beginning, or from behind the event that its reader has seen last.
pub(super) async fn rejoin(
    State(server): State<Arc<Server>>,
    Path((thread, run)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Answer {
    let run = known(&server, &thread, &run, "Run not found").await?;
    let kwargs = &run.body.kwargs;
    let given: Vec<String> = query
        .iter()
        .filter(|(key, mode)| key == "stream_mode" && !mode.is_empty())
        .map(|(_, mode)| mode.clone())
        .collect();
    let modes = match given.is_empty() {
        true => kwargs["stream_mode"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        false => known_modes(given)?,
    };
    let ends =
        query.iter().any(|(key, value)| key == "cancel_on_disconnect" && ["true", "1"].contains(&value.as_str()));
    let told = Told {
        wanted: Wanted {
            modes: modes.into_iter().collect(),
            subgraphs: kwargs["subgraphs"].as_bool().unwrap_or(false),
        },
        ids: kwargs["resumable"].as_bool().unwrap_or(false),
        after: seen(headers.get("last-event-id"))?,
        ends_with_client: ends && !is_release_graph(&run),
    };
    let location = format!("/threads/{}/runs/{}", run.thread, run.id);
    follow(&server, run, told, &location).await
}

pub(super) async fn cancel(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path((thread, run)): Path<(String, String)>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    const NONE: &str = "No runs found to cancel.";
    let run = known(&server, &thread, &run, NONE).await?;
    let how = match query.get("action").map(String::as_str) {
        None | Some("interrupt") => Cancel::Interrupt,
        Some("rollback") => Cancel::Rollback,
        Some(other) => return Err(ApiError::invalid(format!("`action` is interrupt or rollback, not \"{other}\""))),
    };
    if !server.executor.cancel(&run, how, caller.name()).await? {
        return Err(ApiError::not_found(NONE));
    }
    if !query.get("wait").is_some_and(|wait| ["1", "true"].contains(&wait.as_str())) {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let location = format!("/threads/{}/runs/{}", run.thread, run.id);
    let mut response = wait_for(&server, run, Of::Nothing, false, &location);
    located(&mut response, &location, "join");
    Ok(response)
}
