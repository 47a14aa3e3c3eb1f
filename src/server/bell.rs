//! Tells whoever follows a thread that something of it has been committed. Nobody waits for a listener: it reads the record at its own pace.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::graph::{Event, EventSink, ThreadId};

/// One bell for each thread that somebody follows.
#[derive(Default)]
pub(super) struct Bell(Mutex<HashMap<ThreadId, watch::Sender<u64>>>);

impl Bell {
    /// Hears of the thread from now on.
    pub fn listen(&self, thread: &ThreadId) -> watch::Receiver<u64> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.entry(thread.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Something of the thread has changed.
    pub fn ring(&self, thread: &ThreadId) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bell) = bells.get(thread) else { return };
        if bell.receiver_count() == 0 {
            bells.remove(thread);
        } else {
            bell.send_modify(|times| *times += 1);
        }
    }

    /// The threads that somebody follows.
    pub fn heard(&self) -> Vec<ThreadId> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|_, bell| bell.receiver_count() > 0);
        bells.keys().cloned().collect()
    }

    /// Whether anybody follows the thread.
    pub fn is_heard(&self, thread: &ThreadId) -> bool {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.get(thread).is_some_and(|bell| bell.receiver_count() > 0)
    }
}

impl EventSink for Bell {
    fn event(&self, thread: &ThreadId, _: DateTime<Utc>, _: &Event) {
        self.ring(thread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_nobody_hears_goes() {
        let (bells, thread) = (Bell::default(), ThreadId::new());
        let mut ear = bells.listen(&thread);
        bells.ring(&thread);
        assert!(ear.has_changed().unwrap() && *ear.borrow_and_update() == 1 && bells.is_heard(&thread));
        drop(ear);
        bells.ring(&thread);
        assert!(!bells.is_heard(&thread) && bells.0.lock().unwrap().is_empty());
    }
}
