//! Signs of life: how long it is since a task, or anything inside it, asked something of its context.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Checkpoint, Name, Persistence, Task, TaskPath};

/// The tasks of a run whose signs of life are watched.
#[derive(Default)]
pub(super) struct Vigil {
    watched: Mutex<Vec<Arc<Watched>>>,
}

struct Watched {
    ns: Name,
    path: TaskPath,
    /// The namespace of what runs inside it.
    inner: String,
    last: Mutex<Instant>,
}

impl Watched {
    fn is_of(&self, ns: &str, path: &TaskPath) -> bool {
        let inside = || ns.strip_prefix(&self.inner).is_some_and(|rest| rest.is_empty() || rest.starts_with('|'));
        (*self.ns == *ns && self.path == *path) || inside()
    }
}

/// Watches one task until it is dropped.
pub(super) struct Watch<'v> {
    vigil: &'v Vigil,
    of: Arc<Watched>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while holding one; a poisoned one still holds a whole value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vigil {
    /// Begins to watch a task.
    pub fn watch(&self, checkpoint: &Checkpoint, task: &Task, persistence: Persistence) -> Watch<'_> {
        let of = Arc::new(Watched {
            ns: checkpoint.ns.clone(),
            path: task.path.clone(),
            inner: task.inner_ns(&checkpoint.ns, checkpoint.fork, persistence),
            last: Mutex::new(Instant::now()),
        });
        lock(&self.watched).push(of.clone());
        Watch { vigil: self, of }
    }

    /// A sign of life of a task.
    pub fn sign(&self, ns: &str, path: &TaskPath) {
        let watched = lock(&self.watched);
        watched.iter().filter(|of| of.is_of(ns, path)).for_each(|of| *lock(&of.last) = Instant::now());
    }
}

impl Watch<'_> {
    /// Returns when there has been no sign for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let left = limit.saturating_sub(lock(&self.of.last).elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        lock(&self.vigil.watched).retain(|of| !Arc::ptr_eq(of, &self.of));
    }
}
