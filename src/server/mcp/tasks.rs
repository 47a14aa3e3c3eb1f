//! Releases as tasks (the extension `io.modelcontextprotocol/tasks`): a task is a thread, so it is as durable as the store, whichever
//! process answers for it.

use rmcp::model::{
    CallToolResponse, CallToolResult, CreateTaskResult, DetailedTask, ErrorData, GetTaskResult, Task, TaskPayload,
    TaskStatus,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::Value;

use super::super::authorise::{Action, Subject, authorise};
use super::changes::{is_undone, releasing, stop};
use super::looks::release;
use super::told::Release;
use super::{Mcp, call};
use crate::graph::{Failure, Thread, ThreadId, ThreadStatus};

/// How often a client should look.
const POLL_EVERY_MS: u64 = 2_000;

fn task(thread: &Thread, status: TaskStatus) -> Task {
    let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    // Without an end to its time: releases stay.
    let task = Task::new(thread.id.to_string(), status, time(thread.created_at), time(thread.updated_at));
    task.with_poll_interval_ms(POLL_EVERY_MS)
}

/// A release that has begun, as a task.
pub async fn begun(mcp: &Mcp, id: &ThreadId) -> Result<CallToolResponse, Failure> {
    let thread = mcp.app.thread(id).await?;
    let task = task(&thread, TaskStatus::Working).with_status_message(format!("release {id} has begun"));
    Ok(CreateTaskResult::new(task).into())
}

/// The thread of a task; what is no release is no task.
async fn known(mcp: &Mcp, id: &str, action: Action, context: &RequestContext<RoleServer>) -> Result<Thread, ErrorData> {
    let caller = mcp.caller(context)?;
    let subject = Subject::Thread(id.to_owned());
    authorise(&caller, action, &subject).map_err(|refused| ErrorData::invalid_request(refused.detail, None))?;
    releasing(mcp, id).await.map_err(|failure| match failure.code.as_str() {
        "no_thread" | "not_a_release" => ErrorData::invalid_params(format!("there is no task `{id}`"), None),
        _ => internal(&failure),
    })
}

fn internal(failure: &Failure) -> ErrorData {
    ErrorData::internal_error(call::words(failure), None)
}

/// How a task stands.
pub async fn get(mcp: &Mcp, id: &str, context: &RequestContext<RoleServer>) -> Result<GetTaskResult, ErrorData> {
    let thread = known(mcp, id, Action::Look, context).await?;
    let stands = release(mcp, context, &thread.id).await.map_err(|failure| internal(&failure))?;
    let told = task(&thread, TaskStatus::Working).with_status_message(message(&stands));
    Ok(GetTaskResult::new(DetailedTask::new(told, payload(&stands)?)))
}

fn message(stands: &Release) -> String {
    match (&stands.approval, &stands.failure) {
        (Some(approval), _) => {
            let url = approval.decide.url.as_ref().map(|url| format!(", or at {url}")).unwrap_or_default();
            format!("waits for a person: `{}`{url}", approval.decide.approve)
        }
        (None, Some(failure)) => format!("{}: {}", stands.status.word(), failure.message),
        (None, None) if stands.next.is_empty() => stands.status.word().to_owned(),
        (None, None) => format!("{}: {}", stands.status.word(), stands.next.join(", ")),
    }
}

/// What waits for a person is at work for the client: it has no say in it.
fn payload(stands: &Release) -> Result<TaskPayload, ErrorData> {
    let failed = match stands.status {
        ThreadStatus::Pending | ThreadStatus::Running | ThreadStatus::Interrupted | ThreadStatus::Sleeping => {
            return Ok(TaskPayload::Working);
        }
        ThreadStatus::Cancelled => return Ok(TaskPayload::Cancelled),
        ThreadStatus::Succeeded => false,
        // Nobody but a person takes a stuck one further.
        ThreadStatus::Failed | ThreadStatus::Stuck => true,
    };
    let of = |e: serde_json::Error| ErrorData::internal_error(e.to_string(), None);
    let stands = serde_json::to_value(stands).map_err(of)?;
    let told = if failed { CallToolResult::structured_error(stands) } else { CallToolResult::structured(stands) };
    match serde_json::to_value(told).map_err(of)? {
        Value::Object(result) => Ok(TaskPayload::Completed { result }),
        _ => Err(ErrorData::internal_error("a result is no object", None)),
    }
}

/// A task never asks its client anything.
pub async fn update(mcp: &Mcp, id: &str, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    known(mcp, id, Action::Look, context).await?;
    Err(ErrorData::invalid_params("the task asks nothing of its client; a person decides what it waits for", None))
}

/// Stops a release and undoes it.
pub async fn cancel(mcp: &Mcp, id: &str, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    let thread = known(mcp, id, Action::Run, context).await?;
    if is_undone(&thread) {
        return Ok(());
    }
    let why = Failure::new("cancelled", format!("cancelled by {}", mcp.caller(context)?.name()));
    stop(mcp, &thread.id, why).await.map_err(|failure| match failure.code.as_str() {
        "release_over" | "thread_over" => ErrorData::invalid_params(call::words(&failure), None),
        _ => internal(&failure),
    })
}
