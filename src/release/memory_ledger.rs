//! A release ledger in memory, for tests and for plans that are never stored.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::ledger::{LedgerError, ReleaseChange, ReleaseFilter, ReleaseLedger, ReleaseRow, Summary};

/// Keeps rows until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    rows: Mutex<BTreeMap<String, ReleaseRow>>,
}

impl MemoryLedger {
    /// The rows; a panic elsewhere while they were held left them whole, as every change is made on a copy.
    fn rows(&self) -> MutexGuard<'_, BTreeMap<String, ReleaseRow>> {
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl ReleaseLedger for MemoryLedger {
    async fn open(&self, row: ReleaseRow) -> Result<ReleaseRow, LedgerError> {
        let mut rows = self.rows();
        let newest = rows.values().filter(|r| r.model_name == row.model_name).map(|r| r.created_at).max();
        let stored = rows.entry(row.deployment_id.clone()).or_insert_with(|| row.clone().opened_after(newest));
        stored.check_same(&row)?;
        Ok(stored.clone())
    }

    async fn update(&self, deployment_id: &str, change: ReleaseChange) -> Result<ReleaseRow, LedgerError> {
        let mut rows = self.rows();
        let stored = rows.get_mut(deployment_id).ok_or_else(|| unknown(deployment_id))?;
        let mut row = stored.clone();
        row.apply(&change)?;
        stored.clone_from(&row);
        Ok(row)
    }

    async fn get(&self, deployment_id: &str) -> Result<Option<ReleaseRow>, LedgerError> {
        Ok(self.rows().get(deployment_id).cloned())
    }

    async fn live(&self, model: &str) -> Result<Option<ReleaseRow>, LedgerError> {
        Ok(self.rows().values().find(|row| row.live && row.model_name == model).cloned())
    }

    async fn list(&self, filter: &ReleaseFilter) -> Result<Vec<ReleaseRow>, LedgerError> {
        let mut found: Vec<_> = self.rows().values().filter(|row| filter.matches(row)).cloned().collect();
        found.sort_by(|a, b| (b.created_at, &b.deployment_id).cmp(&(a.created_at, &a.deployment_id)));
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(found.into_iter().skip(filter.offset as usize).take(limit).collect())
    }

    async fn count(&self, filter: &ReleaseFilter) -> Result<u64, LedgerError> {
        Ok(self.rows().values().filter(|row| filter.matches(row)).count() as u64)
    }

    async fn summary(&self) -> Result<Summary, LedgerError> {
        Ok(Summary::of(self.rows().values()))
    }

    async fn set_live(&self, model: &str, deployment_id: Option<&str>, at: DateTime<Utc>) -> Result<(), LedgerError> {
        let mut rows = self.rows();
        if let Some(id) = deployment_id {
            let row = rows.get(id).ok_or_else(|| unknown(id))?;
            if row.model_name != model {
                let (owner, model) = (row.model_name.clone(), model.to_owned());
                return Err(LedgerError::ReleaseOfOther { deployment_id: id.to_owned(), owner, model });
            }
        }
        for row in rows.values_mut().filter(|row| row.model_name == model) {
            let next = deployment_id == Some(row.deployment_id.as_str());
            if row.live == next {
                continue;
            }
            row.live = next;
            row.updated_at = row.updated_at.max(at);
            match deployment_id {
                Some(_) if next => row.superseded_by = None,
                Some(id) => row.superseded_by = Some(id.to_owned()),
                None => {}
            }
        }
        Ok(())
    }
}

fn unknown(deployment_id: &str) -> LedgerError {
    LedgerError::ReleaseUnknown { deployment_id: deployment_id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::conformance::ledger_conformance;
    use crate::release::fixtures::wait;

    #[test]
    fn conforms() {
        wait(ledger_conformance(&MemoryLedger::default())).expect("conforms");
    }
}
