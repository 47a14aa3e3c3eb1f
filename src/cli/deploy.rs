//! `deploy`, `plan`, and the detached runner's command.

use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::args::{DeployArgs, PlanArgs, StrategyArgs};
use super::drive::{Answers, Drove, drive};
use super::out::Out;
use super::progress::Live;
use super::{Exit, Failed, plain, prompt};
use crate::app::{App, OpenQuestion, Overrides, Start, read_request, run_detached, spawn_detached};
use crate::graph::{Advance, Failure, Stop, ThreadId};

/// The main job.
pub async fn run(app: App, args: DeployArgs, out: &Out) -> Result<Exit, Failed> {
    let StrategyArgs { strategy, steps } = args.traffic;
    let overrides = Overrides { environment: args.environment, requested_by: Some(prompt::user()), strategy, steps };
    let request = read_request(&args.path, &overrides).map_err(plain)?;
    let app = Arc::new(app.with_sink(Arc::new(Live::new(out.is_json()))));
    let start = Start { id: None, approved_by: args.yes.then(prompt::user) };
    let id = app.start_deploy_as(start, &request).await.map_err(plain)?;
    if args.detach {
        return detach(&app, &id, out).await;
    }
    out.note(&format!("release {id} of {}", request.model));
    let answers = if args.yes { Answers::Yes } else { Answers::Ask };
    let end = drive(&app, &id, answers, Advance::default(), out).await?;
    finish(&app, &id, end, out).await
}

async fn detach(app: &App, id: &ThreadId, out: &Out) -> Result<Exit, Failed> {
    app.leave(id).await.map_err(|f| (f, Some(id.clone())))?;
    spawn_detached(app.home()).map_err(|f| (f, Some(id.clone())))?;
    out.data_of(id, &json!({"thread": id}), || {
        format!("{id}\n\nlook: tidegate run show {id}\ndecide: tidegate approvals")
    })?;
    Ok(Exit::Done)
}

/// What an earlier crash left behind goes on, and a question that can expire is watched; neither's failure is this command's.
pub async fn pick_up(app: &App, out: &Out) {
    if let Err(failure) = app.pick_up_orphans().await {
        out.note(&format!("note: {failure}"));
    }
}

/// What is said when a release's (or rollback's) drive has ended.
pub async fn finish(app: &App, id: &ThreadId, end: Drove, out: &Out) -> Result<Exit, Failed> {
    pick_up(app, out).await;
    match end {
        Drove::Succeeded => succeeded(app, id, out).await,
        Drove::Waiting(open) => waiting(id, &open, out),
        Drove::Ended(exit) => Ok(exit),
        Drove::Failed(failure, exit) => Ok(out.failed_as(&failure, Some(id), exit)),
    }
}

async fn succeeded(app: &App, id: &ThreadId, out: &Out) -> Result<Exit, Failed> {
    let output = app.output(id).await.map_err(|f| (f, Some(id.clone())))?;
    if !out.is_json() {
        let curl = curl_line(app, id, &output.endpoint_url).await;
        out.note(&format!("\nlive at {}\n", output.endpoint_url));
        if let Some(curl) = curl {
            out.note(&format!("try it:\n  {curl}\n"));
        }
    }
    out.data_of(id, &output, || super::out::pretty(&output))?;
    Ok(Exit::Done)
}

/// A call that works as printed: the first golden case, or the readiness path.
async fn curl_line(app: &App, id: &ThreadId, url: &str) -> Option<String> {
    let row = app.ledger().get(id.as_str()).await.ok()??;
    let plan = row.plan?;
    let case = plan["smoke"].as_array().and_then(|cases| cases.first()).cloned();
    let Some(case) = case else { return Some(format!("curl -sS {url}/readyz")) };
    let path = case["path"].as_str()?;
    if case["body"].is_null() {
        return Some(format!("curl -sS {url}{path}"));
    }
    let body = case["body"].to_string().replace('\'', "'\\''");
    Some(format!("curl -sS {url}{path} -H 'content-type: application/json' -d '{body}'"))
}

/// The end of a command whose run waits for somebody else.
pub fn waiting(id: &ThreadId, open: &[OpenQuestion], out: &Out) -> Result<Exit, Failed> {
    let failure = match open.first() {
        None => Failure::new("waiting", "the run stands still and waits for somebody to continue it")
            .hint(format!("`tidegate run resume {id}`")),
        Some(question) if question.approval.is_some() => {
            let asked = &question.interrupt.id;
            Failure::new("waiting", format!("the release waits for a decision: {asked}"))
                .hint(format!("`tidegate approve {asked}` or `tidegate reject {asked} --reason …`"))
        }
        Some(question) => Failure::new("waiting", format!("the run waits for an answer: {}", question.interrupt.id))
            .because(question.interrupt.value.to_string())
            .hint(format!("`tidegate run resume {id} --value JSON`")),
    };
    if out.is_json() {
        return Ok(out.failed_as(&failure, Some(id), Exit::Waiting));
    }
    out.data_of(id, &(), || open.first().map_or_else(|| id.to_string(), |q| q.interrupt.id.to_string()))?;
    out.note(&format!("{}\n  next: {}", failure.message, failure.hint.as_deref().unwrap_or_default()));
    Ok(Exit::Waiting)
}

/// What would be done, and why.
pub async fn plan(app: App, args: PlanArgs, out: &Out) -> Result<Exit, Failed> {
    let StrategyArgs { strategy, steps } = args.traffic;
    let overrides = Overrides { environment: args.environment, requested_by: Some(prompt::user()), strategy, steps };
    let request = read_request(&args.path, &overrides).map_err(plain)?;
    let plan = app.plan(request).await.map_err(plain)?;
    out.data(&plan, || plan.lines().join("\n"))?;
    Ok(Exit::Done)
}

/// The detached runner.
pub async fn runner(app: App) -> Result<Exit, Failed> {
    crate::host::init_log();
    let (ask, stop) = watch::channel(Stop::No);
    let mut terms = signal(SignalKind::terminate())
        .map_err(|e| plain(Failure::new("no_signals", "signals cannot be caught").because(e.to_string())))?;
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|e| plain(Failure::new("no_signals", "signals cannot be caught").because(e.to_string())))?;
    tokio::spawn(async move {
        tokio::select! { _ = terms.recv() => (), _ = interrupts.recv() => () }
        ask.send_replace(Stop::Drain);
    });
    run_detached(Arc::new(app), stop).await.map_err(plain)?;
    Ok(Exit::Done)
}
