//! What this handle knows without reading: supersteps of which nothing partial is kept.
//!
//! The engine asks for partial results at every superstep, and nearly always there are none. While this handle holds the lease,
//! every write to the thread goes through it, so the answer is known.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::graph::{CheckpointId, Name, ThreadId};

/// Per thread that this handle advances: the epoch and the fresh checkpoints. Bounded by the leases it holds.
#[derive(Default)]
pub(super) struct Quiet {
    leases: Mutex<HashMap<ThreadId, Lease>>,
}

struct Lease {
    epoch: u64,
    fresh: HashMap<Name, CheckpointId>,
}

impl Quiet {
    fn leases(&self) -> MutexGuard<'_, HashMap<ThreadId, Lease>> {
        // Nothing panics while holding it.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease was taken through this handle.
    pub fn begin(&self, thread: &ThreadId, epoch: u64) {
        self.leases().insert(thread.clone(), Lease { epoch, fresh: HashMap::new() });
    }

    /// The lease is given back or lost.
    pub fn end(&self, thread: &ThreadId) {
        self.leases().remove(thread);
    }

    /// Something partial is about to be kept.
    pub fn disturb(&self, thread: &ThreadId, namespaces: &HashSet<Name>) {
        if let Some(lease) = self.leases().get_mut(thread) {
            lease.fresh.retain(|ns, _| !namespaces.contains(ns));
        }
    }

    /// Checkpoints were committed, and nothing partial with them.
    pub fn fresh(&self, thread: &ThreadId, epoch: u64, checkpoints: Vec<(Name, CheckpointId)>) {
        if let Some(lease) = self.leases().get_mut(thread).filter(|lease| lease.epoch == epoch) {
            lease.fresh.extend(checkpoints);
        }
    }

    /// Whether it is certain that nothing is kept of this superstep.
    pub fn knows(&self, thread: &ThreadId, ns: &str, checkpoint: &CheckpointId) -> bool {
        self.leases().get(thread).is_some_and(|lease| lease.fresh.get(ns) == Some(checkpoint))
    }
}
