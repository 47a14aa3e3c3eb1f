//! Calls to services over plain HTTP, and the requests that workflows make.

mod calls;

pub use calls::HttpCalls;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use serde_json::Value;

use crate::ports::{PortError, ServiceAnswer, ServiceCall, ServiceClient};

/// Most of a body that is read, in bytes: an answer is looked at, not kept.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A client with a pool of connections.
#[derive(Debug, Clone, Default)]
pub struct HttpServices {
    client: reqwest::Client,
}

impl HttpServices {
    /// A fresh client.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl ServiceClient for HttpServices {
    async fn call(&self, call: &ServiceCall) -> Result<ServiceAnswer, PortError> {
        let began = Instant::now();
        let request = match &call.body {
            None => self.client.get(&call.url),
            Some(body) => self.client.post(&call.url).json(body),
        };
        let answer =
            request.timeout(Duration::from_millis(call.timeout_ms)).send().await.map_err(|e| failed(call, &e))?;
        let status = answer.status().as_u16();
        let mut bytes = Vec::new();
        let mut stream = answer.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|e| failed(call, &e))?);
            if bytes.len() > MAX_BODY_BYTES {
                bytes.truncate(MAX_BODY_BYTES);
                break;
            }
        }
        let latency_ms = began.elapsed().as_secs_f64() * 1000.0;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(text(&bytes)));
        Ok(ServiceAnswer { status, body, latency_ms })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(64 * 1024)]).into_owned()
}

fn failed(call: &ServiceCall, error: &reqwest::Error) -> PortError {
    let mut cause = error.to_string();
    let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = inner {
        cause.push_str(&format!(": {error}"));
        inner = error.source();
    }
    let what =
        if error.is_timeout() { format!("no answer within {} ms", call.timeout_ms) } else { "no answer".to_owned() };
    PortError::new("service_call_failed", format!("{what} from {}", call.url)).because(cause).retryable()
}
