//! One question by a link: as its person sees it, and their decision. Nothing else is reached from here. A GET changes nothing, however often
//! mail scanners follow the link; who sends the form has its address, which nobody else's page knows.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;

use super::approval::{Spoken, State, replaced};
use super::assets::{Assets, assets};
use super::error::{PageError, Told};
use super::form::{Form, REASON_CHARS};
use super::words::{When, short};
use super::{Shown, evidence, html};
use crate::app::{LINK_PATH, Linked, missing_words};
use crate::release::Verdict;
use crate::server::authorise::{Action, Caller, Subject, authorise};
use crate::server::identity::{Peer, too_many};
use crate::server::{Server, approvals};

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage {
    assets: &'static Assets,
    title: String,
    /// As whom it decides.
    holder: String,
    asked: When,
    /// When the link ends.
    until: When,
    state: State,
    /// What was said with it before.
    said: Option<Spoken>,
    /// Something else is asked now than when it was made.
    outdated: bool,
    evidence: Option<evidence::Shown>,
    terms: Option<(String, String)>,
    requested_by: Option<String>,
    digest: String,
    votes: Vec<Spoken>,
    missing: String,
    most_chars: usize,
    /// What was written before it was refused.
    reason: String,
    refused: Option<Told>,
}

/// Where a request comes from.
type Address = Option<Extension<Peer>>;

/// What a link is about; wrong ones are held up as wrong keys are.
async fn linked(server: &Server, from: &Address, token: &str) -> Result<Linked, PageError> {
    let linked = match server.app.linked(token).await {
        Ok(linked) => linked,
        Err(failure) if failure.code == "link_unknown" => {
            server.identities.was_wrong(from.as_ref().map(|peer| peer.0))?;
            return Err(failure.into());
        }
        Err(failure) => return Err(failure.into()),
    };
    if let Some(buckets) = &server.buckets {
        // As all that this person asks for.
        buckets.take(&linked.person.name).map_err(|wait| too_many("you ask too often", wait))?;
    }
    let subject = Subject::Thread(linked.question.interrupt.thread.to_string());
    authorise(&Caller::of(linked.person.clone()), Action::Decide, &subject)?;
    Ok(linked)
}

/// The question.
pub(in crate::server) async fn show(
    Shared(server): Shared<Arc<Server>>,
    from: Address,
    Path(token): Path<String>,
) -> Shown {
    let linked = linked(&server, &from, &token).await?;
    shown(&server, linked, String::new(), None).await
}

/// The decision.
pub(in crate::server) async fn decide(
    Shared(server): Shared<Arc<Server>>,
    from: Address,
    Path(token): Path<String>,
    body: Body,
) -> Shown {
    // First of all it is a link; then, once all that is said is there, it is held against what holds by then.
    linked(&server, &from, &token).await?;
    let form = Form::read(body).await?;
    let about = linked(&server, &from, &token).await?;
    match decided(&server, &about, &form).await {
        Ok(()) => Ok(Redirect::to(&format!("{LINK_PATH}{}", token.trim())).into_response()),
        Err(refused) => {
            // As it is asked now: somebody else may have decided, or the evidence is another one.
            let now = linked(&server, &from, &token).await?;
            let reason = form.get("reason").map(|text| short(text, REASON_CHARS)).unwrap_or_default();
            shown(&server, now, reason, Some(refused)).await
        }
    }
}

async fn decided(server: &Server, linked: &Linked, form: &Form) -> Result<(), PageError> {
    let verdict = match form.get("verdict") {
        Some("approve") => Verdict::Approve,
        Some("reject") => Verdict::Reject,
        _ => return Err(PageError::new(StatusCode::UNPROCESSABLE_ENTITY, "this is neither a yes nor a no")),
    };
    let decided = server.app.decide_by_link(linked, verdict, form.reason()?).await?;
    approvals::goes_on(server, &decided).await?;
    Ok(())
}

async fn shown(server: &Server, linked: Linked, reason: String, refused: Option<PageError>) -> Shown {
    let now = Utc::now();
    let outdated = linked.is_outdated();
    let Linked { link, question, .. } = linked;
    let (asked, about) = (&question.interrupt, question.approval.as_ref());
    let Some(approval) = about else {
        return Err(PageError::new(StatusCode::CONFLICT, "something else than a release is asked now"));
    };
    let before_it = replaced(server, &question).await;
    let said = server.app.said(&question).await?;
    let used = link.used.as_ref().map(|(at, verdict)| Spoken {
        by: link.holder.clone(),
        word: if verdict == "approve" { "yes" } else { "no" },
        at: When::at(*at, now),
        reason: String::new(),
    });
    let terms = approval.evidence.terms.as_ref();
    let status = refused.as_ref().map_or(StatusCode::OK, |refused| refused.status);
    let page = LinkPage {
        assets: assets(),
        title: format!("Release {} {}", approval.model, approval.version),
        holder: link.holder.clone(),
        asked: When::at(asked.asked_at, now),
        until: When::at(link.expires_at, now),
        state: State::of(asked, now),
        said: used,
        outdated,
        evidence: evidence::Shown::of(&question, before_it.as_ref()),
        terms: terms.map(|terms| (terms.rule.clone(), terms.lines().join(", "))),
        requested_by: approval.evidence.requested_by.clone(),
        digest: approval.digest.clone(),
        votes: said.votes.iter().map(|vote| Spoken::of(vote, now)).collect(),
        missing: missing_words(&said.missing),
        most_chars: REASON_CHARS,
        reason,
        refused: refused.map(|refused| refused.told),
    };
    let response: Response = html(status, page.render()?);
    Ok(response)
}
