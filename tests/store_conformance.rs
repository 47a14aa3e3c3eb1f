//! One suite for every store: the one in memory and the one in SQLite, opened anew between its steps.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate::graph::{Liveness, MemoryStore, Owner, Store};
use tidegate::release::ledger_conformance;
use tidegate::store::{Harness, Options, SqliteStore, Synchronous, store_conformance};

struct Memory(Arc<MemoryStore>);

impl Harness for Memory {
    fn open(&self) -> Arc<dyn Store> {
        self.0.clone()
    }
}

/// Every owner lives until it releases: what the suite expects.
struct Immortal;

impl Liveness for Immortal {
    fn alive(&self, _owner: &Owner) -> bool {
        true
    }
}

struct Sqlite(PathBuf);

impl Harness for Sqlite {
    fn open(&self) -> Arc<dyn Store> {
        let options = Options { liveness: Arc::new(Immortal), synchronous: Synchronous::Normal, ..Options::default() };
        Arc::new(SqliteStore::open_with(&self.0, options).expect("the store opens"))
    }
}

#[tokio::test]
async fn the_store_in_memory_conforms() -> Result<(), Box<dyn Error>> {
    Ok(store_conformance(&Memory(Arc::default())).await?)
}

#[tokio::test]
async fn the_store_in_sqlite_conforms() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    Ok(store_conformance(&Sqlite(dir.path().join("home/tidegate.db"))).await?)
}

#[tokio::test]
async fn the_release_ledger_in_sqlite_conforms() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tidegate.db");
    Ok(ledger_conformance(&SqliteStore::open(path)?).await?)
}
