//! One run: its graph with the path lit, its steps, what it asks and asked, what it found, how it ended.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use serde_json::Value;

use super::Shown;
use super::error::{PageError, Told};
use super::frame::{Frame, Live, Place, Visitor};
use super::runs::{Status, took, what};
use super::steps::{self, StepLine};
use super::verdicts::{self, VerdictCard};
use super::words::{When, number, path_part, short};
use crate::graph::{Checkpoint, Interrupt, Picture, Thread, ThreadId, Traced, path};

/// Most of a run's state that is shown, in characters.
const STATE_CHARS: usize = 20_000;

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    thread: String,
    what: String,
    model: Option<String>,
    workflow: String,
    status: Status,
    here: Vec<(String, &'static str)>,
    began: When,
    changed: When,
    took: String,
    owner: Option<String>,
    failure: Option<Told>,
    /// The graph, drawn; absent where it cannot be built any more.
    picture: Option<String>,
    no_picture: String,
    steps: Vec<StepLine>,
    left_out: usize,
    questions: Vec<AskedLine>,
    /// Why a release is as it is, rule by rule.
    reasons: Vec<(String, String)>,
    verdicts: Vec<VerdictCard>,
    /// What a release handed back.
    output: Vec<(String, String)>,
    state: String,
}

struct AskedLine {
    id: String,
    about: String,
    asked: When,
    /// What became of it, in words.
    outcome: String,
    open: bool,
}

/// A thread that the caller may see.
pub(super) async fn known(visitor: &Visitor, id: &str) -> Result<Thread, PageError> {
    let found = visitor.server.app.store().thread(&ThreadId::from(id)).await?;
    let missing = || {
        PageError::not_found(format!("there is no run {}", short(id, 64)))
            .hint("the list of runs has those that are kept")
    };
    found.filter(|thread| visitor.sees(&thread.id)).ok_or_else(missing)
}

/// The stream that says when a run has changed.
pub(super) fn live_path(thread: &str) -> String {
    format!("/ui/runs/{}/live", path_part(thread))
}

/// One run.
pub(in crate::server) async fn show(visitor: Visitor, Path(id): Path<String>) -> Shown {
    let thread = known(&visitor, &id).await?;
    let (app, now) = (&visitor.server.app, visitor.now);
    let store = app.store();
    let (roots, latest) = (app.database().outline(&thread.id).await?, store.latest(&thread.id, "").await?);
    let asked = store.interrupts(Some(&thread.id), false).await?;
    let (way, verdicts) = {
        let told = visitor.server.seen.of(app, &thread).await?;
        (path(&thread, &roots, &asked, &told.events, now), verdicts::of(&told.events, now))
    };
    let title = what(&thread);
    let drawn = app.graph_of(&thread).map(|graph| {
        let traced = Traced::of(&graph, &way);
        Picture::of(&graph, Some(&traced))
            .folded()
            .svg_inside(&format!("The graph of this run with the way it took: {}", thread.workflow))
    });
    let (picture, no_picture) = match drawn {
        Ok(picture) => (Some(picture), String::new()),
        Err(failure) => (None, failure.message.clone()),
    };
    let live = if thread.status.is_terminal() { Live::No } else { Live::When(live_path(thread.id.as_str())) };
    let (status, here) = (Status::of(thread.status), steps::here(&way));
    let mut frame = visitor.frame(Place::Runs, &title, live).await?;
    let at: Vec<&str> = here.iter().map(|(node, _)| node.as_str()).collect();
    frame.says = match at.is_empty() {
        true => format!("{title}: {}", status.word),
        false => format!("{title}: {}, at {}", status.word, at.join(", ")),
    };
    let latest = latest.as_ref();
    let (steps, left_out) = steps::lines(&way, now);
    let page = RunPage {
        frame,
        model: thread.labels.get("model").cloned(),
        workflow: thread.workflow.clone(),
        status,
        here,
        began: When::at(thread.created_at, now),
        changed: When::at(thread.updated_at, now),
        took: took(&thread, now),
        owner: thread.owner.as_ref().filter(|owner| app.is_alive(owner)).map(ToString::to_string),
        failure: thread.failure.as_ref().map(Told::from),
        picture,
        no_picture,
        steps,
        left_out,
        questions: asked.iter().map(|asked| question(asked, now)).collect(),
        reasons: reasons(latest),
        verdicts,
        output: output(latest),
        state: state(latest),
        thread: thread.id.to_string(),
        what: title,
    };
    visitor.shown(StatusCode::OK, &page)
}

fn question(asked: &Interrupt, now: chrono::DateTime<chrono::Utc>) -> AskedLine {
    let release = asked.value["kind"] == "approval" && asked.value["model"].is_string();
    let about = match release {
        true => "release it?".to_owned(),
        false => super::approvals::about(&asked.value),
    };
    let outcome = match &asked.answer {
        Some(answer) => {
            let word = match answer.value["verdict"].as_str() {
                Some("approve") => "approved",
                Some("reject") => "rejected",
                _ => "answered",
            };
            let reason = answer.value["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{word} by {} ({}){reason}", answer.by, answer.via)
        }
        None if asked.expired || asked.is_over(now) => "nobody decided in time".to_owned(),
        None if asked.withdrawn => "not asked any more".to_owned(),
        None => "waits".to_owned(),
    };
    let open = asked.answer.is_none() && !asked.withdrawn && !asked.is_over(now);
    AskedLine { id: asked.id.to_string(), about, asked: When::at(asked.asked_at, now), outcome, open }
}

/// Why the plan of a release is as it is.
fn reasons(latest: Option<&Checkpoint>) -> Vec<(String, String)> {
    let Some(plan) = latest.and_then(|latest| latest.values.get("plan")) else { return Vec::new() };
    let text = |reason: &Value, key: &str| reason[key].as_str().unwrap_or_default().to_owned();
    let all = plan["reasons"].as_array().into_iter().flatten();
    all.map(|reason| (text(reason, "rule"), text(reason, "because"))).collect()
}

/// What was handed back, key by key.
fn output(latest: Option<&Checkpoint>) -> Vec<(String, String)> {
    let Some(Value::Object(output)) = latest.and_then(|latest| latest.values.get("output")) else { return Vec::new() };
    let told = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        Value::Object(figures) => figures
            .iter()
            .map(|(name, figure)| format!("{name} {}", figure.as_f64().map_or_else(|| figure.to_string(), number)))
            .collect::<Vec<_>>()
            .join(", "),
        value => value.to_string(),
    };
    output.iter().map(|(key, value)| (key.replace('_', " "), told(value))).collect()
}

fn state(latest: Option<&Checkpoint>) -> String {
    let Some(latest) = latest else { return String::new() };
    short(&serde_json::to_string_pretty(&latest.values).unwrap_or_default(), STATE_CHARS)
}
