//! What is around every page, and who looks at it.

use std::sync::Arc;

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{DateTime, Utc};

use super::assets::{Assets, assets};
use super::error::PageError;
use super::session::Visit;
use super::words::When;
use super::{Shown, html};
use crate::app::OpenQuestion;
use crate::graph::ThreadId;
use crate::server::Server;
use crate::server::authorise::{Action, Caller, Subject, authorise};

/// Which entry of the menu a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Models,
    Runs,
    Approvals,
}

/// How a page stays true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Live {
    /// It is shown once.
    No,
    /// It is fetched again after so many milliseconds.
    Every(u32),
    /// It is fetched again when this stream says so.
    When(String),
}

/// What is around a page.
pub(super) struct Frame {
    pub title: String,
    pub place: Place,
    pub assets: &'static Assets,
    pub user: String,
    /// Whether they have logged in, and so can log out.
    pub logged_in: bool,
    /// Open questions that the caller may see.
    pub waiting: usize,
    pub version: &'static str,
    pub live: Live,
    /// How things stand, in one sentence: said aloud when it changes.
    pub says: String,
    /// When it was rendered.
    pub at: When,
}

impl Frame {
    /// Whether this is the current entry of the menu.
    pub fn is(&self, place: &str) -> bool {
        matches!(
            (self.place, place),
            (Place::Models, "models") | (Place::Runs, "runs") | (Place::Approvals, "approvals")
        )
    }

    /// The stream that says when the page has changed; empty: there is none.
    pub fn stream(&self) -> &str {
        if let Live::When(stream) = &self.live { stream } else { "" }
    }

    /// After how many milliseconds it is fetched again; 0: not.
    pub fn every(&self) -> u32 {
        if let Live::Every(ms) = self.live { ms } else { 0 }
    }
}

/// Who looks.
pub(in crate::server) struct Visitor {
    pub(super) server: Arc<Server>,
    pub(super) caller: Caller,
    pub(super) now: DateTime<Utc>,
    pub(super) path: String,
    visit: Visit,
}

impl FromRequestParts<Arc<Server>> for Visitor {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, PageError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| PageError::new(StatusCode::UNAUTHORIZED, "nobody is known to ask"))?;
        if parts.method != Method::GET && parts.method != Method::HEAD {
            from_here(&parts.headers)?;
        }
        let visit = server.session.visit(&parts.headers, &caller)?;
        let path = parts.uri.path().to_owned();
        Ok(Self { server: server.clone(), caller, now: Utc::now(), path, visit })
    }
}

/// Refuses a form that another page sent, also one of another server on this machine; the token would be missing anyway.
pub(super) fn from_here(headers: &HeaderMap) -> Result<(), PageError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let site = text("sec-fetch-site").is_none_or(|site| ["same-origin", "none"].contains(&site));
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let origin = text(header::ORIGIN.as_str());
    let same = origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, of)| of == host));
    if site && same {
        return Ok(());
    }
    Err(PageError::new(StatusCode::FORBIDDEN, "only this server's own pages may send its forms")
        .hint("nothing was done: open the page itself"))
}

impl Visitor {
    /// Whether the caller may do this.
    pub(super) fn may(&self, action: Action, subject: &Subject) -> bool {
        authorise(&self.caller, action, subject).is_ok()
    }

    /// Whether the caller may see a thread.
    pub(super) fn sees(&self, thread: &ThreadId) -> bool {
        self.may(Action::Look, &Subject::Thread(thread.to_string()))
    }

    /// The open questions that the caller may see, the oldest first.
    pub(super) async fn open_questions(&self) -> Result<Vec<OpenQuestion>, PageError> {
        let mut open = self.server.app.questions(None).await?;
        open.retain(|question| self.sees(&question.interrupt.thread));
        open.sort_by_key(|question| question.interrupt.asked_at);
        Ok(open)
    }

    /// What is around a page.
    pub(super) async fn frame(&self, place: Place, title: impl Into<String>, live: Live) -> Result<Frame, PageError> {
        Ok(self.frame_with(place, title, live, self.open_questions().await?.len()))
    }

    /// The same where the open questions were counted already.
    pub(super) fn frame_with(&self, place: Place, title: impl Into<String>, live: Live, waiting: usize) -> Frame {
        Frame {
            title: title.into(),
            place,
            assets: assets(),
            user: self.caller.name().to_owned(),
            logged_in: !self.caller.person().local,
            waiting,
            version: env!("CARGO_PKG_VERSION"),
            live,
            says: String::new(),
            at: When::at(self.now, self.now),
        }
    }

    /// What a form at `path` carries.
    pub(super) fn token(&self, path: &str) -> String {
        self.visit.token(path)
    }

    /// Refuses a form that was not shown to this caller, to be sent here.
    pub(super) fn check(&self, token: Option<&str>) -> Result<(), PageError> {
        self.visit.check(&self.path, token)
    }

    /// A page.
    pub(super) fn shown(&self, status: StatusCode, page: &impl Template) -> Shown {
        let mut response = html(status, page.render()?);
        self.visit.keep(&mut response);
        Ok(response)
    }

    /// On to another page, after a form.
    pub(super) fn sent_to(&self, path: &str) -> Response {
        Redirect::to(path).into_response()
    }
}
