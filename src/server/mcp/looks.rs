//! The tools that change nothing.

use rmcp::service::{RequestContext, RoleServer};

use super::super::authorise::{Action, Subject};
use super::call::{Answered, Call, Refused, done};
use super::told::{Approval, Decide, Planned, Release, Releases, Row, Trouble};
use super::{Mcp, arguments, explain, follow};
use crate::app::OpenQuestion;
use crate::graph::{Failure, Thread, ThreadId, ThreadStatus};
use crate::release::{LedgerError, ReleaseFilter};

/// A ledger's error as a failure.
pub fn of_ledger(error: LedgerError) -> Failure {
    Failure::new(error.code(), error.to_string())
}

/// What would be done. It reads the project's files, as a release does.
pub async fn plan(call: &Call<'_>) -> Answered {
    let given: arguments::Plan = call.arguments()?;
    call.may(Action::Run, &Subject::Server)?;
    let by = call.caller.name();
    let request = arguments::request(given.request.as_ref(), given.path.as_deref(), given.environment, by)?;
    let plan = call.mcp.app.plan(request).await?;
    let whole = plan.to_value().as_object().cloned().unwrap_or_default();
    done(&Planned {
        model: plan.model.to_string(),
        version: plan.version.clone(),
        previous_version: plan.previous_version().map(str::to_owned),
        strategy: plan.strategy,
        approval: plan.approval.clone(),
        summary: plan.lines(),
        plan: whole,
    })
}

/// How a release stands.
pub async fn status(call: &Call<'_>) -> Answered {
    let given: arguments::Status = call.arguments()?;
    let wait = arguments::seconds(given.wait_seconds, 0)?;
    let thread = call.mcp.app.find_thread(&given.thread_id).await?;
    call.may(Action::Look, &Subject::Thread(thread.id.to_string()))?;
    let of = || Refused::of(&thread.id);
    let since = call.mcp.app.database().last_event(&thread.id).await.map_err(|e| of()(e.failure()))?;
    follow::follow(call.mcp, &call.context, &thread.id, since, wait).await.map_err(of())?;
    done(&release(call.mcp, &call.context, &thread.id).await.map_err(of())?)
}

/// Releases, newest first.
pub async fn list(call: &Call<'_>) -> Answered {
    let given: arguments::List = call.arguments()?;
    call.may(Action::Look, &Subject::Server)?;
    let limit = given.limit.unwrap_or(50);
    if !(1..=arguments::MOST_RELEASES).contains(&limit) {
        let most = arguments::MOST_RELEASES;
        return Err(arguments::wrong(format!("`limit` is a number from 1 to {most}, not {limit}")).into());
    }
    let filter = ReleaseFilter {
        model: given.model,
        status: given.state.into_iter().collect(),
        live: given.live,
        // One more tells whether there are more.
        limit: Some(limit + 1),
        ..ReleaseFilter::default()
    };
    let rows = call.mcp.app.ledger().list(&filter).await.map_err(of_ledger)?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    done(&Releases { releases: rows.into_iter().take(most).map(Row::from).collect(), more })
}

/// Why a run went as it did.
pub async fn explain(call: &Call<'_>) -> Answered {
    let given: arguments::Explain = call.arguments()?;
    let thread = call.mcp.app.find_thread(&given.thread_id).await?;
    call.may(Action::Look, &Subject::Thread(thread.id.to_string()))?;
    done(&explain::explain(&call.mcp.app, &thread).await.map_err(Refused::of(&thread.id))?)
}

/// How a release stands now.
pub async fn release(mcp: &Mcp, context: &RequestContext<RoleServer>, id: &ThreadId) -> Result<Release, Failure> {
    let app = &mcp.app;
    let thread = app.thread(id).await?;
    let row = app.ledger().get(id.as_str()).await.map_err(of_ledger)?;
    let open = app.questions(Some(id)).await?;
    let latest = app.store().latest(id, "").await.map_err(|e| e.failure())?;
    let over = thread.status.is_terminal();
    let due = latest.iter().filter(|_| !over).flat_map(|checkpoint| &checkpoint.frontier);
    let model = row.as_ref().map(|row| row.model_name.clone()).or_else(|| thread.labels.get("model").cloned());
    let output = match thread.status {
        ThreadStatus::Succeeded if row.is_some() => Some(app.output(id).await?),
        _ => None,
    };
    Ok(Release {
        thread_id: id.to_string(),
        workflow: thread.workflow.clone(),
        model,
        version: row.as_ref().and_then(|row| row.model_version.clone()),
        status: thread.status,
        ended: over,
        release: row.as_ref().map(|row| row.status),
        requested_by: row.as_ref().and_then(|row| row.requested_by.clone()),
        next: due.map(|task| task.node.to_string()).collect(),
        approval: open.iter().find_map(|question| approval(mcp, context, question)),
        failure: trouble(&thread),
        output,
    })
}

/// Why a thread stands as it does, where it did not go well.
pub fn trouble(thread: &Thread) -> Option<Trouble> {
    let unwinding = thread.unwinding.as_ref().map(|unwinding| &unwinding.failure);
    thread.failure.as_ref().or(unwinding).map(Trouble::from)
}

fn approval(mcp: &Mcp, context: &RequestContext<RoleServer>, question: &OpenQuestion) -> Option<Approval> {
    let about = question.approval.as_ref()?;
    let id = question.interrupt.id.to_string();
    let home = quoted(&mcp.app.home().dir().display().to_string());
    Some(Approval {
        version: about.version.clone(),
        digest: about.digest.clone(),
        asked_at: question.interrupt.asked_at,
        expires_at: question.interrupt.expires_at,
        shows: about.evidence.lines(),
        decide: Decide {
            approve: format!("tidegate --home {home} approve {id}"),
            reject: format!("tidegate --home {home} reject {id} --reason '…'"),
            url: super::call::base(context).map(|base| format!("{base}/approvals/{id}")),
        },
        question_id: id,
    })
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted() {
        assert_eq!(quoted("/srv/tidegate-home"), "/srv/tidegate-home");
        assert_eq!(quoted("/srv/it's here"), r"'/srv/it'\''s here'");
    }
}
