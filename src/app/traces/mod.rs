//! Traces of runs, where the program was built with the feature `otlp` and the environment names a collector. Without the feature all of it
//! is nothing.

#[cfg(feature = "otlp")]
mod run;
#[cfg(feature = "otlp")]
mod sink;

use std::time::Duration;

use super::App;
use crate::graph::{Engine, Failure, RunEnd, Thread};

/// A run whose events become spans, if anybody collects them.
pub(super) struct Traced {
    #[cfg(feature = "otlp")]
    run: Option<std::sync::Arc<sink::Beside>>,
}

impl App {
    /// Whether runs are told to a collector.
    #[expect(clippy::unused_self, reason = "a matter of the home, wherever it is kept")]
    pub(super) fn is_tracing(&self) -> bool {
        #[cfg(feature = "otlp")]
        return sink::spans().is_some();
        #[cfg(not(feature = "otlp"))]
        false
    }

    /// The engine for one run of a thread.
    pub(super) fn tracing_engine(&self, thread: &Thread) -> (Engine, Traced) {
        let engine = self.engine();
        #[cfg(feature = "otlp")]
        {
            let run = sink::spans().map(|spans| std::sync::Arc::new(sink::Beside::new(&self.sink, thread, spans)));
            let engine = match &run {
                Some(run) => engine.with_sink(run.clone()),
                None => engine,
            };
            (engine, Traced { run })
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _ = thread;
            (engine, Traced {})
        }
    }

    /// It has ended, or failed in an unforeseen way.
    pub(super) async fn traced(&self, traced: Traced, end: Result<&RunEnd, &Failure>) {
        #[cfg(feature = "otlp")]
        if let Some(run) = traced.run {
            let row = self.ledger().get(run.thread()).await.ok().flatten();
            run.end(end, row.and_then(|row| row.model_version));
        }
        #[cfg(not(feature = "otlp"))]
        let _ = (traced, end);
    }
}

/// Waits until the traces of this process have been sent, no longer than `within`; how many spans were lost.
pub async fn flush_traces(within: Duration) -> u64 {
    #[cfg(feature = "otlp")]
    if let Some(spans) = sink::spans() {
        return spans.flush(within).await;
    }
    let _ = within;
    0
}
