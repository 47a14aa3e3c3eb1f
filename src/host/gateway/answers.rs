//! The gateway's own answers: errors as JSON, health, metrics.

use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Answer;

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::own(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `{error:{code,message,hint}}`.
pub(crate) fn error(status: StatusCode, code: &str, message: &str, hint: &str) -> Response<Answer> {
    let body = serde_json::json!({"error": {"code": code, "message": message, "hint": hint}});
    respond(status, "application/json", body.to_string())
}

pub(crate) fn tls_required() -> Response<Answer> {
    let hint = "use https; plain HTTP is answered to this machine only";
    error(StatusCode::FORBIDDEN, "tls_required", "this gateway speaks TLS with other machines", hint)
}

/// The connection is closed with it: where this request ends is what is in doubt.
pub(crate) fn both_lengths() -> Response<Answer> {
    let message = "the request has both Content-Length and Transfer-Encoding";
    error(StatusCode::BAD_REQUEST, "both_lengths", message, "send one of them")
}

pub(crate) fn no_model() -> Response<Answer> {
    let hint = "models are served under /MODEL/, the gateway's own health under /-/healthz";
    error(StatusCode::NOT_FOUND, "no_model_in_path", "the path names no model", hint)
}

pub(crate) fn unknown_model(model: &str) -> Response<Answer> {
    let message = format!("no version of model {model} is live here");
    error(StatusCode::NOT_FOUND, "unknown_model", &message, "release it with `tidegate deploy`")
}

/// Whether the route has no token, or another one, is nobody's business.
pub(crate) fn version_refused(model: &str) -> Response<Answer> {
    let message = format!("x-tidegate-version needs the token of model {model}'s route");
    let hint = "send it as x-tidegate-token, or leave x-tidegate-version out";
    error(StatusCode::FORBIDDEN, "version_refused", &message, hint)
}

pub(crate) fn unknown_version(model: &str) -> Response<Answer> {
    let message = format!("the route of model {model} has no leg with this version");
    let hint = "`tidegate status` shows the versions of a route";
    error(StatusCode::NOT_FOUND, "unknown_version", &message, hint)
}

pub(crate) fn upstream_died(model: &str) -> Response<Answer> {
    let message = format!("the version of model {model} that held this request gave no answer");
    let hint = "whether it was carried out is not known; repeat it if that is safe";
    error(StatusCode::BAD_GATEWAY, "upstream_died", &message, hint)
}

pub(crate) fn client_broke_off() -> Response<Answer> {
    let message = "the request's body broke off";
    error(StatusCode::BAD_REQUEST, "request_incomplete", message, "send the whole body")
}

pub(crate) fn body_too_large(most: u64) -> Response<Answer> {
    let message = format!("the request's body is larger than {most} bytes");
    let hint = "send less at once, or raise max_body_bytes in the host's settings";
    error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &message, hint)
}

pub(crate) fn took_too_long(model: &str) -> Response<Answer> {
    let message = format!("the version of model {model} that held this request did not answer in time");
    let hint = "whether it was carried out is not known; request_timeout_ms in the host's settings is the time";
    error(StatusCode::GATEWAY_TIMEOUT, "request_timeout", &message, hint)
}

fn unavailable(code: &str, model: &str, why: &str) -> Response<Answer> {
    let message = format!("no version of model {model} can answer now: {why}");
    let mut response =
        error(StatusCode::SERVICE_UNAVAILABLE, code, &message, "repeat it in a moment; `tidegate status` says more");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub(crate) fn held_too_long(model: &str) -> Response<Answer> {
    unavailable("no_healthy_slot", model, "it waited as long as the hold allows")
}

pub(crate) fn too_many_held(model: &str) -> Response<Answer> {
    unavailable("too_many_held", model, "too many requests wait already")
}

pub(crate) fn healthy() -> Response<Answer> {
    respond(StatusCode::OK, "application/json", r#"{"status":"ok"}"#)
}

pub(crate) fn metrics(text: String) -> Response<Answer> {
    respond(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

pub(crate) fn unknown_own_path() -> Response<Answer> {
    let hint = "there are /-/healthz and /-/metrics";
    error(StatusCode::NOT_FOUND, "unknown_path", "the gateway has no such page", hint)
}
