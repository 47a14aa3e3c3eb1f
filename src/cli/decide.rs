//! `approvals`, `approve`, `reject`: deciding from another terminal.

use std::sync::Arc;

use serde_json::json;

use super::args::{ApproveArgs, RejectArgs};
use super::drive::{Answers, Drove, drive};
use super::out::Out;
use super::progress::Live;
use super::show::{ago, table};
use super::{Exit, Failed, deploy, plain, prompt};
use crate::app::{App, Decide, missing_words};
use crate::graph::{Advance, ThreadStatus};
use crate::release::{Person, Verdict};

/// The open questions.
pub async fn list(app: App, out: &Out) -> Result<Exit, Failed> {
    let open = app.questions(None).await.map_err(plain)?;
    let (mut rows, mut missing) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
    for q in &open {
        let said = app.said(q).await.map_err(plain)?;
        rows.push(json!({
            "id": q.interrupt.id, "thread": q.interrupt.thread, "node": q.interrupt.key.node,
            "asked_at": q.interrupt.asked_at, "expires_at": q.interrupt.expires_at, "digest": q.interrupt.digest,
            "value": q.interrupt.value, "votes": said.votes, "missing": said.missing,
        }));
        missing.push(missing_words(&said.missing));
    }
    out.data(&rows, || {
        if open.is_empty() {
            return "nothing waits for a decision".to_owned();
        }
        let mut lines = table(["question", "about", "asked", "missing", "thread"]);
        for (q, missing) in open.iter().zip(missing) {
            let about = q
                .approval
                .as_ref()
                .map_or_else(|| q.interrupt.value.to_string(), |a| format!("{} {}", a.model, a.version));
            let (id, asked) = (q.interrupt.id.to_string(), ago(q.interrupt.asked_at));
            lines.add_row([id, about, asked, missing, q.interrupt.thread.to_string()]);
        }
        lines.to_string()
    })?;
    Ok(Exit::Done)
}

/// Yes.
pub async fn approve(app: App, args: ApproveArgs, out: &Out) -> Result<Exit, Failed> {
    let ApproveArgs { id, reason, digest, overrides } = args;
    let (verdict, who, via) = (Verdict::Approve, Person::local(prompt::user()), "approve".to_owned());
    decide(app, &id, Decide { verdict, who, via, reason, digest, overrides }, out).await
}

/// No.
pub async fn reject(app: App, args: RejectArgs, out: &Out) -> Result<Exit, Failed> {
    let (verdict, who, via) = (Verdict::Reject, Person::local(prompt::user()), "reject".to_owned());
    let decided = Decide { verdict, who, via, reason: Some(args.reason), digest: None, overrides: false };
    decide(app, &args.id, decided, out).await
}

async fn decide(app: App, meant: &str, decide: Decide, out: &Out) -> Result<Exit, Failed> {
    let app = Arc::new(app.with_sink(Arc::new(Live::new(out.is_json()))));
    let question = app.find_question(meant).await.map_err(plain)?;
    let decided = app.decide(&question, decide).await.map_err(|f| (f, Some(question.interrupt.thread.clone())))?;
    let id = decided.thread;
    if !decided.missing.is_empty() {
        let told = json!({"thread": id, "question": question.interrupt.id, "missing": decided.missing});
        out.data_of(&id, &told, || format!("counted; still missing: {}", missing_words(&decided.missing)))?;
        return Ok(Exit::Waiting);
    }
    if let Some(who) = decided.attended_by
        && app.taken_over(&id).await.map_err(plain)?
    {
        out.data_of(&id, &json!({"thread": id, "question": question.interrupt.id, "goes_on_in": who}), || {
            format!("decided; {who} goes on with it")
        })?;
        return Ok(Exit::Done);
    }
    let thread = app.thread(&id).await.map_err(plain)?;
    let waits = matches!(thread.status, ThreadStatus::Interrupted | ThreadStatus::Running);
    if !waits || app.is_advanced(&thread) {
        out.data_of(&id, &json!({"thread": id, "question": question.interrupt.id}), || "decided".to_owned())?;
        return Ok(Exit::Done);
    }
    let end = match drive(&app, &id, Answers::Ask, Advance::default(), out).await {
        // A runner was faster; the decision stands.
        Err((failure, _)) if failure.code == "lease_held" => {
            out.data_of(
                &id,
                &json!({"thread": id, "question": question.interrupt.id, "goes_on_in": failure.message}),
                || format!("decided; {}", failure.message),
            )?;
            return Ok(Exit::Done);
        }
        end => end?,
    };
    match end {
        // A release that ends because it was rejected is what `reject` was asked for.
        Drove::Failed(failure, _) if failure.code == "rejected" => {
            out.data_of(&id, &json!({"thread": id, "question": question.interrupt.id, "status": "failed"}), || {
                format!("{}; what it had done is undone", failure.message)
            })?;
            Ok(Exit::Done)
        }
        end => deploy::finish(&app, &id, end, out).await,
    }
}
