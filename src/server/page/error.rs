//! What is told where there is no page to show: what happened, why, what to do next.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::assets::{Assets, assets};
use super::html;
use crate::graph::{Failure, StoreError};
use crate::server::error::ApiError;

/// A refusal, for people.
#[derive(Debug)]
pub(in crate::server) struct PageError {
    /// The status.
    pub status: StatusCode,
    /// What happened.
    pub(super) told: Told,
}

/// A failure's three lines and its code.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// What happened.
    pub message: String,
    /// Why.
    pub cause: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Its code; empty: it has none.
    pub code: String,
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    assets: &'static Assets,
    status: StatusCode,
    told: &'a Told,
}

impl PageError {
    /// A refusal that no failure of the engine stands behind.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, told: Told { message: message.into(), ..Told::default() } }
    }

    /// It is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// With what to do next.
    pub fn hint(mut self, hint: &str) -> Self {
        self.told.hint = Some(hint.to_owned());
        self
    }

    /// Whether it is a failure with this code.
    pub fn is(&self, code: &str) -> bool {
        self.told.code == code
    }
}

impl From<&Failure> for Told {
    fn from(failure: &Failure) -> Self {
        Self {
            message: failure.message.clone(),
            cause: failure.cause.clone(),
            hint: failure.hint.clone(),
            code: failure.code.clone(),
        }
    }
}

impl From<Failure> for PageError {
    fn from(failure: Failure) -> Self {
        let told = Told::from(&failure);
        Self { status: ApiError::from(failure).status, told }
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        error.failure().into()
    }
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        Self::new(error.status, error.detail)
    }
}

impl From<askama::Error> for PageError {
    fn from(error: askama::Error) -> Self {
        tracing::error!(%error, "a page could not be rendered");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "this page could not be rendered")
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let page = ErrorPage { assets: assets(), status: self.status, told: &self.told };
        let text = page.render().unwrap_or_else(|_| "the page could not be rendered".to_owned());
        html(self.status, text)
    }
}
