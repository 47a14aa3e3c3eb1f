//! The release ledger: one row per attempt to make a version serve, as the table `ml_deployments` keeps it.
//!
//! Every change of what serves is a row of its own: a deploy, or a rollback (`kind`). At most one row of a model is `live`. When
//! another takes its place the row stays as it ended and gets `superseded_by`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::Format;
use super::plan::LiveRelease;
use super::state::PlanState;
use super::strategy::Strategy;
pub use super::summary::Summary;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseKind {
    /// A new version.
    Deploy,
    /// Back to a version that served before.
    Rollback,
}

impl ReleaseKind {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
        }
    }

    /// The kind of a stored word; `None` for any other word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Deploy, Self::Rollback].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One row of `ml_deployments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRow {
    /// Format of this structure.
    #[serde(default)]
    pub format: Format<1>,
    /// The key; also the thread's id.
    pub deployment_id: String,
    /// The model's public name.
    pub model_name: String,
    /// The version; absent until it is built.
    #[serde(default)]
    pub model_version: Option<String>,
    /// The model's public URL; absent until it is known.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// The strategy.
    pub deployment_strategy: Strategy,
    /// One of the five states.
    pub status: PlanState,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// The version that served before; absent at a first release.
    #[serde(default)]
    pub previous_version: Option<String>,
    /// Why it failed, or why it was rolled back.
    #[serde(default)]
    pub reason: Option<String>,
    /// The package's content, `sha256:<hex>`.
    #[serde(default)]
    pub content_digest: Option<String>,
    /// The unpacked package, absolute.
    #[serde(default)]
    pub release_dir: Option<String>,
    /// The slot's name, e.g. `green`.
    #[serde(default)]
    pub slot: Option<String>,
    /// The slot's token.
    #[serde(default)]
    pub slot_token: Option<String>,
    /// The plan, as JSON.
    #[serde(default)]
    pub plan: Option<Value>,
    /// What was handed back, as JSON.
    #[serde(default)]
    pub output: Option<Value>,
    /// What was measured before users saw the version, by name.
    #[serde(default)]
    pub metrics_baseline: BTreeMap<String, f64>,
    /// Who asked.
    #[serde(default)]
    pub requested_by: Option<String>,
    /// The target environment.
    #[serde(default)]
    pub environment: Option<String>,
    /// Whether it serves now.
    pub live: bool,
    /// The release that took its place.
    #[serde(default)]
    pub superseded_by: Option<String>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it came to COMPLETED or FAILED.
    #[serde(default)]
    pub finished_at: Option<DateTime<Utc>>,
    /// A deploy or a rollback.
    pub kind: ReleaseKind,
}

impl ReleaseRow {
    /// A row as it is opened: DRAFT, blue-green, everything else empty.
    pub fn new(deployment_id: &str, model_name: &str, kind: ReleaseKind, at: DateTime<Utc>) -> Self {
        Self {
            format: Format,
            deployment_id: deployment_id.to_owned(),
            model_name: model_name.to_owned(),
            model_version: None,
            endpoint_url: None,
            deployment_strategy: Strategy::BlueGreen,
            status: PlanState::Draft,
            created_at: at,
            previous_version: None,
            reason: None,
            content_digest: None,
            release_dir: None,
            slot: None,
            slot_token: None,
            plan: None,
            output: None,
            metrics_baseline: BTreeMap::new(),
            requested_by: None,
            environment: None,
            live: false,
            superseded_by: None,
            updated_at: at,
            finished_at: None,
            kind,
        }
    }

    /// The row as a ledger opens it: later than the newest row of its model, so that the order of times is the order of opening
    /// whatever the clocks say. Of two that are opened at once, the second then sees an older one.
    pub fn opened_after(self, newest: Option<DateTime<Utc>>) -> Self {
        let after = newest.map(|newest| newest + chrono::Duration::nanoseconds(1));
        Self { created_at: after.map_or(self.created_at, |after| after.max(self.created_at)), ..self }
    }

    /// Checks that `other`, which has the same id, is the same release opened again.
    ///
    /// # Errors
    /// When model or kind differ.
    pub fn check_same(&self, other: &Self) -> Result<(), LedgerError> {
        let conflict = |difference: String| {
            Err(LedgerError::ReleaseConflict { deployment_id: self.deployment_id.clone(), difference })
        };
        if self.model_name != other.model_name {
            return conflict(format!("its model is {}, not {}", self.model_name, other.model_name));
        }
        if self.kind != other.kind {
            return conflict(format!("it is a {}, not a {}", self.kind.as_str(), other.kind.as_str()));
        }
        Ok(())
    }

