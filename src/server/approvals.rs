//! What waits for a person, and the decision: of every release and run of the home, whoever began it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::authorise::{Action, Caller, Subject, authorise};
use super::body::object;
use super::error::{Answer, ApiError};
use super::{Server, state};
use crate::app::{Decide, Decided, LINK_TTL_MS, LinkWanted, OpenQuestion, link_url};
use crate::graph::{Failure, InterruptId};
use crate::release::{Verdict, units};

/// A question as people are shown it. What its `value` holds is what the digest is of.
async fn shown(server: &Server, question: &OpenQuestion) -> Answer<Value> {
    let said = server.app.said(question).await?;
    let asked = &question.interrupt;
    let about = question.approval.as_ref();
    Ok(json!({
        "id": asked.id, "thread_id": asked.thread, "node": asked.key.node,
        "model": about.map(|about| &about.model), "version": about.map(|about| &about.version),
        "asked_at": asked.asked_at, "expires_at": asked.expires_at,
        "digest": about.map_or(&asked.digest, |about| &about.digest), "value": asked.value,
        "votes": said.votes, "missing": said.missing,
    }))
}

/// The questions that nobody has answered yet.
pub(super) async fn list(State(server): State<Arc<Server>>) -> Answer {
    let open = server.app.questions(None).await?;
    let mut all = Vec::with_capacity(open.len());
    for question in &open {
        all.push(shown(&server, question).await?);
    }
    Ok(state::ok(&Value::Array(all)))
}

async fn known(server: &Server, id: &str) -> Answer<OpenQuestion> {
    let found = server.app.store().interrupt(&InterruptId::from(id)).await?;
    found.map(OpenQuestion::from).ok_or_else(|| ApiError::not_found(format!("there is no question {id}")))
}

/// One question, also one that has been answered: then with who, when and what.
pub(super) async fn get(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer {
    let question = known(&server, &id).await?;
    let mut told = shown(&server, &question).await?;
    told["answer"] = json!(question.interrupt.answer);
    told["withdrawn"] = json!(question.interrupt.withdrawn);
    Ok(state::ok(&told))
}

/// A yes or a no to an approval. It carries the digest of what was shown, and is refused where that is not what is asked now.
pub(super) async fn decide(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Response> {
    let fields = object(body).await?;
    let caller = caller.still(&server.app).await?;
    authorise(&caller, Action::Decide, &Subject::Server)?;
    let word = fields.word("verdict", &["approve", "reject"])?;
    let word = word.ok_or_else(|| ApiError::invalid("`verdict` is required: approve or reject"))?;
    let digest = fields.text("digest")?.map(str::to_owned);
    let digest =
        digest.ok_or_else(|| ApiError::invalid("`digest` is required: the one that the question was shown with"))?;
    let question = known(&server, &id).await?;
    let verdict = if word == "approve" { Verdict::Approve } else { Verdict::Reject };
    let decide = Decide {
        verdict,
        who: caller.person().clone(),
        via: "api".to_owned(),
        reason: fields.text("reason")?.map(str::to_owned),
        digest: Some(digest),
        overrides: fields.flag("override")?,
    };
    let decided = record(&server, &question, decide).await?;
    let told = json!({
        "id": id, "thread_id": decided.thread, "verdict": word, "by": caller.name(), "goes_on_in": decided.attended_by,
        "decided": decided.missing.is_empty(), "missing": decided.missing,
    });
    Ok(state::ok(&told))
}

/// Records a decision, whoever's form it came in, and sees to it that the run goes on.
pub(super) async fn record(server: &Server, question: &OpenQuestion, decide: Decide) -> Result<Decided, Failure> {
    let decided = server.app.decide(question, decide).await?;
    goes_on(server, &decided).await?;
    Ok(decided)
}

/// Sees to it that a run goes on whose question somebody has just decided.
pub(super) async fn goes_on(server: &Server, decided: &Decided) -> Result<(), Failure> {
    if decided.missing.is_empty() && decided.attended_by.is_none() {
        // This process has taken it on by deciding; its runner, or the run that stands there, goes on with it.
        server.app.leave(&decided.thread).await?;
    }
    server.bell.ring(&decided.thread);
    server.executor.kick(&decided.thread);
    Ok(())
}

/// Lets a link count no more: its person may, and an admin.
pub(super) async fn unlink(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path((question, link)): Path<(String, String)>,
) -> Answer<Response> {
    let found = server.app.find_link(&link).await?;
    if found.question.as_str() != question {
        return Err(ApiError::not_found(format!("question {question} has no such link")));
    }
    if found.holder != caller.name() {
        authorise(&caller, Action::Hand, &Subject::Server)?;
    }
    server.app.revoke_link(&found, caller.name()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes a link that decides this question once, as one person: an approver for themselves, an admin for anybody.
pub(super) async fn link(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Response> {
    let fields = object(body).await?;
    let caller = caller.still(&server.app).await?;
    let holder = fields.text("for")?.unwrap_or(caller.name()).to_owned();
    let question = known(&server, &id).await?;
    let for_others = authorise(&caller, Action::Hand, &Subject::Thread(question.interrupt.thread.to_string()));
    if holder != caller.name() {
        for_others.clone()?;
        let asked_by = question.approval.as_ref().and_then(|about| about.evidence.requested_by.as_deref());
        if asked_by == Some(caller.name()) {
            // They would hold what approves their own request in another's name.
            let own = Failure::new("own_request", format!("{} asked for this release", caller.name()));
            return Err(own.hint("let somebody else send links for it, or a webhook's `links_for`").into());
        }
    }
    let within = for_others.is_err().then(|| caller.person().clone());
    let ttl_ms = match fields.text("ttl")? {
        Some(text) => units::parse_duration_ms(text).map_err(|e| ApiError::invalid(format!("`ttl`: {e}")))?,
        None => LINK_TTL_MS,
    };
    let wanted = LinkWanted { holder, ttl_ms, by: caller.name().to_owned(), within };
    let (made, token) = server.app.make_link(&question, wanted).await?;
    let told = json!({
        "id": made.id, "question": made.question, "for": made.holder, "expires_at": made.expires_at,
        "digest": question.approval.as_ref().map(|about| &about.digest), "url": link_url(&server.base, &token),
    });
    Ok(state::ok(&told))
}
