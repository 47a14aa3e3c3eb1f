//! Errors of the API: `{"detail": …}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::graph::{Failure, StoreError};

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// What happened.
    pub detail: String,
    /// In how many seconds it may go better.
    pub after: Option<u64>,
}

/// What a handler gives.
pub(super) type Answer<T = Response> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), after: None }
    }

    /// The same, for now.
    pub fn after(self, seconds: u64) -> Self {
        Self { after: Some(seconds), ..self }
    }

    /// The request makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// It does not fit what is there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// It is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        error.failure().into()
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let status = status(&failure);
        if status.is_server_error() {
            tracing::error!(code = failure.code, "{failure}");
        }
        let why = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Self::new(status, format!("{}{why}{hint} [{}]", failure.message, failure.code))
    }
}

fn status(failure: &Failure) -> StatusCode {
    match failure.code.as_str() {
        "no_thread" | "no_checkpoint" | "model_unknown" | "release_unknown" | "link_unknown" => StatusCode::NOT_FOUND,
        "link_over" => StatusCode::GONE,
        "unknown_node" => StatusCode::BAD_REQUEST,
        "bad_input"
        | "unknown_input"
        | "bad_answer"
        | "untracked_input"
        | "channel_type"
        | "undeclared_channel"
        | "request_invalid"
        | "request_value"
        | "request_incomplete"
        | "path_not_found"
        | "decision_unexplained"
        | "checkpoint_ambiguous"
        | "bad_updates"
        | "requirements_missing"
        | "env_file_missing"
        | "release_file_invalid"
        | "link_invalid"
        | "webhook_refused"
        | "environment_unknown" => StatusCode::UNPROCESSABLE_ENTITY,
        "own_request" | "not_an_approver" | "link_powerless" => StatusCode::FORBIDDEN,
        "frozen" => StatusCode::LOCKED,
        "lease_held"
        | "lease_lost"
        | "already_decided"
        | "link_used"
        | "withdrawn"
        | "expired"
        | "changed"
        | "no_interrupt"
        | "question_ambiguous"
        | "thread_over"
        | "thread_exists"
        | "thread_imported"
        | "thread_unwinding"
        | "release_thread"
        | "release_over"
        | "release_unfinished"
        | "release_in_progress"
        | "decision_outdated"
        | "graph_changed"
        | "workflow_changed"
        | "not_stuck"
        | "inbox_full"
        | "host_is_down"
        | "approval_incomplete"
        | "is_an_approval"
        | "not_an_approval" => StatusCode::CONFLICT,
        "store_cannot_write" | "disk_full" => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"detail": self.detail}).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        headers.extend(self.after.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
