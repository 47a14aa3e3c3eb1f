//! One model: the traffic of each of its versions, and its releases.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;

use super::Shown;
use super::chart::{self, Area, Parts};
use super::error::PageError;
use super::frame::{Frame, Live, Place, Visitor};
use super::models::{Health, Share, shares, weights};
use super::words::{When, ms, number, percent, short};
use crate::app::{ModelServing, RecentTraffic, Role, VersionServing};
use crate::graph::{Failure, ThreadId};
use crate::release::{ReleaseRow, rollback_target};
use crate::server::authorise::{Action, Subject};

/// Between two looks, in milliseconds.
const EVERY_MS: u32 = 2_000;
/// Most releases that are listed.
const MOST_LISTED: usize = 100;
/// Longest reason in the list.
const REASON_CHARS: usize = 140;

#[derive(Template)]
#[template(path = "model.html")]
struct ModelPage {
    frame: Frame,
    name: String,
    live: Option<String>,
    url: Option<String>,
    unknown: Option<String>,
    changed_by_gateway: Option<String>,
    holds: bool,
    shares: Vec<Share>,
    weights: Option<Parts>,
    versions: Vec<VersionCard>,
    /// The version that a rollback goes to by itself.
    back_to: Option<String>,
    may_roll_back: bool,
    history: Vec<HistoryLine>,
    left_out: usize,
}

struct VersionCard {
    version: String,
    role: &'static str,
    share: String,
    health: Health,
    slots: Vec<SlotLine>,
    traffic: Option<TrafficCard>,
}

struct SlotLine {
    token: String,
    state: String,
    note: String,
}

struct TrafficCard {
    /// Nothing was asked of it.
    quiet: bool,
    minutes: u64,
    requests: String,
    rps: String,
    errors: String,
    p50: String,
    p99: String,
    requests_plot: Area,
    latency_plot: Area,
    most_rps: String,
    most_ms: String,
}

struct HistoryLine {
    thread: String,
    version: Option<String>,
    kind: &'static str,
    strategy: &'static str,
    status: String,
    class: &'static str,
    live: bool,
    when: When,
    by: String,
    reason: String,
    /// It can be gone back to.
    back: bool,
}

/// A model's releases, newest first; those that the caller may see.
pub(super) async fn history(visitor: &Visitor, name: &str) -> Result<Vec<ReleaseRow>, PageError> {
    let of = |e: crate::release::LedgerError| Failure::new(e.code(), e.to_string());
    let mut rows = visitor.server.app.ledger().history(name).await.map_err(of)?;
    rows.retain(|row| visitor.sees(&ThreadId::from(row.deployment_id.as_str())));
    if rows.is_empty() {
        return Err(PageError::not_found(format!("there is no model {}", short(name, REASON_CHARS)))
            .hint("the list of models has all that serve"));
    }
    Ok(rows)
}

/// Whether the caller may take a model back.
pub(super) fn may_roll_back(visitor: &Visitor) -> bool {
    visitor.may(Action::Run, &Subject::Server)
}

/// One model.
pub(in crate::server) async fn show(visitor: Visitor, Path(name): Path<String>) -> Shown {
    let rows = history(&visitor, &name).await?;
    let serving = visitor.server.app.serving(Some(&name)).await;
    let of_model = serving.of(&name);
    let live = rows.iter().find(|row| row.live);
    let back_to = rollback_target(&rows, None).and_then(|row| row.model_version.clone());
    let mut frame = visitor.frame(Place::Models, &name, Live::Every(EVERY_MS)).await?;
    let shares = of_model.map(|serving| shares(&serving.versions)).unwrap_or_default();
    let told: Vec<String> = shares.iter().map(|share| format!("{} {}", share.version, share.text)).collect();
    frame.says = format!("{name}: {}", if told.is_empty() { "no traffic".to_owned() } else { told.join(", ") });
    let page = ModelPage {
        frame,
        live: live.and_then(|row| row.model_version.clone()),
        url: live.and_then(|row| row.endpoint_url.clone()),
        unknown: serving.unknown.clone(),
        changed_by_gateway: of_model.and_then(|serving| serving.changed_by_gateway.clone()),
        holds: of_model.is_some_and(|serving| serving.holds),
        shares,
        weights: of_model.map(weights),
        versions: of_model.map(versions).unwrap_or_default(),
        back_to,
        may_roll_back: may_roll_back(&visitor),
        history: rows.iter().take(MOST_LISTED).map(|row| line(row, &rows, &visitor)).collect(),
        left_out: rows.len().saturating_sub(MOST_LISTED),
        name,
    };
    visitor.shown(StatusCode::OK, &page)
}

fn versions(serving: &ModelServing) -> Vec<VersionCard> {
    let traffic: Vec<&RecentTraffic> = serving.versions.iter().filter_map(|version| version.traffic.as_ref()).collect();
    let most_rps = chart::most(&traffic, |point| point.rps);
    let most_ms = chart::most(&traffic, |point| point.p99_ms.unwrap_or(0.0));
    serving.versions.iter().map(|version| card(version, most_rps, most_ms)).collect()
}

fn card(version: &VersionServing, most_rps: f64, most_ms: f64) -> VersionCard {
    let slot = |slot: &crate::app::SlotHealth| SlotLine {
        token: slot.token.clone(),
        state: slot.state.clone(),
        note: match (&slot.last_exit, slot.restarts) {
            (Some(exit), restarts) => format!("started again {restarts} times, last {exit}"),
            (None, _) => String::new(),
        },
    };
    let traffic = version.traffic.as_ref().map(|traffic| {
        #[expect(clippy::cast_precision_loss, reason = "a few minutes have few requests")]
        let share = if traffic.requests > 0 { traffic.errors as f64 / traffic.requests as f64 } else { 0.0 };
        TrafficCard {
            quiet: traffic.requests == 0,
            minutes: traffic.over_seconds / 60,
            requests: traffic.requests.to_string(),
            rps: traffic.points.last().map_or_else(|| "–".to_owned(), |point| number(point.rps)),
            errors: format!("{} ({})", traffic.errors, percent(share)),
            p50: ms(traffic.p50_ms),
            p99: ms(traffic.p99_ms),
            requests_plot: chart::requests(&version.version, traffic, most_rps),
            latency_plot: chart::latency(&version.version, traffic, most_ms),
            most_rps: number(most_rps),
            most_ms: number(most_ms),
        }
    });
    VersionCard {
        version: version.version.clone(),
        role: version.role.word(),
        share: match version.role {
            Role::Live | Role::OnTrial => percent(version.share),
            Role::Standby | Role::Beside => String::new(),
        },
        health: Health::of(Some(version), true),
        slots: version.slots.iter().map(slot).collect(),
        traffic,
    }
}

fn line(row: &ReleaseRow, all: &[ReleaseRow], visitor: &Visitor) -> HistoryLine {
    let target = row.model_version.as_deref().and_then(|version| rollback_target(all, Some(version)));
    HistoryLine {
        thread: row.deployment_id.clone(),
        version: row.model_version.clone(),
        kind: row.kind.as_str(),
        strategy: row.deployment_strategy.as_str(),
        status: row.status.as_str().to_lowercase(),
        class: match row.status.as_str() {
            "COMPLETED" => "good",
            "FAILED" => "bad",
            _ => "now",
        },
        live: row.live,
        when: When::at(row.created_at, visitor.now),
        by: row.requested_by.clone().unwrap_or_default(),
        reason: short(row.reason.as_deref().unwrap_or_default(), REASON_CHARS),
        back: target.is_some_and(|target| target.deployment_id == row.deployment_id),
    }
}
