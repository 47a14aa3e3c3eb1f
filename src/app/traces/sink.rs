//! The traces of a process: from the engine's events to the collector's queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::run::Run;
use crate::adapters::otlp::Spans;
use crate::graph::{Checkpoint, Event, EventSink, Failure, RunEnd, TaskResult, Thread, ThreadId};

/// The runs that this process advances, as they are traced.
pub(super) struct Traces {
    runs: Mutex<HashMap<ThreadId, Run>>,
    spans: Spans,
}

/// The traces of this process; `None`: the environment names no collector, or says something that makes no sense, which is told once.
pub(super) fn of_process() -> Option<Arc<Traces>> {
    static TRACES: OnceLock<Option<Arc<Traces>>> = OnceLock::new();
    let made = TRACES.get_or_init(|| match Spans::configured()? {
        Ok(spans) => Some(Arc::new(Traces { runs: Mutex::default(), spans })),
        Err(why) => {
            tracing::warn!("there are no traces: {why}");
            None
        }
    });
    made.clone()
}

impl Traces {
    fn runs(&self) -> MutexGuard<'_, HashMap<ThreadId, Run>> {
        // Nothing panics while holding it.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, thread: &Thread) {
        self.runs().insert(thread.id.clone(), Run::new(thread, Utc::now()));
    }

    pub fn end(&self, thread: &Thread, end: Result<&RunEnd, &Failure>, version: Option<String>) {
        let Some(run) = self.runs().remove(&thread.id) else { return };
        run.end(end, version, Utc::now()).into_iter().for_each(|span| self.spans.add(span));
    }

    pub async fn flush(&self, within: Duration) -> u64 {
        self.spans.flush(within).await
    }
}

/// Shows everything to one sink, and makes spans of it beside.
pub(super) struct Beside {
    pub shown: Arc<dyn EventSink>,
    pub traces: Arc<Traces>,
}

impl EventSink for Beside {
    fn event(&self, thread: &ThreadId, at: DateTime<Utc>, event: &Event) {
        let span = self.traces.runs().get_mut(thread).and_then(|run| run.event(at, event));
        span.into_iter().for_each(|span| self.traces.spans.add(span));
        self.shown.event(thread, at, event);
    }

    fn result(&self, ns: &str, result: &TaskResult) {
        self.shown.result(ns, result);
    }

    fn checkpoint(&self, checkpoint: &Checkpoint) {
        self.shown.checkpoint(checkpoint);
    }
}