    /// Applies `change`: the one function that every ledger changes rows with.
    ///
    /// # Errors
    /// When the state it names cannot follow the row's, or the row's is not one that the change expects.
    pub fn apply(&mut self, change: &ReleaseChange) -> Result<(), LedgerError> {
        if let Some(next) = change.status {
            let expected = change.only_from.is_empty() || change.only_from.contains(&self.status);
            if !expected || !self.status.may_become(next) {
                let deployment_id = self.deployment_id.clone();
                return Err(LedgerError::ReleaseState { deployment_id, from: self.status, to: next });
            }
            if next.is_terminal() && self.finished_at.is_none() {
                self.finished_at = Some(change.at);
            }
            self.status = next;
        }
        put(&mut self.model_version, &change.model_version);
        put(&mut self.endpoint_url, &change.endpoint_url);
        put(&mut self.previous_version, &change.previous_version);
        put(&mut self.reason, &change.reason);
        put(&mut self.content_digest, &change.content_digest);
        put(&mut self.release_dir, &change.release_dir);
        put(&mut self.slot, &change.slot);
        put(&mut self.slot_token, &change.slot_token);
        put(&mut self.plan, &change.plan);
        put(&mut self.output, &change.output);
        if let Some(metrics) = &change.metrics_baseline {
            self.metrics_baseline.clone_from(metrics);
        }
        if let Some(strategy) = change.deployment_strategy {
            self.deployment_strategy = strategy;
        }
        self.updated_at = self.updated_at.max(change.at);
        Ok(())
    }

    /// What the planner needs of this row; `None` while it has no version.
    pub fn as_live(&self) -> Option<LiveRelease> {
        Some(LiveRelease {
            deployment_id: self.deployment_id.clone(),
            model_version: self.model_version.clone()?,
            slot: self.slot.clone(),
            slot_token: self.slot_token.clone(),
            content_digest: self.content_digest.clone(),
            replicas: self.plan.as_ref().and_then(|plan| plan["replicas"].as_u64()).and_then(|n| u32::try_from(n).ok()),
        })
    }
}

fn put<T: Clone>(slot: &mut Option<T>, value: &Option<T>) {
    if value.is_some() {
        slot.clone_from(value);
    }
}

/// What changes in a row; what is absent stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseChange {
    /// When.
    pub at: DateTime<Utc>,
    /// The next state, one event away or the same.
    #[serde(default)]
    pub status: Option<PlanState>,
    /// The states in which the row must be for `status` to change, so that of two that start one release one is refused; empty: any.
    #[serde(default)]
    pub only_from: Vec<PlanState>,
    /// See the row.
    #[serde(default)]
    pub model_version: Option<String>,
    /// See the row.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// See the row.
    #[serde(default)]
    pub deployment_strategy: Option<Strategy>,
    /// See the row.
    #[serde(default)]
    pub previous_version: Option<String>,
    /// See the row.
    #[serde(default)]
    pub reason: Option<String>,
    /// See the row.
    #[serde(default)]
    pub content_digest: Option<String>,
    /// See the row.
    #[serde(default)]
    pub release_dir: Option<String>,
    /// See the row.
    #[serde(default)]
    pub slot: Option<String>,
    /// See the row.
    #[serde(default)]
    pub slot_token: Option<String>,
    /// See the row.
    #[serde(default)]
    pub plan: Option<Value>,
    /// See the row.
    #[serde(default)]
    pub output: Option<Value>,
    /// See the row; replaces all of it.
    #[serde(default)]
    pub metrics_baseline: Option<BTreeMap<String, f64>>,
}

impl ReleaseChange {
    /// A change of nothing, at a time.
    pub fn at(at: DateTime<Utc>) -> Self {
        Self {
            at,
            status: None,
            only_from: Vec::new(),
            model_version: None,
            endpoint_url: None,
            deployment_strategy: None,
            previous_version: None,
            reason: None,
            content_digest: None,
            release_dir: None,
            slot: None,
            slot_token: None,
            plan: None,
            output: None,
            metrics_baseline: None,
        }
    }

    /// A change of state.
    pub fn to(status: PlanState, at: DateTime<Utc>) -> Self {
        Self { status: Some(status), ..Self::at(at) }
    }

    /// The change to EXECUTING that only one of several wins.
    pub fn start(at: DateTime<Utc>) -> Self {
        Self { only_from: vec![PlanState::Draft, PlanState::Approved], ..Self::to(PlanState::Executing, at) }
    }

    /// The change to FAILED with its reason.
    pub fn failed(reason: &str, at: DateTime<Utc>) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::to(PlanState::Failed, at) }
    }
}

/// Which rows are wanted; what is absent does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFilter {
    /// Of this model.
    #[serde(default)]
    pub model: Option<String>,
    /// In one of these states; empty: any.
    #[serde(default)]
    pub status: Vec<PlanState>,
    /// Of this kind.
    #[serde(default)]
    pub kind: Option<ReleaseKind>,
    /// For this environment.
    #[serde(default)]
    pub environment: Option<String>,
    /// Serving, or not.
    #[serde(default)]
    pub live: Option<bool>,
    /// At most so many, the newest.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Without so many of the newest.
    #[serde(default)]
    pub offset: u32,
}

