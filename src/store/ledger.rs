//! The release ledger in the same file; its writes go through the same writer.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::SqliteStore;
use super::releases;
use crate::graph::StoreError;
use crate::release::{LedgerError, ReleaseChange, ReleaseFilter, ReleaseLedger, ReleaseRow, Summary};

fn unavailable(error: StoreError) -> LedgerError {
    LedgerError::LedgerUnavailable { message: error.to_string() }
}

#[async_trait]
impl ReleaseLedger for SqliteStore {
    async fn open(&self, row: ReleaseRow) -> Result<ReleaseRow, LedgerError> {
        self.writer.run(move |tx| releases::open(tx.conn, &row)).await.map_err(unavailable)?
    }

    async fn update(&self, deployment_id: &str, change: ReleaseChange) -> Result<ReleaseRow, LedgerError> {
        let id = deployment_id.to_owned();
        self.writer.run(move |tx| releases::update(tx.conn, &id, &change)).await.map_err(unavailable)?
    }

    async fn get(&self, deployment_id: &str) -> Result<Option<ReleaseRow>, LedgerError> {
        let id = deployment_id.to_owned();
        self.readers.read(move |conn| releases::get(conn, &id)).await.map_err(unavailable)
    }

    async fn live(&self, model: &str) -> Result<Option<ReleaseRow>, LedgerError> {
        let model = model.to_owned();
        self.readers.read(move |conn| releases::live(conn, &model)).await.map_err(unavailable)
    }

    async fn list(&self, filter: &ReleaseFilter) -> Result<Vec<ReleaseRow>, LedgerError> {
        let filter = filter.clone();
        self.readers.read(move |conn| releases::list(conn, &filter)).await.map_err(unavailable)
    }

    async fn count(&self, filter: &ReleaseFilter) -> Result<u64, LedgerError> {
        let filter = filter.clone();
        self.readers.read(move |conn| releases::count(conn, &filter)).await.map_err(unavailable)
    }

    async fn summary(&self) -> Result<Summary, LedgerError> {
        self.readers.read(releases::summary).await.map_err(unavailable)
    }

    async fn set_live(&self, model: &str, deployment_id: Option<&str>, at: DateTime<Utc>) -> Result<(), LedgerError> {
        let (model, id) = (model.to_owned(), deployment_id.map(str::to_owned));
        let set = self.writer.run(move |tx| releases::set_live(tx.conn, &model, id.as_deref(), at)).await;
        set.map_err(unavailable)?
    }
}
