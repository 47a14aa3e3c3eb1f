//! Answers that wait for a run's end: they begin at once, so that a proxy or a client sees that the server lives.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};

use super::Server;
use super::error::Answer;
use super::project::with_interrupts;
use super::state::values_after;
use super::stops::Cancel;
use super::stream::located;
use crate::app::{RunStatus, ServedRun};
use crate::graph::{Interrupt, Stop};

/// So often a quiet answer says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What is told of a run's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The values that it left.
    Values,
    /// Nothing but that it is over.
    Nothing,
}

struct Waiter {
    server: Arc<Server>,
    run: ServedRun,
    of: Of,
    ends_with_client: bool,
    done: bool,
    /// Keeps a thread that was made for the run from being cleared before its values were read.
    _bell: tokio::sync::watch::Receiver<u64>,
}

/// Waits for a run's end.
pub(super) fn wait(server: &Arc<Server>, run: ServedRun, of: Of, ends_with_client: bool, location: &str) -> Response {
    let bell = server.bell.listen(&run.thread);
    let waiter = Waiter { server: server.clone(), run, of, ends_with_client, done: false, _bell: bell };
    let body = stream::unfold(waiter, |mut waiter| async move {
        let chunk = waiter.next().await?;
        Some((chunk, waiter))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    located(&mut response, location, "join");
    response
}

impl Waiter {
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.done {
            return None;
        }
        let mut stop = self.server.stop.clone();
        let over = tokio::select! {
            over = self.server.executor.over(&self.run) => over,
            () = tokio::time::sleep(HEARTBEAT) => return Some(Ok(Bytes::from_static(b"\n"))),
            _ = stop.wait_for(|stop| *stop != Stop::No) => {
                self.done = true;
                // The run goes on with the next server: an answer that ends well would say that it has ended.
                return Some(Err(std::io::Error::other("the server ends")));
            }
        };
        self.done = true;
        let told = match over {
            Ok(run) => end(&self.server, run, self.of).await,
            Err(failure) => Err(failure.into()),
        };
        let told = told.unwrap_or_else(|error| json!({"__error__": {"error": "ServerError", "message": error.detail}}));
        Some(Ok(Bytes::from(told.to_string())))
    }
}

/// What a run that is over has to say; `None`: it was taken back.
async fn end(server: &Server, run: Option<ServedRun>, of: Of) -> Answer<Value> {
    let Some(run) = run.filter(|_| of == Of::Values) else { return Ok(json!({})) };
    if run.status == RunStatus::Error {
        return Ok(json!({"__error__": run.outcome["error"]}));
    }
    let values = values_after(server, &run).await?;
    let asked: Vec<Interrupt> = serde_json::from_value(run.outcome["interrupts"].clone()).unwrap_or_default();
    let told: Vec<Value> = asked.iter().map(super::resume::told).collect();
    Ok(with_interrupts(values, &told))
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.done || !self.ends_with_client {
            return;
        }
        let (server, run) = (self.server.clone(), self.run.clone());
        tokio::spawn(async move {
            if let Err(failure) = server.executor.cancel(&run, Cancel::Interrupt, &run.body.by).await {
                tracing::warn!(run = run.id, code = failure.code, "{failure}");
            }
        });
    }
}
