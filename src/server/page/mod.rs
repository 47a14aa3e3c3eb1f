//! The web page: what people would rather look at than read. Rendered here, from the same functions as everything else that the server
//! offers; its script only fetches a page again when something has changed, so everything can be read, and decided, without it.

pub(super) mod approval;
pub(super) mod approvals;
pub(super) mod assets;
mod chart;
pub(super) mod docs;
mod error;
mod evidence;
mod form;
mod frame;
pub(super) mod link;
pub(super) mod live;
pub(super) mod login;
pub(super) mod model;
pub(super) mod models;
pub(super) mod rollback;
pub(super) mod run;
pub(super) mod runs;
mod seen;
mod session;
mod steps;
mod verdicts;
mod words;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::Value;

use crate::app::LINK_PATH;
use error::PageError;
pub(super) use seen::Seen;
pub(super) use session::Session;

/// What may be loaded: what this server itself serves. Nothing in the page is inline.
const CONTENT: &str =
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'";
/// Most of an answer that is read to be told as a page.
const MOST_READ: usize = 64 * 1024;

/// Where the pages begin.
pub(super) async fn home() -> Redirect {
    Redirect::to("/ui/")
}

/// What every page of the server has around it; what was refused before a page's own handler is told as a page, too.
pub(super) async fn dress(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_link = path.starts_with(LINK_PATH);
    if !["/", "/ui", "/docs"].contains(&path) && !path.starts_with("/ui/") && !is_link {
        return next.run(request).await;
    }
    let reads = request.method() == Method::GET;
    let asked = request.uri().path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let mut response = next.run(request).await;
    if reads && !is_link && response.status() == StatusCode::UNAUTHORIZED && !is_html(&response) {
        let to: String = form_urlencoded::byte_serialize(asked.as_bytes()).collect();
        response = Redirect::to(&format!("/ui/login?to={to}")).into_response();
    }
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if refused && !is_html(&response) {
        response = told(response).await;
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Nothing goes elsewhere; `no-referrer` would take the origin from the page's own forms. A link's address is a secret, which no
        // request for a style sheet may carry; its form is known by that address.
        (header::REFERRER_POLICY, if is_link { "no-referrer" } else { "same-origin" }),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

async fn told(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MOST_READ).await.unwrap_or_default();
    let detail = match serde_json::from_slice::<Value>(&text) {
        Ok(value) => value["detail"].as_str().unwrap_or_default().to_owned(),
        Err(_) => String::from_utf8_lossy(&text).into_owned(),
    };
    let mut page = PageError::new(parts.status, detail).into_response();
    for (name, value) in &parts.headers {
        // What says how the body was is about the body that is gone.
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
            page.headers_mut().append(name.clone(), value.clone());
        }
    }
    page
}

/// A page.
fn html(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], Body::from(text)).into_response()
}

/// What a page's handler gives.
type Shown = Result<Response, PageError>;
