//! One question: everything that the answer rests on, and the form for it. What is decided carries the digest of what was shown.

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Shown;
use super::approvals::about;
use super::error::{PageError, Told};
use super::evidence;
use super::form::{Form, REASON_CHARS};
use super::frame::{Frame, Live, Place, Visitor};
use super::run::live_path;
use super::words::{When, short};
use crate::app::{Decide, OpenQuestion, missing_words};
use crate::graph::{Interrupt, InterruptId};
use crate::release::{PlanState, ReleaseKind, ReleaseRow, Verdict, Vote};
use crate::server::authorise::{Action, Subject, authorise};
use crate::server::{Server, approvals};

/// What decisions and answers of this page say that they came through.
const VIA: &str = "page";
/// Longest answer, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;

#[derive(Template)]
#[template(path = "approval.html")]
struct ApprovalPage {
    frame: Frame,
    id: String,
    thread: String,
    short_thread: String,
    node: String,
    title: String,
    asked: When,
    expires: Option<When>,
    digest: String,
    evidence: Option<evidence::Shown>,
    /// What another question than a release's shows.
    value: String,
    /// What its answer must look like.
    schema: Option<String>,
    state: State,
    /// Who decides, where a rule says so: its name and what it wants.
    terms: Option<(String, String)>,
    requested_by: Option<String>,
    votes: Vec<Spoken>,
    missing: String,
    /// A freeze stands in the way of a yes.
    frozen: bool,
    may: bool,
    token: String,
    most_chars: usize,
    /// What was written before it was refused.
    reason: String,
    answer: String,
    refused: Option<Told>,
}

/// How a question stands.
pub(super) enum State {
    Open,
    Decided(Decided),
    /// Nobody answered in time.
    Expired,
    /// The run went on, or ended, without it.
    Withdrawn,
}

/// What one of several people has said.
pub(super) struct Spoken {
    pub by: String,
    pub word: &'static str,
    pub at: When,
    pub reason: String,
}

impl Spoken {
    pub fn of(vote: &Vote, now: DateTime<Utc>) -> Self {
        Self {
            by: vote.instead_of.as_ref().map_or(vote.by.clone(), |of| format!("{} in {of}'s place", vote.by)),
            word: if vote.verdict == Verdict::Approve { "yes" } else { "no" },
            at: When::at(vote.at, now),
            reason: vote.reason.clone().unwrap_or_default(),
        }
    }
}

/// How it was decided.
pub(super) struct Decided {
    /// `approved`, `rejected`, `answered`.
    pub word: &'static str,
    pub good: bool,
    pub by: String,
    pub via: String,
    pub at: When,
    pub reason: String,
    pub value: String,
}

impl State {
    pub fn of(asked: &Interrupt, now: DateTime<Utc>) -> Self {
        if let Some(answer) = &asked.answer {
            let (word, good) = match answer.value["verdict"].as_str() {
                Some("approve") => ("approved", true),
                Some("reject") => ("rejected", false),
                _ => ("answered", true),
            };
            return Self::Decided(Decided {
                word,
                good,
                by: answer.by.clone(),
                via: answer.via.clone(),
                at: When::at(answer.at, now),
                reason: answer.value["reason"].as_str().unwrap_or_default().to_owned(),
                value: pretty(&answer.value),
            });
        }
        match (asked.expired || asked.is_over(now), asked.withdrawn) {
            (true, _) => Self::Expired,
            (false, true) => Self::Withdrawn,
            (false, false) => Self::Open,
        }
    }

    /// For those who only hear that something has changed.
    fn says(&self, title: &str) -> String {
        match self {
            Self::Open => format!("{title} waits for a decision"),
            Self::Decided(decided) => format!("{title}: {} by {}", decided.word, decided.by),
            Self::Expired => format!("{title}: nobody decided in time"),
            Self::Withdrawn => format!("{title} is not asked any more"),
        }
    }
}

fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string_pretty(value).unwrap_or_default(),
    }
}

