//! Waiting for a thread, bounded, and telling the client what happens meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{RequestContext, RoleServer};

use super::Mcp;
use crate::graph::{Event, EventRow, Failure, InterruptId, ThreadId, ThreadStatus};

/// Longest wait of a call: most clients give up on an answer after a minute, and so does the server.
pub const MOST_SECONDS: u32 = 50;
/// Pause between two looks: the one who advances the thread may be another process, which rings no bell here.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Events that are read at once.
const MOST_EVENTS: usize = 500;

/// Waits until a thread has ended, asks something that it did not ask before, or `seconds` are over. Each of its events behind `since` that
/// tells of a step is told as progress, where the client wants that.
pub async fn follow(
    mcp: &Mcp,
    context: &RequestContext<RoleServer>,
    id: &ThreadId,
    mut since: u64,
    seconds: u32,
) -> Result<(), Failure> {
    if seconds == 0 {
        return Ok(());
    }
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let token = context.meta.get_progress_token();
    // A question that is open already is known to whoever waits.
    let known = if since == 0 { BTreeSet::new() } else { open(mcp, id).await? };
    let mut told = 0_u32;
    loop {
        // Before the events: what it has come to is then in them.
        let status = mcp.app.thread(id).await?.status;
        let asks =
            status == ThreadStatus::Interrupted && open(mcp, id).await?.iter().any(|asked| !known.contains(asked));
        if let Some(token) = &token {
            for row in mcp.app.store().events(id, since, MOST_EVENTS).await.map_err(|e| e.failure())? {
                since = row.seq;
                if let Some(message) = message(&row) {
                    told += 1;
                    tell(context, token, told, message).await;
                }
            }
        }
        let over = asks || status.is_terminal() || status == ThreadStatus::Stuck;
        if over || Instant::now() >= end {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now()))) => {}
            () = context.ct.cancelled() => return Ok(()),
        }
    }
}

async fn open(mcp: &Mcp, id: &ThreadId) -> Result<BTreeSet<InterruptId>, Failure> {
    Ok(mcp.app.questions(Some(id)).await?.into_iter().map(|question| question.interrupt.id).collect())
}

async fn tell(context: &RequestContext<RoleServer>, token: &ProgressToken, told: u32, message: String) {
    let progress = ProgressNotificationParam::new(token.clone(), f64::from(told)).with_message(message);
    // Whoever is gone hears nothing; the thread goes on.
    if let Err(error) = context.peer.notify_progress(progress).await {
        tracing::debug!(%error, "progress was not told");
    }
}

/// A step in words; `None` for what is no step.
fn message(row: &EventRow) -> Option<String> {
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    match &row.event {
        Event::Accepted { workflow } => Some(format!("{workflow}: accepted")),
        Event::NodeStarted { node, attempt: 1, .. } => Some(format!("{node}: begins")),
        Event::NodeStarted { node, attempt, .. } => Some(format!("{node}: attempt {attempt}")),
        Event::NodeFinished { node, duration_ms, .. } => {
            Some(format!("{node}: done in {:.1} s", seconds(*duration_ms)))
        }
        Event::NodeFailed { node, failure, retry_in_ms, .. } => {
            let again = retry_in_ms.map(|ms| format!("; again in {:.1} s", seconds(ms))).unwrap_or_default();
            Some(format!("{node}: {} ({}){again}", failure.message, failure.code))
        }
        Event::Interrupted { node, .. } => Some(format!("{node}: asks a person")),
        Event::Voted { by, verdict, .. } => Some(format!("{by}: {verdict}")),
        Event::Answered { by, via, .. } => Some(format!("answered by {by} through {via}")),
        Event::UndoStarted { failure } => Some(format!("undoing: {}", failure.message)),
        Event::EffectUndone { effect, .. } => Some(format!("undone: {effect}")),
        Event::UndoFailed { effect, failure, .. } => Some(format!("cannot undo {effect}: {}", failure.message)),
        Event::StatusChanged { status, .. } if *status != ThreadStatus::Running => {
            Some(format!("it is {}", status.word()))
        }
        Event::Custom { node, name, data, .. } if name == "verdict" => {
            Some(format!("{node}: {}", data["reason"].as_str().unwrap_or_default()))
        }
        Event::Advancing { .. }
        | Event::Checkpointed { .. }
        | Event::Cached { .. }
        | Event::EffectIntended { .. }
        | Event::EffectDone { .. }
        | Event::EffectFailed { .. }
        | Event::UndoAccepted { .. }
        | Event::Signalled { .. }
        | Event::Woke { .. }
        | Event::StopAsked { .. }
        | Event::Forked { .. }
        | Event::Imported { .. }
        | Event::Migrated { .. }
        | Event::CommitPoint { .. }
        | Event::StatusChanged { .. }
        | Event::Custom { .. }
        | Event::Wrote { .. }
        | Event::Unknown => None,
    }
}
