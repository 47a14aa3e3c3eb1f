//! What the webhook of a run is told: the run as clients see it, with its values, as LangGraph's server tells it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::project::with_interrupts;
use super::state::values_left;
use super::{resume, shapes};
use crate::app::{App, AskedCancel, NewRunWebhook, RunEnded, RunStatus, ServedRun, webhook_place};
use crate::graph::{Failure, Interrupt};

/// The run's end becomes durable, and in the same transaction that its webhook is to be told of it. False: somebody has stopped it otherwise
/// meanwhile.
pub(super) async fn end(
    app: &App,
    run: &ServedRun,
    (status, last): (RunStatus, u64),
    outcome: Value,
    cancel: Option<AskedCancel>,
) -> Result<bool, Failure> {
    let at = Utc::now();
    let told = told(app, run, status, &outcome, at).await?;
    let ended = RunEnded { status, last, outcome, cancel, at, told };
    app.database().end_run(&run.id, ended).await.map_err(|e| e.failure())
}

/// What its webhook is told; `None`: it has none.
pub(super) async fn told(
    app: &App,
    run: &ServedRun,
    status: RunStatus,
    outcome: &Value,
    at: DateTime<Utc>,
) -> Result<Option<NewRunWebhook>, Failure> {
    let Some(url) = run.body.kwargs["webhook"].as_str().map(str::to_owned) else { return Ok(None) };
    let began = (run.status == RunStatus::Running || run.first.is_some()).then_some(run.updated_at);
    let ended = ServedRun { status, outcome: outcome.clone(), updated_at: at, ..run.clone() };
    let asked: Vec<Interrupt> = serde_json::from_value(ended.outcome["interrupts"].clone()).unwrap_or_default();
    let asked: Vec<Value> = asked.iter().map(resume::told).collect();
    let mut body = shapes::run(&ended);
    body["values"] = with_interrupts(values_left(app, &ended).await.map_err(|e| e.failure())?, &asked);
    body["run_started_at"] = json!(began.map(shapes::time));
    body["run_ended_at"] = json!(shapes::time(at));
    let error = &ended.outcome["error"];
    if !error.is_null() {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        body["error"] = json!(format!("{} [{}]", text("message"), text("error")));
    }
    Ok(Some(NewRunWebhook { place: webhook_place(&url), url, body }))
}