/// A question that the caller may see.
async fn known(visitor: &Visitor, id: &str) -> Result<OpenQuestion, PageError> {
    let found = visitor.server.app.store().interrupt(&InterruptId::from(id)).await?;
    let found = found.filter(|asked| visitor.sees(&asked.thread));
    let missing = || {
        PageError::not_found(format!("there is no question {}", short(id, 64)))
            .hint("the list of approvals has those that wait")
    };
    found.map(OpenQuestion::from).ok_or_else(missing)
}

/// What was sent before, where it was refused.
#[derive(Default)]
struct Before {
    reason: String,
    answer: String,
    refused: Option<PageError>,
}

/// One question.
pub(in crate::server) async fn show(visitor: Visitor, Path(id): Path<String>) -> Shown {
    let question = known(&visitor, &id).await?;
    shown(&visitor, &question, Before::default()).await
}

async fn shown(visitor: &Visitor, question: &OpenQuestion, before: Before) -> Shown {
    let asked = &question.interrupt;
    let model = question.approval.as_ref().map(|approval| approval.model.as_str());
    let before_it = replaced(&visitor.server, question).await;
    let title = match &question.approval {
        Some(approval) => format!("Release {} {}", approval.model, approval.version),
        None => about(&asked.value),
    };
    let state = State::of(asked, visitor.now);
    // What was refused stays to be read.
    let stays = before.refused.is_some() || !matches!(state, State::Open);
    let live_update = if stays { Live::No } else { Live::When(live_path(asked.thread.as_str())) };
    let mut frame = visitor.frame(Place::Approvals, &title, live_update).await?;
    frame.says = state.says(&title);
    let said = visitor.server.app.said(question).await?;
    let about_it = question.approval.as_ref().map(|approval| &approval.evidence);
    let terms = about_it.and_then(|evidence| evidence.terms.as_ref());
    let status = before.refused.as_ref().map_or(StatusCode::OK, |refused| refused.status);
    let page = ApprovalPage {
        frame,
        id: asked.id.to_string(),
        short_thread: short(asked.thread.as_str(), 13),
        thread: asked.thread.to_string(),
        node: asked.key.node.to_string(),
        title,
        asked: When::at(asked.asked_at, visitor.now),
        expires: asked.expires_at.map(|at| When::at(at, visitor.now)),
        digest: question.approval.as_ref().map_or(&asked.digest, |approval| &approval.digest).clone(),
        evidence: evidence::Shown::of(question, before_it.as_ref()),
        value: pretty(&asked.value),
        schema: if model.is_none() { schema(visitor, asked).await } else { None },
        state,
        terms: terms.map(|terms| (terms.rule.clone(), terms.lines().join(", "))),
        requested_by: about_it.and_then(|evidence| evidence.requested_by.clone()),
        votes: said.votes.iter().map(|vote| Spoken::of(vote, visitor.now)).collect(),
        missing: missing_words(&said.missing),
        frozen: before.refused.as_ref().is_some_and(|refused| refused.is("frozen")),
        may: visitor.may(Action::Decide, &Subject::Thread(asked.thread.to_string())),
        token: visitor.token(&format!("/ui/approvals/{}", asked.id)),
        most_chars: REASON_CHARS,
        reason: before.reason,
        answer: before.answer,
        refused: before.refused.map(|refused| refused.told),
    };
    visitor.shown(status, &page)
}

/// The release that this one would take the place of: also afterwards, when another one is live.
pub(super) async fn replaced(server: &Server, question: &OpenQuestion) -> Option<ReleaseRow> {
    let evidence = &question.approval.as_ref()?.evidence;
    let version = evidence.previous_version.as_ref()?;
    let rows = server.app.ledger().history(&evidence.model).await.ok()?;
    let of_version = |row: &ReleaseRow| row.kind == ReleaseKind::Deploy && row.model_version.as_ref() == Some(version);
    rows.into_iter().find(|row| of_version(row) && row.status == PlanState::Completed)
}

/// What the asking node says of its answers, where it says something.
async fn schema(visitor: &Visitor, asked: &Interrupt) -> Option<String> {
    let app = &visitor.server.app;
    let graph = app.graph_of(&app.thread(&asked.thread).await.ok()?).ok()?;
    let entry = graph.nodes().get(&asked.key.node)?;
    let schema = entry.info.parameters.get("answer").filter(|schema| !schema.is_null())?;
    Some(pretty(schema))
}

