//! `status`, `list`, `history`, `summary`: what `ml_deployments` and the gateway know.

use serde_json::json;

use super::args::{MaybeModel, Model, OneRelease, ReleaseCommand};
use super::out::Out;
use super::show::{ago, table};
use super::{Exit, Failed, plain};
use crate::app::{App, ReleaseTold, RowServing};
use crate::graph::Failure;
use crate::release::{ReleaseFilter, ReleaseRow};

/// What is live where and how it fares.
pub async fn status(app: App, args: MaybeModel, out: &Out) -> Result<Exit, Failed> {
    let live = ReleaseFilter { live: Some(true), ..ReleaseFilter::default() };
    let mut active = app.releases(&live).await.map_err(plain)?;
    if let Some(model) = &args.model {
        active.retain(|row| row.model_name == *model);
        if active.is_empty() {
            app.releases_of(model).await.map_err(plain)?;
        }
    }
    let mut shown = Vec::new();
    for row in &active {
        shown.push(app.row_serving(row).await);
    }
    let model = args.model.clone();
    let under_way = app.releases(&ReleaseFilter { model, ..ReleaseFilter::under_way() }).await.map_err(plain)?;
    let open = app.questions(None).await.map_err(plain)?;
    let value = json!({"serving": shown, "under_way": under_way, "open_questions": open.len()});
    out.data(&value, || {
        if shown.is_empty() {
            return if under_way.is_empty() { "nothing serves" } else { "no release is complete yet" }.to_owned();
        }
        let mut lines = table(["model", "version", "slot", "requests", "errors", "p50 ms", "p99 ms", "url"]);
        for serving in &shown {
            lines.add_row(cells(serving));
        }
        lines.to_string()
    })?;
    // It may have traffic already: some of it, or all while it is watched.
    for row in &under_way {
        let version = row.model_version.as_deref().map(|version| format!(" version {version}")).unwrap_or_default();
        let (id, model, status) = (&row.deployment_id, &row.model_name, row.status);
        out.note(&format!(
            "release {id} of {model}{version} is under way ({status}): `tidegate run show {id}`, `tidegate traffic {model}`"
        ));
    }
    if !open.is_empty() {
        out.note(&format!("{} question(s) wait for a decision: `tidegate approvals`", open.len()));
    }
    Ok(Exit::Done)
}

fn cells(serving: &RowServing) -> Vec<String> {
    let latency = serving.traffic.as_ref().and_then(|t| t.latency);
    let ms = |of: fn(crate::ports::LatencySummary) -> f64| {
        latency.map_or_else(|| "–".to_owned(), |l| format!("{:.1}", of(l)))
    };
    vec![
        serving.model.clone(),
        serving.version.clone().unwrap_or_default(),
        format!("{} {}", serving.slot_name.as_deref().unwrap_or_default(), serving.state).trim().to_owned(),
        serving.traffic.as_ref().map_or(0, |t| t.requests).to_string(),
        serving.traffic.as_ref().map_or(0, |t| t.errors).to_string(),
        ms(|l| l.p50_ms),
        ms(|l| l.p99_ms),
        serving.endpoint_url.clone().unwrap_or_default(),
    ]
}

/// All releases.
pub async fn list(app: App, out: &Out) -> Result<Exit, Failed> {
    let rows = app.releases(&ReleaseFilter::default()).await.map_err(plain)?;
    rows_shown(&rows, out)
}

/// One model's releases.
pub async fn history(app: App, args: Model, out: &Out) -> Result<Exit, Failed> {
    rows_shown(&app.releases_of(&args.model).await.map_err(plain)?, out)
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
    let summary = app.ledger().summary().await;
    let summary = summary.map_err(|e| plain(Failure::new(e.code(), e.to_string())))?;
    out.data(&summary, || {
        format!(
            "active       {}\nin progress  {}\ncompleted    {}\nfailed       {}\nrollbacks    {}\nmodels       {}\ntotal        {}",
            summary.active, summary.in_progress, summary.completed, summary.failed, summary.rollbacks, summary.models, summary.total
        )
    })?;
    Ok(Exit::Done)
}

/// One release.
pub async fn one(app: App, command: ReleaseCommand, out: &Out) -> Result<Exit, Failed> {
    match command {
        ReleaseCommand::Show(OneRelease { release }) => {
            let row = app.find_release(&release).await.map_err(plain)?;
            let told = app.release_told(row).await.map_err(plain)?;
            out.data(&told, || told_text(&told))?;
        }
        ReleaseCommand::Rules(OneRelease { release }) => {
            let row = app.find_release(&release).await.map_err(plain)?;
            let rules = app.prometheus_rules(&row).map_err(plain)?;
            // A rule file is YAML whoever reads it, but machines that asked for JSON get it in JSON.
            out.data(&json!({"deployment_id": row.deployment_id, "prometheus_rules": rules}), || rules.clone())?;
        }
        ReleaseCommand::Dashboard(OneRelease { release }) => {
            let row = app.find_release(&release).await.map_err(plain)?;
            let dashboard = app.grafana_dashboard(&row).map_err(plain)?;
            // A dashboard is JSON whoever reads it.
            Out::new(true).data(&dashboard, String::new)?;
        }
    }
    Ok(Exit::Done)
}

fn told_text(told: &ReleaseTold) -> String {
    let row = &told.release;
    let live = if row.live { ", live" } else { "" };
    let mut text = format!(
        "release   {}\nmodel     {} {}\nkind      {}, {}\nstatus    {}{live}\n",
        row.deployment_id,
        row.model_name,
        row.model_version.as_deref().unwrap_or("–"),
        row.kind.as_str(),
        row.deployment_strategy,
        row.status,
    );
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            text.push_str(&format!("{name:<9} {value}\n"));
        }
    };
    line("endpoint", row.endpoint_url.as_deref());
    line("replaced", row.previous_version.as_deref());
    line("why", row.reason.as_deref());
    line("serves", told.serving.as_ref().map(|serving| serving.state.as_str()));
    for check in told.checks.as_array().into_iter().flatten() {
        let mark = if check["passed"] == true { "pass" } else { "FAIL" };
        let detail = check["detail"].as_str().unwrap_or_default();
        text.push_str(&format!("  {mark} {}: {detail}\n", check["name"].as_str().unwrap_or_default()));
    }
    for (name, value) in &told.metrics {
        text.push_str(&format!("  {name} {value}\n"));
    }
    let alerts = told.engineer.as_ref().map_or(0, |engineer| engineer.monitoring.alerts.len());
    if alerts > 0 {
        text.push_str(&format!("alerts    {alerts}: tidegate release rules {}\n", row.deployment_id));
    }
    text
}
