//! Counts over the release ledger.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ledger::{ReleaseKind, ReleaseRow};
use super::state::PlanState;

/// Counts over all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// All rows.
    pub total: u64,
    /// Those that serve now: one per model that serves.
    pub active: u64,
    /// DRAFT, APPROVED or EXECUTING.
    pub in_progress: u64,
    /// COMPLETED.
    pub completed: u64,
    /// FAILED.
    pub failed: u64,
    /// Rollbacks among all rows, whatever their state.
    pub rollbacks: u64,
    /// Different models.
    pub models: u64,
}

impl Summary {
    /// The counts of some rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a ReleaseRow>) -> Self {
        let mut summary = Self::default();
        let mut models = BTreeSet::new();
        for row in rows {
            summary.total += 1;
            summary.active += u64::from(row.live);
            summary.rollbacks += u64::from(row.kind == ReleaseKind::Rollback);
            models.insert(row.model_name.as_str());
            match row.status {
                PlanState::Draft | PlanState::Approved | PlanState::Executing => summary.in_progress += 1,
                PlanState::Completed => summary.completed += 1,
                PlanState::Failed => summary.failed += 1,
            }
        }
        summary.models = models.len() as u64;
        summary
    }
}
