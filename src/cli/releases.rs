//! `status`, `list`, `history`, `summary`: what `ml_deployments` and the gateway know.

use std::time::Duration;

use serde_json::{Value, json};

use super::args::{MaybeModel, Model};
use super::out::Out;
use super::show::{ago, table};
use super::{Exit, Failed, plain};
use crate::app::App;
use crate::graph::Failure;
use crate::ports::{Slot, VersionTraffic, first_of, together};
use crate::release::{LedgerError, ReleaseFilter, ReleaseRow};

fn ledger(error: LedgerError) -> Failed {
    plain(Failure::new(error.code(), error.to_string()))
}

/// A model's releases, newest first; one at least.
async fn releases_of(app: &App, model: &str) -> Result<Vec<ReleaseRow>, Failed> {
    let rows = app.ledger().history(model).await.map_err(ledger)?;
    if rows.is_empty() {
        let failure = Failure::new("model_unknown", format!("there is no model {model}"));
        return Err(plain(failure.hint("`tidegate list` shows all releases")));
    }
    Ok(rows)
}

/// What is live where and how it fares.
pub async fn status(app: App, args: MaybeModel, out: &Out) -> Result<Exit, Failed> {
    let mut active = app.ledger().active().await.map_err(ledger)?;
    if let Some(model) = &args.model {
        active.retain(|row| row.model_name == *model);
        if active.is_empty() {
            releases_of(&app, model).await?;
        }
    }
    let mut shown = Vec::new();
    for row in &active {
        shown.push(Serving::of(&app, row).await);
    }
    let open = app.questions(None).await.map_err(plain)?;
    let value = json!({"serving": shown.iter().map(Serving::value).collect::<Vec<_>>(), "open_questions": open.len()});
    out.data(&value, || {
        if shown.is_empty() {
            return "nothing serves".to_owned();
        }
        let mut lines = table(["model", "version", "slot", "requests", "errors", "p50 ms", "p99 ms", "url"]);
        for serving in &shown {
            lines.add_row(serving.cells());
        }
        lines.to_string()
    })?;
    if !open.is_empty() {
        out.note(&format!("{} question(s) wait for a decision: `tidegate approvals`", open.len()));
    }
    Ok(Exit::Done)
}

/// A live release with what the host daemon says of it.
struct Serving<'a> {
    row: &'a ReleaseRow,
    slot: Option<Slot>,
    traffic: Option<VersionTraffic>,
    trouble: Option<String>,
}

impl<'a> Serving<'a> {
    async fn of(app: &App, row: &'a ReleaseRow) -> Self {
        let token = row.slot_token.clone().unwrap_or_default();
        // Looking must not start a daemon that was stopped on purpose.
        let Ok(client) = super::hosts::client(app.home()) else { return Self::down(row) };
        if client.status_now(Duration::from_secs(2)).await.is_err() {
            return Self::down(row);
        }
        let slot = client.slot(&token).await;
        let traffic = client.traffic(&row.model_name).await;
        let trouble = slot.as_ref().err().or(traffic.as_ref().err()).map(ToString::to_string);
        let traffic = together(traffic.unwrap_or_default().into_iter().filter(|t| first_of(&t.token) == token));
        Self { row, slot: slot.ok().flatten(), traffic, trouble }
    }

    fn down(row: &'a ReleaseRow) -> Self {
        Self { row, slot: None, traffic: None, trouble: Some("the host daemon does not run".to_owned()) }
    }

    fn state(&self) -> String {
        match (&self.slot, &self.trouble) {
            (Some(slot), _) => {
                serde_json::to_value(slot.state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
            }
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => "gone".to_owned(),
        }
    }

    fn value(&self) -> Value {
        json!({
            "model": self.row.model_name, "version": self.row.model_version, "deployment_id": self.row.deployment_id,
            "endpoint_url": self.row.endpoint_url, "slot": self.slot, "state": self.state(), "traffic": self.traffic,
        })
    }

    fn cells(&self) -> Vec<String> {
        let row = self.row;
        let latency = self.traffic.as_ref().and_then(|t| t.latency);
        let ms = |of: fn(crate::ports::LatencySummary) -> f64| {
            latency.map_or_else(|| "–".to_owned(), |l| format!("{:.1}", of(l)))
        };
        vec![
            row.model_name.clone(),
            row.model_version.clone().unwrap_or_default(),
            format!("{} {}", row.slot.as_deref().unwrap_or_default(), self.state()).trim().to_owned(),
            self.traffic.as_ref().map_or(0, |t| t.requests).to_string(),
            self.traffic.as_ref().map_or(0, |t| t.errors).to_string(),
            ms(|l| l.p50_ms),
            ms(|l| l.p99_ms),
            row.endpoint_url.clone().unwrap_or_default(),
        ]
    }
}

/// All releases.
pub async fn list(app: App, out: &Out) -> Result<Exit, Failed> {
    let rows = app.ledger().list(&ReleaseFilter::default()).await.map_err(ledger)?;
    rows_shown(&rows, out)
}

/// One model's releases.
pub async fn history(app: App, args: Model, out: &Out) -> Result<Exit, Failed> {
    rows_shown(&releases_of(&app, &args.model).await?, out)
}

fn rows_shown(rows: &[ReleaseRow], out: &Out) -> Result<Exit, Failed> {
    out.data(&rows, || {
        if rows.is_empty() {
            return "no releases yet".to_owned();
        }
        let mut lines = table(["release", "model", "version", "kind", "strategy", "status", "live", "when", "reason"]);
        for row in rows {
            let live = if row.live { "live" } else { "" };
            let reason: String = row.reason.clone().unwrap_or_default().chars().take(60).collect();
            lines.add_row([
                row.deployment_id.clone(),
                row.model_name.clone(),
                row.model_version.clone().unwrap_or_else(|| "–".to_owned()),
                row.kind.as_str().to_owned(),
                row.deployment_strategy.as_str().to_owned(),
                row.status.as_str().to_owned(),
                live.to_owned(),
                ago(row.created_at),
                reason,
            ]);
        }
        lines.to_string()
    })?;
    Ok(Exit::Done)
}

/// Counts.
pub async fn summary(app: App, out: &Out) -> Result<Exit, Failed> {
    let summary = app.ledger().summary().await.map_err(ledger)?;
    out.data(&summary, || {
        format!(
            "active       {}\nin progress  {}\ncompleted    {}\nfailed       {}\nrollbacks    {}\nmodels       {}\ntotal        {}",
            summary.active, summary.in_progress, summary.completed, summary.failed, summary.rollbacks, summary.models, summary.total
        )
    })?;
    Ok(Exit::Done)
}
