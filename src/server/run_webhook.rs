//! What the webhook of a run is told: the run as clients see it, with its values, as LangGraph's server tells it.

use chrono::Utc;
use serde_json::{Value, json};

use super::project::with_interrupts;
use super::state::values_left;
use super::{resume, shapes};
use crate::app::{App, NewRunWebhook, RunStatus, ServedRun};
use crate::graph::{Failure, Interrupt};

/// The run's end becomes durable, and in the same transaction that its webhook is to be told of it.
pub(super) async fn end(
    app: &App,
    run: &ServedRun,
    status: RunStatus,
    last: u64,
    outcome: Value,
) -> Result<(), Failure> {
    let of = |e: crate::graph::StoreError| e.failure();
    let at = Utc::now();
    let Some(url) = run.body.kwargs["webhook"].as_str().map(str::to_owned) else {
        return app.database().end_run(&run.id, status, last, outcome, at).await.map_err(of);
    };
    let began = (run.status == RunStatus::Running || run.first.is_some()).then_some(run.updated_at);
    let ended = ServedRun { status, outcome, updated_at: at, ..run.clone() };
    let asked: Vec<Interrupt> = serde_json::from_value(ended.outcome["interrupts"].clone()).unwrap_or_default();
    let asked: Vec<Value> = asked.iter().map(resume::told).collect();
    let mut body = shapes::run(&ended);
    body["values"] = with_interrupts(values_left(app, &ended).await.map_err(of)?, &asked);
    body["run_started_at"] = json!(began.map(shapes::time));
    body["run_ended_at"] = json!(shapes::time(at));
    let error = &ended.outcome["error"];
    if !error.is_null() {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        body["error"] = json!(format!("{} [{}]", text("message"), text("error")));
    }
    let told = NewRunWebhook { url, body };
    app.database().end_run_and_tell(&run.id, (status, last), ended.outcome, at, told).await.map_err(of)
}
