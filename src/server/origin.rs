//! Browsers: pages of this machine may ask, others may not. A page from elsewhere could otherwise speak to a server on loopback through the
//! browser of whoever reads it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Server;
use super::error::ApiError;
use crate::app::LINK_PATH;

/// Refuses what another machine's page sends, and answers a browser's questions for those of this one.
///
/// Where keys are required a browser brings none by itself, so a server that others reach has whatever name it is reached by.
pub(super) async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let keyed = match server.identities.are_required().await {
        Ok(keyed) => keyed,
        Err(error) => return error.into_response(),
    };
    if let Some(host) = text(headers, header::HOST)
        && !keyed
        && !is_local(host)
    {
        // A name that somebody lets point to loopback.
        return ApiError::new(StatusCode::FORBIDDEN, format!("`{host}` is no name of this machine")).into_response();
    }
    // The form of a link comes from a page that says no origin; who has its address may send it from anywhere.
    if request.uri().path().starts_with(LINK_PATH) {
        return next.run(request).await;
    }
    let Some(origin) = headers.get(header::ORIGIN).cloned() else { return next.run(request).await };
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let own = keyed && host.is_some() && host == text(headers, header::HOST);
    let named = origin.to_str().is_ok_and(|origin| server.origins.iter().any(|known| known == origin));
    if !own && !named && !host.is_some_and(is_local) {
        return ApiError::new(StatusCode::FORBIDDEN, "pages of other machines may not ask this server").into_response();
    }
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let asks = request.method() == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks { "OK".into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if asks {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("DELETE, GET, OPTIONS, PATCH, POST"),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        headers.extend(wanted.map(|wanted| (header::ACCESS_CONTROL_ALLOW_HEADERS, wanted)));
    } else {
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-pagination-total, content-location, mcp-session-id"),
        );
    }
    response
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a host, with or without a port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        for host in ["localhost", "localhost:3000", "127.0.0.1:7310", "127.9.9.9", "[::1]:80"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org:80", "10.0.0.1", "127.0.0.1.example.org", ""] {
            assert!(!is_local(host), "{host}");
        }
    }
}
