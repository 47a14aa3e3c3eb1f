//! Calls to a service, as its users make them: how checks and golden cases reach a slot.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PortError;

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceCall {
    /// The whole URL.
    pub url: String,
    /// A JSON body: the call is a POST; none: a GET.
    #[serde(default)]
    pub body: Option<Value>,
    /// Longest time until the whole answer is there, in milliseconds.
    pub timeout_ms: u64,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body: JSON where it is JSON, else a string (the first 64 KiB).
    pub body: Value,
    /// Time until the whole answer was there, in milliseconds.
    pub latency_ms: f64,
}

/// Calls services.
#[async_trait]
pub trait ServiceClient: Send + Sync {
    /// One call. Any HTTP status is an answer; an error is a call without one.
    async fn call(&self, call: &ServiceCall) -> Result<ServiceAnswer, PortError>;
}
