//! From the engine's events to the collector's queue.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::{DateTime, Utc};

use super::run::Run;
use crate::adapters::otlp::Spans;
use crate::graph::{Checkpoint, Event, EventSink, Failure, RunEnd, TaskResult, Thread, ThreadId};

/// Where the spans of this process go; `None`: the environment names no collector, or says something that makes no sense, which is told once.
pub(super) fn spans() -> Option<Arc<Spans>> {
    static SPANS: OnceLock<Option<Arc<Spans>>> = OnceLock::new();
    let made = SPANS.get_or_init(|| match Spans::configured()? {
        Ok(spans) => Some(Arc::new(spans)),
        Err(why) => {
            tracing::warn!("there are no traces: {why}");
            None
        }
    });
    made.clone()
}

/// One run: shows everything to the sink that is there, and makes spans of it beside.
pub(super) struct Beside {
    shown: Arc<dyn EventSink>,
    thread: ThreadId,
    run: Mutex<Option<Run>>,
    spans: Arc<Spans>,
}

impl Beside {
    pub fn new(shown: &Arc<dyn EventSink>, thread: &Thread, spans: Arc<Spans>) -> Self {
        let run = Mutex::new(Some(Run::new(thread, Utc::now())));
        Self { shown: shown.clone(), thread: thread.id.clone(), run, spans }
    }

    pub fn thread(&self) -> &str {
        self.thread.as_str()
    }

    fn run(&self) -> MutexGuard<'_, Option<Run>> {
        // Nothing panics while holding it.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn end(&self, end: Result<&RunEnd, &Failure>, version: Option<String>) {
        let Some(run) = self.run().take() else { return };
        run.end(end, version, Utc::now()).into_iter().for_each(|span| self.spans.add(span));
    }
}

impl EventSink for Beside {
    fn event(&self, thread: &ThreadId, at: DateTime<Utc>, event: &Event) {
        let span = self.run().as_mut().filter(|_| *thread == self.thread).and_then(|run| run.event(at, event));
        span.into_iter().for_each(|span| self.spans.add(span));
        self.shown.event(thread, at, event);
    }

    fn result(&self, ns: &str, result: &TaskResult) {
        self.shown.result(ns, result);
    }

    fn checkpoint(&self, checkpoint: &Checkpoint) {
        self.shown.checkpoint(checkpoint);
    }
}
