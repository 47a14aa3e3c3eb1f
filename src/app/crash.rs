//! Crash points: a store that kills its process at the n-th write point. Exists in debug builds only, for tests that kill a run at every
//! boundary: before and after each transaction lie all boundaries of intents, performances, receipts and undos.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::graph::{
    Checkpoint, CheckpointId, Claim, Entry, EventRow, Inbox, Interrupt, InterruptId, Item, Opening, Owner, Partial,
    Produced, Recall, Record, Signal, StopAsk, Store, StoreError, Thread, ThreadFilter, ThreadId, Transaction,
};

/// Names the write point, from 1, at which the process ends by SIGKILL.
const VARIABLE: &str = "TIDEGATE_CRASH_AT";

/// `store`, or in a debug build with the variable set, `store` behind crash points.
pub(super) fn with_crash_points(store: Arc<dyn Store>) -> Arc<dyn Store> {
    if !cfg!(debug_assertions) {
        return store;
    }
    match std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()) {
        Some(at) => Arc::new(CrashPoints { store, at, passed: AtomicU64::new(0) }),
        None => store,
    }
}

struct CrashPoints {
    store: Arc<dyn Store>,
    at: u64,
    passed: AtomicU64,
}

impl CrashPoints {
    fn point(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            // A failed kill would let the test run on and fail there.
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[async_trait]
impl Store for CrashPoints {
    async fn create(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        self.point();
        let done = self.store.create(thread, records).await;
        self.point();
        done
    }

    async fn create_quietly(&self, thread: &Thread, records: Vec<Record>) -> Result<(), StoreError> {
        self.point();
        let done = self.store.create_quietly(thread, records).await;
        self.point();
        done
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.point();
        let done = self.store.commit(transaction).await;
        self.point();
        done
    }

    async fn answer_all(&self, claims: Vec<Claim>) -> Result<Vec<Interrupt>, StoreError> {
        self.point();
        let done = self.store.answer_all(claims).await;
        self.point();
        done
    }

    async fn thread(&self, id: &ThreadId) -> Result<Option<Thread>, StoreError> {
        self.store.thread(id).await
    }

    async fn threads(&self, filter: &ThreadFilter) -> Result<Vec<Thread>, StoreError> {
        self.store.threads(filter).await
    }

    async fn acquire(&self, id: &ThreadId, owner: &Owner) -> Result<Thread, StoreError> {
        let done = self.store.acquire(id, owner).await;
        self.point();
        done
    }

    async fn begin(
        &self,
        id: &ThreadId,
        owner: &Owner,
        at: DateTime<Utc>,
        opening: Opening,
    ) -> Result<Thread, StoreError> {
        self.point();
        let done = self.store.begin(id, owner, at, opening).await;
        self.point();
        done
    }

    async fn recall(&self, id: &ThreadId) -> Result<Recall, StoreError> {
        self.store.recall(id).await
    }

    async fn release(&self, id: &ThreadId, epoch: u64) -> Result<(), StoreError> {
        self.store.release(id, epoch).await
    }

    async fn attend(&self, id: &ThreadId, attendant: Option<&Owner>) -> Result<(), StoreError> {
        self.store.attend(id, attendant).await
    }

    async fn signal(&self, id: &ThreadId, signal: &Signal) -> Result<u64, StoreError> {
        self.point();
        let done = self.store.signal(id, signal).await;
        self.point();
        done
    }

    async fn signals(&self, id: &ThreadId) -> Result<Vec<Signal>, StoreError> {
        self.store.signals(id).await
    }

    async fn item(&self, namespace: &str, key: &str, now: DateTime<Utc>) -> Result<Option<Item>, StoreError> {
        self.store.item(namespace, key, now).await
    }

    async fn items(&self, prefix: &str, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.store.items(prefix, now, limit).await
    }

    async fn cached(&self, key: &str, now: DateTime<Utc>) -> Result<Option<Produced>, StoreError> {
        self.store.cached(key, now).await
    }

    async fn ask_stop(&self, id: &ThreadId, ask: &StopAsk) -> Result<(), StoreError> {
        self.store.ask_stop(id, ask).await
    }

    async fn inbox(&self, id: &ThreadId) -> Result<Inbox, StoreError> {
        self.store.inbox(id).await
    }

    async fn latest(&self, id: &ThreadId, ns: &str) -> Result<Option<Checkpoint>, StoreError> {
        self.store.latest(id, ns).await
    }

    async fn history(&self, id: &ThreadId, ns: &str) -> Result<Vec<Checkpoint>, StoreError> {
        self.store.history(id, ns).await
    }

    async fn namespaces(&self, id: &ThreadId) -> Result<Vec<String>, StoreError> {
        self.store.namespaces(id).await
    }

    async fn partial(&self, id: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> Result<Partial, StoreError> {
        self.store.partial(id, ns, checkpoint).await
    }

    async fn journal(&self, id: &ThreadId) -> Result<Vec<Entry>, StoreError> {
        self.store.journal(id).await
    }

    async fn interrupts(&self, thread: Option<&ThreadId>, open_only: bool) -> Result<Vec<Interrupt>, StoreError> {
        self.store.interrupts(thread, open_only).await
    }

    async fn interrupt(&self, id: &InterruptId) -> Result<Option<Interrupt>, StoreError> {
        self.store.interrupt(id).await
    }

    async fn events(&self, id: &ThreadId, after: u64, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        self.store.events(id, after, limit).await
    }
}
