//! Traces of runs, where the program was built with the feature `otlp` and the environment names a collector. Without the feature all of it
//! is nothing.

#[cfg(feature = "otlp")]
mod run;
#[cfg(feature = "otlp")]
mod sink;

use std::sync::Arc;
use std::time::Duration;

use super::App;
use crate::graph::{EventSink, Failure, RunEnd, Thread};

/// `sink`, and the traces beside it.
pub(super) fn beside(sink: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
    #[cfg(feature = "otlp")]
    if let Some(traces) = sink::of_process() {
        return Arc::new(sink::Beside { shown: sink, traces });
    }
    sink
}

impl App {
    /// A run of a thread begins: its events become spans until [`App::traced`].
    pub(super) fn trace(&self, thread: &Thread) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = sink::of_process() {
            traces.begin(thread);
        }
        let _ = (self, thread);
    }

    /// It has ended, or failed in an unforeseen way.
    pub(super) async fn traced(&self, thread: &Thread, end: Result<&RunEnd, &Failure>) {
        #[cfg(feature = "otlp")]
        if let Some(traces) = sink::of_process() {
            let row = self.ledger().get(thread.id.as_str()).await.ok().flatten();
            traces.end(thread, end, row.and_then(|row| row.model_version));
        }
        let _ = (self, thread, end);
    }
}

/// Waits until the traces of this process have been sent, no longer than `within`; how many spans were lost.
pub async fn flush_traces(within: Duration) -> u64 {
    #[cfg(feature = "otlp")]
    if let Some(traces) = sink::of_process() {
        return traces.flush(within).await;
    }
    let _ = within;
    0
}