/// A decision, or an answer.
pub(in crate::server) async fn decide(mut visitor: Visitor, Path(id): Path<String>, body: Body) -> Shown {
    let form = Form::read(body).await?;
    visitor.caller = visitor.caller.still(&visitor.server.app).await?;
    visitor.check(form.get("token"))?;
    let question = known(&visitor, &id).await?;
    authorise(&visitor.caller, Action::Decide, &Subject::Thread(question.interrupt.thread.to_string()))?;
    let answered = match question.approval {
        Some(_) => decided(&visitor, &question, &form).await,
        None => answered(&visitor, &question.interrupt, &form).await,
    };
    match answered {
        Ok(response) => Ok(response),
        Err(refused) => {
            // As it is asked now: somebody else may have decided, or the evidence is another one.
            let now = known(&visitor, &id).await?;
            let kept = |name: &str, most: usize| form.get(name).map(|text| short(text, most)).unwrap_or_default();
            let reason = if refused.is("decision_outdated") { String::new() } else { kept("reason", REASON_CHARS) };
            let before = Before { reason, answer: kept("answer", ANSWER_BYTES), refused: Some(refused) };
            shown(&visitor, &now, before).await
        }
    }
}

async fn decided(visitor: &Visitor, question: &OpenQuestion, form: &Form) -> Result<Response, PageError> {
    let verdict = match form.get("verdict") {
        Some("approve") => Verdict::Approve,
        Some("reject") => Verdict::Reject,
        _ => return Err(PageError::new(StatusCode::UNPROCESSABLE_ENTITY, "this is neither a yes nor a no")),
    };
    let digest = form.get("digest").unwrap_or_default().to_owned();
    let (who, via) = (visitor.caller.person().clone(), VIA.to_owned());
    let overrides = form.get("override").is_some();
    let decide = Decide { verdict, who, via, reason: form.reason()?, digest: Some(digest), overrides };
    approvals::record(&visitor.server, question, decide).await?;
    Ok(visitor.sent_to(&format!("/ui/approvals/{}", question.interrupt.id)))
}

/// The answer to a workflow's own question. The home's runner goes on with it, as with any answer that no run of a client brought.
async fn answered(visitor: &Visitor, asked: &Interrupt, form: &Form) -> Result<Response, PageError> {
    let invalid = |message: String| PageError::new(StatusCode::UNPROCESSABLE_ENTITY, message);
    if form.get("digest") != Some(&asked.digest) {
        return Err(PageError::new(StatusCode::CONFLICT, "something else is asked now than you were shown")
            .hint("nothing was recorded: read it again, and answer what is asked now"));
    }
    let text = form.get("answer").ok_or_else(|| invalid("an answer is required".to_owned()))?;
    if text.len() > ANSWER_BYTES {
        return Err(invalid(format!("the answer has {} bytes, and at most {ANSWER_BYTES} are taken here", text.len())));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| {
        invalid(format!("the answer is no JSON: {e}"))
            .hint("a text stands in quotes: \"yes\"; others are 7, true, {\"a\": 1}")
    })?;
    let (server, by) = (&visitor.server, visitor.caller.name());
    let app = &server.app;
    let turn = server.executor.turn(&asked.thread);
    let _turn = turn.lock().await;
    let claims = app.claims(vec![(asked.clone(), value)], by, VIA).await?;
    // Nobody takes the thread between the answer and what it is left to; whoever attends it already goes on by themselves.
    let ours = app.attend(&asked.thread).await?;
    let recorded = app.answer_all(claims).await;
    if ours && (recorded.is_ok() || !app.is_advanced(&app.thread(&asked.thread).await?)) {
        app.leave(&asked.thread).await?;
    }
    recorded?;
    server.bell.ring(&asked.thread);
    server.executor.kick(&asked.thread);
    Ok(visitor.sent_to(&format!("/ui/approvals/{}", asked.id)))
}
