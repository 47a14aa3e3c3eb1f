//! Logging in with a key, where keys are required: the browser is given a number that stands for it.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::assets::{Assets, assets};
use super::error::PageError;
use super::form::Form;
use super::frame::from_here;
use super::{Shown, html};
use crate::server::Server;
use crate::server::error::ApiError;
use crate::server::identity::Peer;

/// Longest path that one is sent on to, in bytes.
const LONGEST: usize = 500;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    assets: &'static Assets,
    to: String,
    refused: Option<String>,
}

/// Where to go afterwards.
#[derive(Deserialize)]
pub(in crate::server) struct Wanted {
    to: Option<String>,
}

/// The form.
pub(in crate::server) async fn show(State(server): State<Arc<Server>>, Query(wanted): Query<Wanted>) -> Shown {
    if !server.identities.are_required().await? {
        return Ok(Redirect::to("/ui/").into_response());
    }
    page(StatusCode::OK, &own(wanted.to.as_deref()), None)
}

fn page(status: StatusCode, to: &str, refused: Option<String>) -> Shown {
    let page = LoginPage { assets: assets(), to: to.to_owned(), refused };
    Ok(html(status, page.render()?))
}

/// Takes a key.
pub(in crate::server) async fn take(
    State(server): State<Arc<Server>>,
    peer: Option<axum::Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Shown {
    from_here(&headers)?;
    let form = Form::read(body).await?;
    let to = own(form.get("to"));
    let key = form.get("key").unwrap_or_default().to_owned();
    let known = server.identities.shows(&key, peer.map(|peer| peer.0)).await;
    match known {
        Ok(caller) => {
            let cookie = server.session.login(&key, caller.name(), &headers)?;
            Ok(with_cookie(Redirect::to(&to).into_response(), &cookie))
        }
        Err(ApiError { status, detail, .. }) => page(status, &to, Some(detail)),
    }
}

/// Forgets it.
pub(in crate::server) async fn leave(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    from_here(&headers)?;
    let cookie = server.session.logout(&headers);
    Ok(with_cookie(Redirect::to("/ui/login").into_response(), &cookie))
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    response.headers_mut().extend(HeaderValue::from_str(cookie).ok().map(|value| (header::SET_COOKIE, value)));
    response
}

/// Only a page of this server is gone on to.
pub(super) fn own(to: Option<&str>) -> String {
    let fits = |to: &&str| {
        to.starts_with("/ui/") && to.len() <= LONGEST && to.chars().all(|c| c.is_ascii_graphic() && c != '\\')
    };
    to.filter(fits).unwrap_or("/ui/").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(own(Some("/ui/approvals/a?b=c")), "/ui/approvals/a?b=c");
        for elsewhere in
            ["//evil.example.org", "https://evil.example.org", "/ui", "/ui/\nSet-Cookie: a", "/ui/\\evil", ""]
        {
            assert_eq!(own(Some(elsewhere)), "/ui/", "{elsewhere}");
        }
    }
}
