//! Threads that were made for one run each: they go when it is over and nobody reads of it any more.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::execute::{Executor, LOOK_EVERY};
use crate::graph::ThreadId;

/// How long the thread of a run without one stays for those who still read its stream.
const LINGER_AT_MOST: Duration = Duration::from_secs(600);
/// Most threads that are removed in one transaction: others wait for it.
const MOST_CLEARED: usize = 32;

/// A thread that was made for one run, which is over.
pub(super) struct Spent {
    thread: ThreadId,
    since: Instant,
}

impl Executor {
    /// A thread that was made for one run goes when nobody reads of it any more.
    pub(super) fn clear_later(self: &Arc<Self>, thread: ThreadId) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.push(Spent { thread, since: Instant::now() });
        // With the first one somebody begins to look, and ends with the last.
        if spent.len() == 1 {
            let this = self.clone();
            tokio::spawn(async move { this.clear().await });
        }
    }

    /// Those that have waited long enough, until none is left: in few transactions, however many they are.
    async fn clear(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (due, over) = {
                let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
                let is_due = |spent: &Spent| {
                    // Whoever asked for the run may just be about to listen.
                    let waited = spent.since.elapsed();
                    waited >= LOOK_EVERY && (waited >= LINGER_AT_MOST || !self.bell.is_heard(&spent.thread))
                };
                let (due, stay): (Vec<Spent>, Vec<Spent>) = std::mem::take(&mut *spent).into_iter().partition(is_due);
                *spent = stay;
                (due, spent.is_empty())
            };
            for some in due.chunks(MOST_CLEARED) {
                let ids = some.iter().map(|spent| spent.thread.clone()).collect();
                if self.app.database().clear_threads(ids, self.app.owner()).await.is_ok() {
                    continue;
                }
                // One of them must not keep the others.
                for Spent { thread, .. } in some {
                    if let Err(error) = self.app.database().clear_threads(vec![thread.clone()], self.app.owner()).await
                    {
                        tracing::warn!(thread = %thread, "a thread stays for now: {}", error.failure());
                    }
                }
            }
            if over {
                return;
            }
        }
    }
}
