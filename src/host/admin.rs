//! The admin API: who may speak to it, and which call does what.

use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::{UnixListener, UnixStream};

use super::api::{
    AfterQuery, DownQuery, DrainRequest, Drained, ErrorBody, HostStatus, KnownSecrets, LogQuery, RemoveQuery,
    SecretsRequest,
};
use super::control::Host;
use super::slot::log;
use super::{HostError, routes};
use crate::ports::{
    MirrorPage, RenewRequest, Route, RouteRequest, SeriesPage, Slot, SlotRequest, StandbyRequest, SwitchRequest,
    VersionTraffic,
};

type Answer<T> = Result<Json<T>, HostError>;
type Shared = State<Arc<Host>>;

impl IntoResponse for HostError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { error: self.to_port() })).into_response()
    }
}

/// Accepts only processes of our own user (and root, who may do everything anyway).
struct OwnUser(UnixListener);

impl axum::serve::Listener for OwnUser {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (UnixStream, ()) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) if is_own_user(&stream) => return (stream, ()),
                Ok(_) => tracing::warn!("another user's process was turned away from the admin socket"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin socket");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn is_own_user(stream: &UnixStream) -> bool {
    let peer = getsockopt(stream, PeerCredentials).map(|credentials| credentials.uid());
    peer.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

/// Serves the admin API until the host quits.
pub(crate) async fn serve(host: Arc<Host>, listener: StdUnixListener) -> Result<(), HostError> {
    let doing = "serving the admin socket";
    let listener = OwnUser(UnixListener::from_std(listener).map_err(HostError::io(doing))?);
    let quit = host.quit.clone();
    let server = axum::serve(listener, router(host)).with_graceful_shutdown(quit.cancelled_owned());
    server.await.map_err(HostError::io(doing))
}

fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/logs", get(logs))
        .route("/v1/metrics", get(metrics))
        .route("/v1/slots", get(slots).post(start_slot))
        .route("/v1/slots/{token}", get(slot).delete(remove_slot))
        .route("/v1/slots/{token}/log", get(slot_log))
        .route("/v1/secrets", post(secrets))
        .route("/v1/routes", get(all_routes))
        .route("/v1/routes/{model}", get(route))
        .route("/v1/route", post(put_route))
        .route("/v1/renew", post(renew))
        .route("/v1/standby", post(keep_standby))
        .route("/v1/endpoint/{model}", get(endpoint))
        .route("/v1/switch", post(switch))
        .route("/v1/drain", post(drain))
        .route("/v1/traffic/{model}", get(traffic))
        .route("/v1/series/{model}", get(series))
        .route("/v1/mirror/{model}", get(mirrored))
        .route("/v1/down", post(down))
        .route("/v1/up", post(up))
        .route("/v1/shutdown", post(shutdown))
        .with_state(host)
}

/// Runs a change to its end, also when the client hangs up in the middle: it asked for the change, not for half of it.
async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T, HostError>> + Send + 'static,
) -> Result<T, HostError> {
    tokio::spawn(change).await.map_err(|e| HostError::io("carrying out a request")(std::io::Error::other(e)))?
}

async fn status(State(host): Shared) -> Json<HostStatus> {
    Json(host.status())
}

async fn logs(State(host): Shared, Query(query): Query<LogQuery>) -> Answer<Vec<String>> {
    let path = host.core.paths.log();
    let read = tokio::task::spawn_blocking(move || log::tail(&path, query.lines)).await;
    read.map_err(std::io::Error::other).flatten().map(Json).map_err(HostError::io("reading the host's log"))
}

async fn metrics(State(host): Shared) -> Json<String> {
    Json(host.core.board.metrics.text())
}

async fn slots(State(host): Shared) -> Json<Vec<Slot>> {
    Json(host.supervisor.slots())
}

async fn start_slot(State(host): Shared, Json(request): Json<SlotRequest>) -> Answer<Slot> {
    whole(async move { host.supervisor.start(request).await }).await.map(Json)
}

async fn slot(State(host): Shared, Path(token): Path<String>) -> Json<Option<Slot>> {
    Json(host.supervisor.slot(&token))
}

async fn remove_slot(State(host): Shared, Path(token): Path<String>, Query(query): Query<RemoveQuery>) -> Answer<()> {
    whole(async move { host.supervisor.remove(&token, query.grace_ms).await }).await.map(Json)
}

