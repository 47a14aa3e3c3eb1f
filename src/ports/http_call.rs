//! HTTP requests that a workflow makes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{PortError, SecretSource};

/// Request methods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Reads.
    #[default]
    Get,
    /// Reads the head only.
    Head,
    /// Asks what is possible.
    Options,
    /// Does something.
    Post,
    /// Puts something in a place.
    Put,
    /// Changes something.
    Patch,
    /// Removes something.
    Delete,
}

impl HttpMethod {
    /// Whether it only looks (RFC 9110: safe).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }

    /// Its word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A request with everything that decides what it does. It is kept in the journal, so it holds no secret, only where secrets stand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// Method.
    pub method: HttpMethod,
    /// Absolute URL.
    pub url: String,
    /// Added to the URL's query.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub query: Map<String, Value>,
    /// Headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Headers with secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers_from: BTreeMap<String, SecretSource>,
    /// The body: JSON, or a text where `headers` names a content type that is no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Headers of the answer that are kept, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_headers: Vec<String>,
}

impl HttpCall {
    /// A bare GET.
    pub fn get(url: &str) -> Self {
        let (query, headers, headers_from) = (Map::new(), BTreeMap::new(), BTreeMap::new());
        let (method, body, keep_headers) = (HttpMethod::Get, None, Vec::new());
        Self { method, url: url.to_owned(), query, headers, headers_from, body, keep_headers }
    }
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAnswer {
    /// Status; 0: nobody saw the answer, which is told to an undo only.
    pub status: u16,
    /// The headers that were to be kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body: JSON where it says that it is, else text; null where there is none.
    #[serde(default)]
    pub body: Value,
    /// Why the body could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// Makes HTTP requests.
#[async_trait]
pub trait HttpCaller: Send + Sync {
    /// One request. Any status is an answer; an error is a request without one: `http_broken` where it may have arrived all the same,
    /// other codes where it surely did not. `key` goes along as `Idempotency-Key`.
    async fn call(&self, call: &HttpCall, key: Option<&str>) -> Result<HttpAnswer, PortError>;
}
