//! Threads.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::Utc;
use serde_json::{Value, json};

use super::authorise::Caller;
use super::body::{Fields, object};
use super::error::{Answer, ApiError};
use super::shapes::Progress;
use super::stops::Cancel;
use super::{Server, ids, shapes, state};
use crate::app::{ServedStatus, ServedThread, SortKey, ThreadSearch};
use crate::graph::ThreadId;

/// Most threads in one answer.
const MOST: u64 = 1_000;

/// The thread of that id.
pub(super) async fn known(server: &Server, id: &ThreadId) -> Answer<ServedThread> {
    let found = server.app.database().api_thread(id).await?;
    found.ok_or_else(|| ApiError::not_found(format!("Thread with ID {id} not found")))
}

/// A thread with what the engine has of it.
async fn shown(server: &Server, of: &ServedThread) -> Answer<Value> {
    let store = server.app.store();
    let Some(thread) = store.thread(&of.id).await? else { return Ok(shapes::thread(of, None)) };
    let latest = store.latest(&of.id, "").await?;
    let asked = store.interrupts(Some(&of.id), true).await?;
    Ok(shapes::thread(of, Some(&Progress { thread, latest, asked })))
}

pub(super) async fn create(State(server): State<Arc<Server>>, body: Body) -> Answer {
    let fields = object(body).await?;
    let id = fields.text("thread_id")?.map_or_else(|| Ok(ThreadId::new()), ids::thread)?;
    let exists = fields.word("if_exists", &["raise", "do_nothing"])?;
    for unknown in ["ttl", "supersteps"] {
        if fields.get(unknown).is_some() {
            return Err(ApiError::invalid(format!("`{unknown}` is not offered")));
        }
    }
    let (thread, new) = server.app.database().add_api_thread(&id, fields.map("metadata")?, Utc::now()).await?;
    if !new && exists != Some("do_nothing") {
        return Err(ApiError::conflict(format!("Thread with ID {id} already exists")));
    }
    Ok(state::ok(&shown(&server, &thread).await?))
}

pub(super) async fn get(State(server): State<Arc<Server>>, Path(thread): Path<String>) -> Answer {
    let thread = known(&server, &ids::thread(&thread)?).await?;
    Ok(state::ok(&shown(&server, &thread).await?))
}

pub(super) async fn patch(State(server): State<Arc<Server>>, Path(thread): Path<String>, body: Body) -> Answer {
    let id = ids::thread(&thread)?;
    known(&server, &id).await?;
    let metadata = object(body).await?.map("metadata")?;
    let changed = server.app.database().patch_api_thread(&id, metadata, Utc::now()).await?;
    let changed = changed.ok_or_else(|| ApiError::not_found(format!("Thread with ID {id} not found")))?;
    Ok(state::ok(&shown(&server, &changed).await?))
}

/// Removes a thread; its runs are stopped first. A release stays, also one that has ended: it is the record of what serves.
pub(super) async fn delete(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    Path(thread): Path<String>,
) -> Answer {
    let id = ids::thread(&thread)?;
    known(&server, &id).await?;
    let turn = server.executor.turn(&id);
    let _turn = turn.lock().await;
    let is_release = || ApiError::conflict(format!("Thread {id} is a release, whose record stays"));
    if server.app.is_release(&id).await? {
        return Err(is_release());
    }
    let mut open = server.app.database().open_runs(&id).await?;
    open.reverse();
    for run in &open {
        if server.executor.cancel(run, Cancel::Interrupt, caller.name()).await? {
            server.executor.over(run).await?;
        }
    }
    // A release may have begun until it was stopped.
    if !server.executor.remove(&id).await? {
        return Err(is_release());
    }
    server.bell.ring(&id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn wanted(fields: &Fields) -> Answer<ThreadSearch> {
    if fields.get("values").is_some() {
        return Err(ApiError::invalid("searching by `values` is not offered: search by `metadata`"));
    }
    let status = fields.word("status", &["idle", "busy", "interrupted", "error"])?;
    let sort = fields.word("sort_by", &["thread_id", "status", "created_at", "updated_at", "state_updated_at"])?;
    Ok(ThreadSearch {
        status: status.and_then(ServedStatus::parse),
        metadata: fields.map("metadata")?,
        ids: fields.texts("ids")?,
        limit: usize::try_from(fields.number("limit", 1, MOST)?.unwrap_or(10)).unwrap_or(10),
        offset: usize::try_from(fields.number("offset", 0, u64::from(u32::MAX))?.unwrap_or(0)).unwrap_or(0),
        sort: match sort {
            Some("thread_id") => SortKey::Id,
            Some("status") => SortKey::Status,
            Some("updated_at") => SortKey::UpdatedAt,
            Some("state_updated_at") => SortKey::StateUpdatedAt,
            _ => SortKey::CreatedAt,
        },
        ascending: fields.word("sort_order", &["asc", "desc"])? == Some("asc"),
    })
}

pub(super) async fn search(State(server): State<Arc<Server>>, body: Body) -> Answer {
    let fields = object(body).await?;
    let (found, total) = server.app.database().api_threads(&wanted(&fields)?).await?;
    let select = fields.texts("select")?;
    let mut shapes = Vec::with_capacity(found.len());
    for thread in &found {
        // One that cannot be read does not hide the others.
        let mut shape = shown(&server, thread).await.unwrap_or_else(|error| {
            tracing::error!(thread = %thread.id, "a thread is shown without its state: {}", error.detail);
            shapes::thread(thread, None)
        });
        if let (Some(select), Value::Object(keys)) = (&select, &mut shape) {
            keys.retain(|key, _| key == "thread_id" || select.contains(key));
        }
        shapes.push(shape);
    }
    Ok(([("x-pagination-total", total.to_string())], state::ok(&json!(shapes))).into_response())
}

pub(super) async fn count(State(server): State<Arc<Server>>, body: Body) -> Answer {
    let search = ThreadSearch { limit: 0, ..wanted(&object(body).await?)? };
    let (_, total) = server.app.database().api_threads(&search).await?;
    Ok(state::ok(&json!(total)))
}
