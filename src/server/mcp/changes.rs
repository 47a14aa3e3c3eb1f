//! The tools that change something.

use std::time::Duration;

use super::super::authorise::{Action, Subject};
use super::call::{Answered, Call, Refused, done};
use super::confirm::{Confirmed, confirm};
use super::looks::{of_ledger, release};
use super::{Mcp, arguments, follow, tasks};
use crate::app::{RollbackRequest, Start};
use crate::graph::{Failure, Thread, ThreadId, ThreadStatus};
use crate::release::{ModelName, ReleaseRow, rollback_target};

/// How long a rollback is waited for where nobody says otherwise: it takes moments where the old version is still warm.
const ROLLBACK_SECONDS: u32 = 30;

/// Begins a release. A client that knows tasks gets one, unless the call itself wants to wait.
pub async fn start(call: &Call<'_>) -> Answered {
    let given: arguments::Start = call.arguments()?;
    call.may(Action::Run, &Subject::Server)?;
    let wait = arguments::seconds(given.wait_seconds, 0)?;
    let by = call.caller.name();
    let request = arguments::request(given.request.as_ref(), given.path.as_deref(), given.environment, by)?;
    let mcp = call.mcp.clone();
    let begun = async move {
        let id = mcp.app.start_deploy_as(Start::default(), &request).await?;
        mcp.hand_over(&id).await?;
        Ok(id)
    };
    let id = call.mcp.through(begun).await?;
    let knows_tasks = call.context.client_capabilities().is_some_and(|client| client.supports_tasks());
    if knows_tasks && given.wait_seconds.is_none() {
        return tasks::begun(call.mcp, &id).await.map_err(Refused::of(&id));
    }
    follow::follow(call.mcp, &call.context, &id, 0, wait).await.map_err(Refused::of(&id))?;
    done(&release(call.mcp, &call.context, &id).await.map_err(Refused::of(&id))?)
}

/// Stops a release and undoes it.
pub async fn cancel(call: &Call<'_>) -> Answered {
    let given: arguments::Cancel = call.arguments()?;
    call.may(Action::Run, &Subject::Thread(given.thread_id.clone()))?;
    let thread = releasing(call.mcp, &given.thread_id).await?;
    let id = thread.id.clone();
    if !is_undone(&thread) {
        let model = thread.labels.get("model").cloned().unwrap_or_default();
        let question = format!("Stop the release {id} of {model}, and undo everything that it did?");
        match confirm(call, &question).await {
            Confirmed::Yes => {}
            Confirmed::No(why) => return Err(Refused::of(&id)(why)),
            Confirmed::Asks(asks) => return Ok((*asks).into()),
        }
        let reason = given.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let why = Failure::new("cancelled", format!("cancelled by {}{reason}", call.caller.name()));
        stop(call.mcp, &id, why).await.map_err(Refused::of(&id))?;
    }
    done(&release(call.mcp, &call.context, &id).await.map_err(Refused::of(&id))?)
}

/// A thread that releases a model or takes one back, by its whole id.
pub async fn releasing(mcp: &Mcp, id: &str) -> Result<Thread, Failure> {
    let thread = mcp.app.thread(&ThreadId::from(id)).await?;
    if !mcp.app.is_release(&thread.id).await? {
        return Err(Failure::new("not_a_release", format!("run {id} is no release and no rollback"))
            .hint(format!("look at it with `tidegate run show {id}`")));
    }
    Ok(thread)
}

/// Whether nothing of a thread is left to be undone.
pub fn is_undone(thread: &Thread) -> bool {
    matches!(thread.status, ThreadStatus::Cancelled | ThreadStatus::Failed)
}

/// Cancels a thread, and waits a while until everything is undone. It goes on also when nobody waits any more.
pub async fn stop(mcp: &Mcp, id: &ThreadId, why: Failure) -> Result<(), Failure> {
    let (of, thread) = (mcp.clone(), id.clone());
    let work = mcp.through(async move { of.app.cancel(&thread, true, why).await });
    match tokio::time::timeout(Duration::from_secs(follow::MOST_SECONDS.into()), work).await {
        Ok(ended) => ended.map(drop),
        // It is being undone; its status says so.
        Err(_) => Ok(()),
    }
}

/// Back to an earlier version.
pub async fn rollback(call: &Call<'_>) -> Answered {
    let given: arguments::Rollback = call.arguments()?;
    call.may(Action::Run, &Subject::Server)?;
    let wait = arguments::seconds(given.wait_seconds, ROLLBACK_SECONDS)?;
    let model = ModelName::new(&given.model).map_err(|e| Failure::new("request_value", e.to_string()))?;
    let history = call.mcp.app.ledger().history(&given.model).await.map_err(of_ledger)?;
    // What cannot be gone back to is refused by the rollback itself, in its own words.
    if let Some(question) = question(&history, given.to.as_deref()) {
        match confirm(call, &question).await {
            Confirmed::Yes => {}
            Confirmed::No(why) => return Err(why.into()),
            Confirmed::Asks(asks) => return Ok((*asks).into()),
        }
    }
    let by = Some(call.caller.name().to_owned());
    let request = RollbackRequest { model, to: given.to, reason: given.reason, requested_by: by };
    let mcp = call.mcp.clone();
    let begun = async move {
        let id = mcp.app.start_rollback(&request).await?;
        mcp.hand_over(&id).await?;
        Ok(id)
    };
    let id = call.mcp.through(begun).await?;
    follow::follow(call.mcp, &call.context, &id, 0, wait).await.map_err(Refused::of(&id))?;
    done(&release(call.mcp, &call.context, &id).await.map_err(Refused::of(&id))?)
}

/// What a person is asked before traffic goes back; `None` where there is nothing to go back to.
fn question(history: &[ReleaseRow], to: Option<&str>) -> Option<String> {
    let live = history.iter().find(|row| row.live)?;
    let target = rollback_target(history, to)?;
    let (from, to) = (live.model_version.as_deref().unwrap_or("?"), target.model_version.as_deref()?);
    Some(format!("Send all traffic of {} back from version {from} to version {to}?", live.model_name))
}