async fn slot_log(
    State(host): Shared,
    Path(token): Path<String>,
    Query(query): Query<LogQuery>,
) -> Answer<Vec<String>> {
    host.supervisor.log(&token, query.lines).await.map(Json)
}

async fn secrets(State(host): Shared, Json(request): Json<SecretsRequest>) -> Json<KnownSecrets> {
    let state = host.core.state();
    let requests = state.slots.values().map(|slot| &slot.request);
    Json(KnownSecrets { vars: host.core.secrets.of_file(&request.env_file, requests).into_vars() })
}

async fn keep_standby(State(host): Shared, Json(request): Json<StandbyRequest>) -> Answer<()> {
    let now = chrono::Utc::now();
    host.core.update(move |state| routes::keep_standby(state, &request, now)).await.map(Json)
}

async fn all_routes(State(host): Shared) -> Json<Vec<Route>> {
    Json(host.routes())
}

async fn route(State(host): Shared, Path(model): Path<String>) -> Json<Option<Route>> {
    Json(routes::shown(&host.core.state(), &model))
}

async fn endpoint(State(host): Shared, Path(model): Path<String>) -> Answer<String> {
    routes::check_model(&model)?;
    routes::endpoint_url(&host.core.state(), &model).map(Json).ok_or(HostError::Down)
}

async fn switch(State(host): Shared, Json(request): Json<SwitchRequest>) -> Answer<Route> {
    let model = request.model.clone();
    let change = host.core.update(move |state| {
        routes::switch(state, &request)?;
        routes::shown(state, &model).ok_or(HostError::Down)
    });
    let route = change.await?;
    tracing::info!(model = route.model, live = route.live, generation = route.generation, "switched");
    Ok(Json(route))
}

async fn put_route(State(host): Shared, Json(request): Json<RouteRequest>) -> Answer<Route> {
    let (core, model) = (Arc::clone(&host.core), request.model.clone());
    let change = host.core.update(move |state| {
        routes::put(state, &request)?;
        let route = routes::shown(state, &model).ok_or(HostError::Down)?;
        // Whoever repeats a request lives, too.
        if let Some(within_ms) = route.traffic.renew_within_ms {
            core.leases.renew(&model, route.generation, Duration::from_millis(within_ms));
        }
        Ok(route)
    });
    let route = change.await?;
    let shares: Vec<_> = route.traffic.legs.iter().map(|leg| (&leg.version, leg.weight)).collect();
    tracing::info!(model = route.model, ?shares, generation = route.generation, "divided");
    Ok(Json(route))
}

async fn renew(State(host): Shared, Json(request): Json<RenewRequest>) -> Answer<Route> {
    let (core, model) = (Arc::clone(&host.core), request.model.clone());
    let change = host.core.update(move |state| {
        let within_ms = routes::renew(state, &request)?;
        core.leases.renew(&model, request.generation, Duration::from_millis(within_ms));
        routes::shown(state, &model).ok_or(HostError::Down)
    });
    change.await.map(Json)
}

async fn drain(State(host): Shared, Json(request): Json<DrainRequest>) -> Answer<Drained> {
    let in_flight = host.drain(&request.token, Duration::from_millis(request.timeout_ms)).await?;
    Ok(Json(Drained { in_flight }))
}

async fn traffic(State(host): Shared, Path(model): Path<String>) -> Json<Vec<VersionTraffic>> {
    Json(host.core.board.of_model(&model).iter().map(|upstream| upstream.meter.traffic()).collect())
}

async fn series(State(host): Shared, Path(model): Path<String>, Query(query): Query<AfterQuery>) -> Json<SeriesPage> {
    Json(host.core.board.series(&model, query.after))
}

async fn mirrored(State(host): Shared, Path(model): Path<String>, Query(query): Query<AfterQuery>) -> Json<MirrorPage> {
    Json(host.core.board.mirrors.pairs.page(&model, query.after))
}

async fn down(State(host): Shared, Query(query): Query<DownQuery>) -> Answer<HostStatus> {
    whole(async move { host.down(query.end).await }).await.map(Json)
}

async fn up(State(host): Shared) -> Answer<HostStatus> {
    whole(async move { host.up().await }).await.map(Json)
}

async fn shutdown(State(host): Shared) -> Json<()> {
    host.quit.cancel();
    Json(())
}
