//! A thread's whole record, as `tidegate run export` prints it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use tokio::sync::Semaphore;

use super::Server;
use super::error::{Answer, ApiError};
use super::ids;
use crate::graph::ThreadId;

/// A record is held in memory while it is told, and may be large: one at a time, the others wait.
static TURN: Semaphore = Semaphore::const_new(1);

/// Threads that were begun in the terminal may have names instead of UUIDs, and need not be known to the API.
pub(super) async fn get(State(server): State<Arc<Server>>, Path(thread): Path<String>) -> Answer {
    let id = ids::thread(&thread).unwrap_or_else(|_| ThreadId::from(thread.as_str()));
    let _turn = TURN.acquire().await.map_err(|_| ApiError::not_found("the server ends"))?;
    let export = server.app.export(&id).await?;
    // Writing it takes its time too, which other requests must not wait for.
    let written = tokio::task::spawn_blocking(move || crate::app::export_text(&export)).await;
    let text = written.map_err(|_| ApiError::conflict("the server ends"))??;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
