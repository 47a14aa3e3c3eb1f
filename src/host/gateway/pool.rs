//! Connections to slots that nobody uses now: each worker has its own, so that no connection ever changes its thread.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::UPSTREAM_IDLE;
use super::body::Lent;
use super::wire::{Sent, Wire};

/// To one slot, in one worker: as many as there may be requests at once in a burst; what is beyond is closed after its use.
const MOST: usize = 1024;
/// Closed this soon after their time.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// By port.
#[derive(Debug)]
pub(super) struct Pool<B = Lent>(Mutex<HashMap<u16, Vec<Wire<B>>>>);

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: Sent> Pool<B> {
    /// A connection that is open as far as anybody knows; the one used last, because it is the warmest.
    pub(super) fn take(&self, port: u16) -> Option<Wire<B>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.get_mut(&port)?;
        while let Some(mut wire) = idle.pop() {
            // The rest is older still; the sweep has it.
            if wire.idle_since.elapsed() > UPSTREAM_IDLE {
                return None;
            }
            if wire.is_free() {
                return Some(wire);
            }
        }
        None
    }

    /// Takes one back. Whether it can be used again is seen when it is taken: by then nothing refers to what was read over it, and its
    /// buffer is used again, too.
    pub(super) fn give(&self, mut wire: Wire<B>) {
        wire.idle_since = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.entry(wire.port).or_default();
        if idle.len() < MOST {
            idle.push(wire);
        }
    }

    /// Closes what was not used for long, or is closed by the other side, as long as it is polled.
    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, idle| {
                idle.retain_mut(|wire| wire.idle_since.elapsed() <= UPSTREAM_IDLE && wire.is_free());
                !idle.is_empty()
            });
        }
    }
}