impl ReleaseFilter {
    /// The releases that have not ended.
    pub fn under_way() -> Self {
        Self { status: vec![PlanState::Draft, PlanState::Approved, PlanState::Executing], ..Self::default() }
    }

    /// The releases of `model` that have not ended.
    pub fn in_progress(model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..Self::under_way() }
    }

    /// Whether a row is wanted; limit and offset are the caller's.
    pub fn matches(&self, row: &ReleaseRow) -> bool {
        self.model.as_ref().is_none_or(|model| *model == row.model_name)
            && (self.status.is_empty() || self.status.contains(&row.status))
            && self.kind.is_none_or(|kind| kind == row.kind)
            && (self.environment.is_none() || self.environment == row.environment)
            && self.live.is_none_or(|live| live == row.live)
    }
}

/// Why the ledger refused, or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum LedgerError {
    /// There is no such row.
    #[error("there is no release {deployment_id}")]
    ReleaseUnknown {
        /// The id asked for.
        deployment_id: String,
    },
    /// The id is taken by another release.
    #[error("release {deployment_id} exists already and is another one: {difference}")]
    ReleaseConflict {
        /// The id.
        deployment_id: String,
        /// What differs.
        difference: String,
    },
    /// The state cannot follow.
    #[error("release {deployment_id} is {from} and cannot become {to}")]
    ReleaseState {
        /// The release.
        deployment_id: String,
        /// Its state.
        from: PlanState,
        /// The state asked for.
        to: PlanState,
    },
    /// The release is one of another model.
    #[error("release {deployment_id} is one of {owner}, not of {model}")]
    ReleaseOfOther {
        /// The release.
        deployment_id: String,
        /// The model it belongs to.
        owner: String,
        /// The model that was named.
        model: String,
    },
    /// The store behind it failed.
    #[error("the release ledger cannot be used: {message}")]
    LedgerUnavailable {
        /// What the store said.
        message: String,
    },
}

impl LedgerError {
    /// Stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ReleaseUnknown { .. } => "release_unknown",
            Self::ReleaseConflict { .. } => "release_conflict",
            Self::ReleaseState { .. } => "release_state",
            Self::ReleaseOfOther { .. } => "release_of_other",
            Self::LedgerUnavailable { .. } => "ledger_unavailable",
        }
    }
}

/// Keeps the rows. Every method is one transaction; every change may be repeated after a crash with the same result.
///
/// Lists are newest first: by `created_at`, then by `deployment_id`, both falling.
#[async_trait]
pub trait ReleaseLedger: Send + Sync {
    /// Adds a row. With an id that is there: returns the stored row, untouched, if model and kind are the same.
    async fn open(&self, row: ReleaseRow) -> Result<ReleaseRow, LedgerError>;
    /// Changes a row by [`ReleaseRow::apply`] and returns it.
    async fn update(&self, deployment_id: &str, change: ReleaseChange) -> Result<ReleaseRow, LedgerError>;
    /// A row.
    async fn get(&self, deployment_id: &str) -> Result<Option<ReleaseRow>, LedgerError>;
    /// The row of `model` that serves.
    async fn live(&self, model: &str) -> Result<Option<ReleaseRow>, LedgerError>;
    /// The rows that a filter wants.
    async fn list(&self, filter: &ReleaseFilter) -> Result<Vec<ReleaseRow>, LedgerError>;
    /// How many rows a filter wants, whatever its limit and offset.
    async fn count(&self, filter: &ReleaseFilter) -> Result<u64, LedgerError>;
    /// All rows of `model`.
    async fn history(&self, model: &str) -> Result<Vec<ReleaseRow>, LedgerError> {
        self.list(&ReleaseFilter { model: Some(model.to_owned()), ..ReleaseFilter::default() }).await
    }
    /// All rows that serve, one per model.
    async fn active(&self) -> Result<Vec<ReleaseRow>, LedgerError> {
        self.list(&ReleaseFilter { live: Some(true), ..ReleaseFilter::default() }).await
    }
    /// Counts over all rows.
    async fn summary(&self) -> Result<Summary, LedgerError>;
    /// Makes one row of `model` the live one, at `at`: the row that was live gets `superseded_by`, the new one loses its own. `None`:
    /// nothing of `model` serves any more; no `superseded_by` changes.
    async fn set_live(&self, model: &str, deployment_id: Option<&str>, at: DateTime<Utc>) -> Result<(), LedgerError>;
}

/// The slot token of a release: `<slot>-<deployment id>`, an idempotency key of at most 64 characters.
pub fn slot_token(slot: &str, deployment_id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' };
    format!("{slot}-{deployment_id}").chars().map(plain).take(64).collect()
}
