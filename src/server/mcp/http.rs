//! MCP over streamable HTTP: `/mcp` of the server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use rmcp::model::ProtocolVersion;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::Server;
use super::super::authorise::Caller;
use super::super::error::{Answer, ApiError};
use super::{Mcp, Reached};
use crate::app::App;
use crate::graph::Stop;

/// Most sessions at once; clients of 2026-07-28 and later have none. Each is a task with two small queues.
const MOST_SESSIONS: usize = 1_000;
/// Most of one caller.
const MOST_OF_ONE: usize = 250;
/// A session whose client is silent for so long is over; the client begins another one.
const IDLE: Duration = Duration::from_secs(30 * 60);
const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";

/// The transport, in the server.
pub(in super::super) struct Http {
    service: StreamableHttpService<Mcp, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    /// Whose session it is: another caller's requests do not count in it.
    owners: Mutex<HashMap<String, String>>,
}

impl Http {
    /// Over the server's app; its streams end with the server.
    pub fn new(app: Arc<App>, mut stop: watch::Receiver<Stop>) -> Self {
        let ends = CancellationToken::new();
        let mut kept = SessionConfig::default();
        kept.keep_alive = Some(IDLE);
        let mut sessions = LocalSessionManager::default();
        sessions.session_config = kept;
        let sessions = Arc::new(sessions);
        // The server's own guard has looked at host and origin.
        let config =
            StreamableHttpServerConfig::default().disable_allowed_hosts().with_cancellation_token(ends.clone());
        tokio::spawn(async move {
            if stop.wait_for(|stop| *stop != Stop::No).await.is_ok() {
                ends.cancel();
            }
        });
        let mcp = Mcp::new(app, Reached::Http);
        let service = StreamableHttpService::new(move || Ok(mcp.clone()), sessions.clone(), config);
        Self { service, sessions, owners: Mutex::default() }
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may go on, by its session.
    async fn admit(&self, method: &Method, headers: &HeaderMap, caller: &Caller) -> Answer<()> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(session) = text(SESSION) {
            let owner = self.owners().get(session).cloned();
            return match owner {
                Some(owner) if owner != caller.name() => Err(ApiError::not_found("there is no such session")),
                // Nobody's: it is over, or never was, which the transport tells in its own words.
                Some(_) | None => Ok(()),
            };
        }
        let has_sessions = text(VERSION).is_none_or(|version| version < ProtocolVersion::V_2026_07_28.as_str());
        if method != Method::POST || !has_sessions {
            return Ok(());
        }
        let alive = self.sessions.sessions.read().await;
        let own = |(id, owner): &(&String, &String)| *owner == caller.name() && alive.contains_key(id.as_str());
        if self.owners().iter().filter(own).count() >= MOST_OF_ONE {
            let detail = format!("you have {MOST_OF_ONE} sessions already: end one, or try again later");
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        if alive.len() >= MOST_SESSIONS {
            let detail = format!("there are {MOST_SESSIONS} sessions already; try again later");
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        Ok(())
    }

    /// Notes whose session has begun.
    async fn note(&self, answered: &HeaderMap, caller: &Caller) {
        let Some(session) = answered.get(SESSION).and_then(|value| value.to_str().ok()) else { return };
        let alive = self.sessions.sessions.read().await;
        let mut owners = self.owners();
        owners.retain(|id, _| alive.contains_key(id.as_str()));
        owners.entry(session.to_owned()).or_insert_with(|| caller.name().to_owned());
    }
}

/// Every request to `/mcp`.
pub(in super::super) async fn answer(
    State(server): State<Arc<Server>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    server.mcp.admit(&parts.method, &parts.headers, &caller).await?;
    let (answered, body) = server.mcp.service.handle(Request::from_parts(parts, body)).await.into_parts();
    server.mcp.note(&answered.headers, &caller).await;
    Ok(Response::from_parts(answered, Body::new(body)))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rmcp::transport::streamable_http_server::session::SessionManager;

    use super::*;
    use crate::app::Home;

    async fn http(dir: &std::path::Path) -> Http {
        let app = App::open(Home::open(Some(dir)).unwrap(), "test", None).await.unwrap();
        Http::new(Arc::new(app), watch::channel(Stop::No).1)
    }

    fn caller(name: &str) -> Caller {
        Caller::of(crate::release::Person::local(name))
    }

    #[tokio::test]
    async fn a_session_is_its_callers_own() {
        let dir = tempfile::tempdir().unwrap();
        let http = http(dir.path()).await;
        let (id, _transport) = http.sessions.create_session().await.unwrap();
        let headers = HeaderMap::from_iter([(SESSION.parse().unwrap(), HeaderValue::from_str(&id).unwrap())]);
        http.note(&headers, &caller("ada")).await;
        // Whoever comes second does not take it over.
        http.note(&headers, &caller("bob")).await;
        assert!(http.admit(&Method::POST, &headers, &caller("ada")).await.is_ok());
        let refused = http.admit(&Method::GET, &headers, &caller("bob")).await;
        assert_eq!(refused.map_err(|e| e.status), Err(StatusCode::NOT_FOUND));
        http.sessions.close_session(&id).await.unwrap();
        http.note(
            &HeaderMap::from_iter([(SESSION.parse().unwrap(), HeaderValue::from_static("next"))]),
            &caller("ada"),
        )
        .await;
        assert_eq!(http.owners().keys().collect::<Vec<_>>(), ["next"], "those that are over are forgotten");
    }

    #[tokio::test]
    async fn one_caller_does_not_take_all_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let http = http(dir.path()).await;
        let mut held = Vec::new();
        for _ in 0..MOST_OF_ONE {
            assert!(http.admit(&Method::POST, &HeaderMap::new(), &caller("ada")).await.is_ok());
            let (id, transport) = http.sessions.create_session().await.unwrap();
            let headers = HeaderMap::from_iter([(SESSION.parse().unwrap(), HeaderValue::from_str(&id).unwrap())]);
            http.note(&headers, &caller("ada")).await;
            held.push((id, transport));
        }
        let refused = http.admit(&Method::POST, &HeaderMap::new(), &caller("ada")).await;
        assert_eq!(refused.map_err(|e| e.status), Err(StatusCode::TOO_MANY_REQUESTS));
        assert!(http.admit(&Method::POST, &HeaderMap::new(), &caller("bob")).await.is_ok());
        http.sessions.close_session(&held[0].0).await.unwrap();
        assert!(http.admit(&Method::POST, &HeaderMap::new(), &caller("ada")).await.is_ok(), "one of theirs has ended");
    }

    #[tokio::test]
    async fn sessions_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let http = http(dir.path()).await;
        let mut held = Vec::new();
        for _ in 0..MOST_SESSIONS {
            assert!(http.admit(&Method::POST, &HeaderMap::new(), &caller("ada")).await.is_ok());
            held.push(http.sessions.create_session().await.unwrap());
        }
        let refused = http.admit(&Method::POST, &HeaderMap::new(), &caller("ada")).await;
        assert_eq!(refused.map_err(|e| e.status), Err(StatusCode::SERVICE_UNAVAILABLE));
        let without = HeaderMap::from_iter([(VERSION.parse().unwrap(), HeaderValue::from_static("2026-07-28"))]);
        assert!(http.admit(&Method::POST, &without, &caller("ada")).await.is_ok(), "that one has no session");
    }
}
