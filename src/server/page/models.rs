//! All models: what is live, how its traffic is divided, how it fares, what waits for a person.

use std::collections::BTreeMap;

use askama::Template;
use axum::http::StatusCode;

use super::Shown;
use super::approvals::QuestionLine;
use super::chart::{self, Area, Parts};
use super::frame::{Frame, Live, Place, Visitor};
use super::words::{When, count, ms, number, percent};
use crate::app::{ModelServing, Role, VersionServing};
use crate::graph::ThreadId;
use crate::release::ReleaseRow;

/// Between two looks, in milliseconds.
const EVERY_MS: u32 = 3_000;

#[derive(Template)]
#[template(path = "models.html")]
struct ModelsPage {
    frame: Frame,
    /// Why nothing is known of what runs.
    unknown: Option<String>,
    open: Vec<QuestionLine>,
    models: Vec<ModelLine>,
}

struct ModelLine {
    name: String,
    live: Option<LiveLine>,
    /// Releases that are under way.
    under_way: Vec<UnderWay>,
    /// Part of the requests, by version.
    shares: Vec<Share>,
    weights: Option<Parts>,
    health: Health,
    requests: Option<Area>,
    rps: String,
    errors: String,
    p99: String,
}

struct LiveLine {
    version: String,
    since: When,
    url: Option<String>,
}

struct UnderWay {
    thread: String,
    version: String,
    word: String,
}

/// A version's part of a model's requests.
pub(super) struct Share {
    pub version: String,
    pub text: String,
    pub role: &'static str,
}

/// Whether a version answers, in words.
pub(super) struct Health {
    /// `good`, `bad`, or `off` where nothing is known.
    pub class: &'static str,
    pub text: String,
}

impl Health {
    /// Of a version; `None`: nothing of it runs.
    pub fn of(version: Option<&VersionServing>, known: bool) -> Self {
        let Some(version) = version.filter(|_| known) else {
            return Self { class: "off", text: if known { "does not run" } else { "not known" }.to_owned() };
        };
        let (ready, all) = (version.slots.iter().filter(|slot| slot.ready).count(), version.slots.len());
        let state = || version.slots.first().map_or_else(|| "gone".to_owned(), |slot| slot.state.clone());
        match (ready, all) {
            (1, 1) => Self { class: "good", text: "ready".to_owned() },
            (ready, all) if ready == all && all > 0 => Self { class: "good", text: format!("{all} of {all} ready") },
            (_, 0 | 1) => Self { class: "bad", text: state() },
            (ready, all) => Self { class: "bad", text: format!("{ready} of {all} ready") },
        }
    }

    /// The mark beside the words.
    pub fn mark(&self) -> &'static str {
        match self.class {
            "good" => "✓",
            "bad" => "✗",
            _ => "–",
        }
    }
}

/// All models.
pub(in crate::server) async fn show(visitor: Visitor) -> Shown {
    let app = &visitor.server.app;
    let serving = app.serving(None).await;
    let mut by_model: BTreeMap<String, Vec<ReleaseRow>> = BTreeMap::new();
    for row in app.releases_at_work().await? {
        if visitor.sees(&ThreadId::from(row.deployment_id.as_str())) {
            by_model.entry(row.model_name.clone()).or_default().push(row);
        }
    }
    let known = serving.unknown.is_none();
    let line = |(name, rows): (String, Vec<ReleaseRow>)| model(&visitor, name.clone(), &rows, serving.of(&name), known);
    let models: Vec<ModelLine> = by_model.into_iter().map(line).collect();
    let open = visitor.open_questions().await?;
    let mut frame = visitor.frame_with(Place::Models, "Models", Live::Every(EVERY_MS), open.len());
    let waiting = count(open.len(), "decision waits", "decisions wait");
    frame.says = format!("{}, {waiting}", count(models.len(), "model", "models"));
    let open = open.iter().map(|question| QuestionLine::of(question, visitor.now)).collect();
    visitor.shown(StatusCode::OK, &ModelsPage { frame, unknown: serving.unknown.clone(), open, models })
}

fn model(
    visitor: &Visitor,
    name: String,
    rows: &[ReleaseRow],
    serving: Option<&ModelServing>,
    known: bool,
) -> ModelLine {
    let live = rows.iter().find(|row| row.live);
    let under_way = rows.iter().filter(|row| !row.live).map(|row| UnderWay {
        thread: row.deployment_id.clone(),
        version: row.model_version.clone().unwrap_or_else(|| "a new version".to_owned()),
        word: format!("{}, {}", row.kind.as_str(), row.status.as_str().to_lowercase()),
    });
    let versions = serving.map(|serving| serving.versions.as_slice()).unwrap_or_default();
    let has = versions.iter().find(|version| version.role == Role::Live);
    let traffic = has.and_then(|version| version.traffic.as_ref());
    let most = traffic.map(|traffic| chart::most(&[traffic], |point| point.rps)).unwrap_or_default();
    let now = traffic.and_then(|traffic| traffic.points.last()).map(|point| point.rps);
    let live_name = live.and_then(|row| row.model_version.clone()).unwrap_or_default();
    ModelLine {
        live: live.map(|row| LiveLine {
            version: live_name.clone(),
            since: When::at(row.finished_at.unwrap_or(row.created_at), visitor.now),
            url: row.endpoint_url.clone(),
        }),
        under_way: under_way.collect(),
        shares: shares(versions),
        weights: serving.map(weights),
        health: Health::of(has, known),
        requests: traffic.map(|traffic| chart::requests(&live_name, traffic, most)),
        rps: now.map_or_else(|| "–".to_owned(), number),
        errors: traffic.map_or_else(|| "–".to_owned(), |traffic| traffic.errors.to_string()),
        p99: ms(traffic.and_then(|traffic| traffic.p99_ms)),
        name,
    }
}

/// Versions with their part of the requests; one that has none and is there for nothing is left out.
pub(super) fn shares(versions: &[VersionServing]) -> Vec<Share> {
    let told = versions.iter().filter(|version| version.role != Role::Beside);
    let text = |version: &VersionServing| match (version.role, version.mirrored > 0.0) {
        (Role::Standby, _) => "standby".to_owned(),
        (_, true) => format!("{}, {} repeated", percent(version.share), percent(version.mirrored)),
        (_, false) => percent(version.share),
    };
    let share = |version: &VersionServing| Share {
        version: version.version.clone(),
        text: text(version),
        role: version.role.word(),
    };
    told.map(share).collect()
}

/// The same as a bar.
pub(super) fn weights(serving: &ModelServing) -> Parts {
    let shares: Vec<(String, f64)> =
        serving.versions.iter().filter(|v| v.share > 0.0).map(|v| (v.version.clone(), v.share)).collect();
    chart::weights(&serving.model, &shares)
}
