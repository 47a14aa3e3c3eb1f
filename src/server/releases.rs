//! Releases: the ledger, what is known of one, its alerts and its dashboard. All of it is what the terminal tells.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::json;

use super::Server;
use super::error::{Answer, ApiError};
use super::state;
use crate::release::{PlanState, ReleaseFilter};

/// Releases in an answer where nobody says how many.
const USUAL: u32 = 10;
/// Most releases in one answer: each has its whole plan.
const MOST: u32 = 100;

/// The states that a release can be in.
const STATES: [PlanState; 5] =
    [PlanState::Draft, PlanState::Approved, PlanState::Executing, PlanState::Completed, PlanState::Failed];

fn state_of(word: &str) -> Answer<PlanState> {
    let found = STATES.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(word));
    found.ok_or_else(|| {
        let known = STATES.map(PlanState::as_str).join(", ");
        ApiError::invalid(format!("`status` is `{word}`, but must be of {known}"))
    })
}

fn number(key: &str, text: &str) -> Answer<u32> {
    text.parse().map_err(|_| ApiError::invalid(format!("`{key}` is `{text}`, but must be a number")))
}

/// What a query wants; `status` may be there several times.
fn wanted(query: &[(String, String)]) -> Answer<ReleaseFilter> {
    let mut filter = ReleaseFilter { limit: Some(USUAL), ..ReleaseFilter::default() };
    for (key, text) in query {
        match key.as_str() {
            "model" => filter.model = Some(text.clone()),
            "status" => filter.status.push(state_of(text)?),
            "limit" => filter.limit = Some(number(key, text)?),
            "offset" => filter.offset = number(key, text)?,
            _ => return Err(ApiError::invalid(format!("`{key}` is none of model, status, limit, offset"))),
        }
    }
    if !filter.limit.is_some_and(|limit| (1..=MOST).contains(&limit)) {
        return Err(ApiError::invalid(format!("`limit` must be 1 to {MOST}")));
    }
    Ok(filter)
}

/// Releases, newest first.
pub(super) async fn list(State(server): State<Arc<Server>>, Query(query): Query<Vec<(String, String)>>) -> Answer {
    let (rows, total) = server.app.releases_page(&wanted(&query)?).await?;
    Ok(([("x-pagination-total", total.to_string())], state::ok(&json!(rows))).into_response())
}

/// Everything that is known of one.
pub(super) async fn get(State(server): State<Arc<Server>>, Path(release): Path<String>) -> Answer {
    let row = server.app.release(&release).await?;
    Ok(state::ok(&json!(server.app.release_told(row).await?)))
}

/// Its alerts, as Prometheus reads them.
pub(super) async fn rules(State(server): State<Arc<Server>>, Path(release): Path<String>) -> Answer {
    let rules = server.app.prometheus_rules(&server.app.release(&release).await?)?;
    Ok(([(header::CONTENT_TYPE, "application/yaml")], rules).into_response())
}

/// A dashboard, as Grafana imports it.
pub(super) async fn dashboard(State(server): State<Arc<Server>>, Path(release): Path<String>) -> Answer {
    let row = server.app.release(&release).await?;
    Ok(state::ok(&server.app.grafana_dashboard(&row)?))
}
