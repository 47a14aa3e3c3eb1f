//! All routes, each with what its caller must be allowed to do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};
use axum::{Extension, Json, RequestPartsExt, Router};
use serde_json::json;

use super::authorise::{Action, Caller, Subject, authorise};
use super::error::{Answer, ApiError};
use super::{Server, assistants, origin, runs, state, threads};

/// Longest time until an answer begins; what waits for a run begins to answer at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The server's routes.
pub(super) fn router(server: Arc<Server>) -> Router {
    let may = |action: Action, route: MethodRouter<Arc<Server>>| {
        route.layer(from_fn(move |request, next| allowed(action, request, next)))
    };
    let thread =
        may(Action::Look, get(threads::get)).merge(may(Action::Keep, patch(threads::patch).delete(threads::delete)));
    let assistant = may(Action::Look, get(assistants::get))
        .merge(may(Action::Keep, patch(assistants::patch).delete(assistants::delete)));
    let thread_state = may(Action::Look, get(state::get)).merge(may(Action::Decide, post(state::update)));
    let thread_runs = may(Action::Look, get(runs::list)).merge(may(Action::Run, post(runs::create)));
    let one_run = may(Action::Look, get(runs::get)).merge(may(Action::Run, axum::routing::delete(runs::delete)));
    Router::new()
        .route("/ok", may(Action::Greet, get(ok)))
        .route("/info", may(Action::Greet, get(info)))
        .route("/assistants", may(Action::Keep, post(assistants::create)))
        .route("/assistants/search", may(Action::Look, post(assistants::search)))
        .route("/assistants/count", may(Action::Look, post(assistants::count)))
        .route("/assistants/{assistant}", assistant)
        .route("/assistants/{assistant}/graph", may(Action::Look, get(assistants::graph)))
        .route("/assistants/{assistant}/schemas", may(Action::Look, get(assistants::schemas)))
        .route("/assistants/{assistant}/subgraphs", may(Action::Look, get(assistants::subgraphs)))
        .route("/assistants/{assistant}/subgraphs/{namespace}", may(Action::Look, get(assistants::subgraph)))
        .route("/assistants/{assistant}/versions", may(Action::Look, post(assistants::versions)))
        .route("/assistants/{assistant}/latest", may(Action::Keep, post(assistants::set_latest)))
        .route("/threads", may(Action::Keep, post(threads::create)))
        .route("/threads/search", may(Action::Look, post(threads::search)))
        .route("/threads/count", may(Action::Look, post(threads::count)))
        .route("/threads/{thread}", thread)
        .route("/threads/{thread}/state", thread_state)
        .route("/threads/{thread}/state/checkpoint", may(Action::Look, post(state::at_checkpoint)))
        .route("/threads/{thread}/state/{checkpoint}", may(Action::Look, get(state::at)))
        .route("/threads/{thread}/history", may(Action::Look, get(state::history_by_query).post(state::history)))
        .route("/threads/{thread}/runs", thread_runs)
        .route("/threads/{thread}/runs/stream", may(Action::Run, post(runs::stream)))
        .route("/threads/{thread}/runs/wait", may(Action::Run, post(runs::wait)))
        .route("/threads/{thread}/runs/{run}", one_run)
        .route("/threads/{thread}/runs/{run}/join", may(Action::Look, get(runs::join)))
        .route("/threads/{thread}/runs/{run}/stream", may(Action::Look, get(runs::rejoin)))
        .route("/threads/{thread}/runs/{run}/cancel", may(Action::Run, post(runs::cancel)))
        .route("/runs", may(Action::Run, post(runs::create_stateless)))
        .route("/runs/batch", may(Action::Run, post(runs::batch)))
        .route("/runs/stream", may(Action::Run, post(runs::stream_stateless)))
        .route("/runs/wait", may(Action::Run, post(runs::wait_stateless)))
        .fallback(|| async { ApiError::not_found("Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .layer(from_fn_with_state(server.clone(), identify))
        .layer(from_fn(in_time))
        .layer(from_fn(origin::guard))
        .with_state(server)
}

/// Says who asks.
async fn identify(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Caller::Local(server.executor.user().to_owned()));
    next.run(request).await
}

/// Asks whether the caller may do what the route is for.
async fn allowed(action: Action, request: Request, next: Next) -> Answer {
    let (mut parts, body) = request.into_parts();
    let subject = match parts.extract::<RawPathParams>().await {
        Ok(params) => subject(&params),
        Err(_) => Subject::Server,
    };
    let Some(caller) = parts.extensions.get::<Caller>() else {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "nobody is known to ask"));
    };
    authorise(caller, action, &subject)?;
    Ok(next.run(Request::from_parts(parts, body)).await)
}

fn subject(params: &RawPathParams) -> Subject {
    match params.iter().next() {
        Some(("thread", id)) => Subject::Thread(id.to_owned()),
        Some(("assistant", id)) => Subject::Assistant(id.to_owned()),
        _ => Subject::Server,
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "the server did not answer in time").into_response(),
    }
}

async fn ok(Extension(_): Extension<Caller>) -> Response {
    Json(json!({"ok": true})).into_response()
}

async fn info() -> Response {
    let flags = json!({"assistants": true, "crons": false, "langsmith": false});
    let host = json!({
        "kind": "self-hosted", "project_id": null, "host_revision_id": null, "revision_id": null, "tenant_id": null,
    });
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "flags": flags, "host": host})).into_response()
}
