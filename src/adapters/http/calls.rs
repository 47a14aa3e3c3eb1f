//! The requests that workflows make, over plain HTTP/1.1 and TLS.
//!
//! On hyper and not on reqwest: there TLS without aws-lc needs a process-wide provider, without which *every* client panics.

use std::error::Error as StdError;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::adapters::secret_value;
use crate::ports::{HttpAnswer, HttpCall, HttpCaller, HttpMethod, PortError, Secrets};

/// Most of a body that is taken: it goes into the journal and the state.
const MAX_BODY: usize = 1024 * 1024;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence while waiting for an answer or the rest of it. A node's own `timeout` is for what is shorter.
const SILENCE: Duration = Duration::from_secs(300);
/// Requests at once: a fan-out over a long list must not use up all descriptors.
const MOST_AT_ONCE: usize = 128;
/// Most redirects that are followed.
const MOST_HOPS: usize = 5;

type Sender<C> = Client<C, Full<Bytes>>;

/// Makes requests; each has a connection of its own, so that none meets one that is just being closed.
pub struct HttpCalls {
    plain: Sender<HttpConnector>,
    /// Made when it is first needed: it reads the system's certificates.
    tls: OnceLock<Result<Sender<HttpsConnector<HttpConnector>>, PortError>>,
    turns: Semaphore,
}

impl Default for HttpCalls {
    fn default() -> Self {
        Self { plain: client(connector()), tls: OnceLock::new(), turns: Semaphore::new(MOST_AT_ONCE) }
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT));
    connector.enforce_http(false);
    connector
}

fn client<C>(connector: C) -> Sender<C>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).retry_canceled_requests(false).build(connector)
}

fn tls() -> Result<Sender<HttpsConnector<HttpConnector>>, PortError> {
    let builder = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| {
        PortError::new("http_no_certificates", "the system's certificates cannot be read")
            .because(error.to_string())
            .hint("install `ca-certificates`, or name a file of them with SSL_CERT_FILE")
    })?;
    Ok(client(builder.https_only().enable_http1().wrap_connector(connector())))
}

/// A request with its secrets, ready to be sent.
struct Prepared {
    method: HttpMethod,
    url: Url,
    headers: HeaderMap,
    /// Headers that only the service at the first URL may see.
    secret: Vec<HeaderName>,
    body: Bytes,
}

#[async_trait]
impl HttpCaller for HttpCalls {
    async fn call(&self, call: &HttpCall, key: Option<&str>) -> Result<HttpAnswer, PortError> {
        // Closed by nobody.
        let _turn = self.turns.acquire().await;
        let (prepared, secrets) = prepare(call, key)?;
        let answered = self.follow(prepared, &call.keep_headers).await;
        answered.map(|answer| cleaned(answer, &secrets)).map_err(|mut error| {
            secrets.clean(&mut error.message);
            error.cause.iter_mut().for_each(|cause| secrets.clean(cause));
            error
        })
    }
}

impl HttpCalls {
    async fn follow(&self, mut call: Prepared, keep: &[String]) -> Result<HttpAnswer, PortError> {
        for _ in 0..=MOST_HOPS {
            let response = self.send(&call).await?;
            let next = next_hop(&call, &response);
            let Some(next) = next else { return read(&call, response, keep).await };
            if next.origin() != call.url.origin() {
                call.secret.drain(..).for_each(|name| drop(call.headers.remove(name)));
            }
            call.url = next;
        }
        let message = format!("{} leads on and on", call.url);
        Err(PortError::new("http_refused", message).because(format!("more than {MOST_HOPS} redirects")))
    }

    async fn send(&self, call: &Prepared) -> Result<Response<Incoming>, PortError> {
        let mut request = Request::builder().method(call.method.word()).uri(call.url.as_str());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&call.headers);
        }
        let request =
            request.body(Full::new(call.body.clone())).map_err(|error| bad_url(&call.url, &error.to_string()))?;
        let sent = match call.url.scheme() {
            "https" => self.tls.get_or_init(tls).as_ref().map_err(Clone::clone)?.request(request),
            _ => self.plain.request(request),
        };
        match timeout(SILENCE, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(call, &error)),
            Err(_) => Err(broken(call, &format!("no answer within {} s", SILENCE.as_secs()))),
        }
    }
}

/// Where a redirect leads, if it is one that may be followed: a request that does something is made where it was meant, or not at all.
fn next_hop(call: &Prepared, response: &Response<Incoming>) -> Option<Url> {
    if !call.method.is_safe() || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let next = call.url.join(location).ok()?;
    // Never from a safe place to an unsafe one.
    let allowed = next.scheme() == "https" || (next.scheme() == "http" && call.url.scheme() == "http");
    allowed.then_some(next)
}

fn prepare(call: &HttpCall, key: Option<&str>) -> Result<(Prepared, Secrets), PortError> {
    let (secret_headers, secrets) = secret_value::read_all(&call.headers_from)?;
    let url = address(call)?;
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    if let Some(key) = key {
        headers.insert("idempotency-key", value("idempotency-key", key)?);
    }
    for (given, text) in &call.headers {
        headers.insert(name(given)?, value(given, text)?);
    }
    let mut secret = Vec::new();
    for (given, text) in &secret_headers {
        let mut hidden = value(given, text)?;
        hidden.set_sensitive(true);
        headers.insert(name(given)?, hidden);
        secret.push(name(given)?);
    }
    let body = body(call, &mut headers);
    Ok((Prepared { method: call.method, url, headers, secret, body }, secrets))
}

fn address(call: &HttpCall) -> Result<Url, PortError> {
    let bad = |why: &str| bad_url(&call.url, why);
    let mut url = Url::parse(&call.url).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad("it is no http:// or https:// URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let url = url.host_str().unwrap_or_default().to_owned();
        return Err(bad_url(&url, "it holds a name or a password")
            .hint("name the secret under `headers_from`: `authorization`"));
    }
    url.set_fragment(None);
    if !call.query.is_empty() {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in &call.query {
            let values = if let Value::Array(values) = value { values.as_slice() } else { std::slice::from_ref(value) };
            for value in values.iter().filter(|value| !value.is_null()) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                pairs.append_pair(name, &text);
            }
        }
    }
    Ok(url)
}

fn bad_url(url: impl std::fmt::Display, why: &str) -> PortError {
    PortError::new("http_bad_url", format!("`{url}` cannot be requested")).because(why)
}

fn name(text: &str) -> Result<HeaderName, PortError> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| PortError::new("http_bad_header", format!("`{text}` is no header's name")))
}

fn value(name: &str, text: &str) -> Result<HeaderValue, PortError> {
    HeaderValue::from_str(text).map_err(|_| {
        PortError::new("http_bad_header", format!("the value of header `{name}` cannot be sent"))
            .hint("it has line breaks or other characters that no header can hold")
    })
}

/// JSON, or a text as it is where a content type says that it is something else.
fn body(call: &HttpCall, headers: &mut HeaderMap) -> Bytes {
    let Some(body) = &call.body else { return Bytes::new() };
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_lowercase();
    match body {
        Value::String(text) if !said.is_empty() && !said.contains("json") => Bytes::from(text.clone()),
        other => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            Bytes::from(other.to_string())
        }
    }
}

async fn read(call: &Prepared, response: Response<Incoming>, keep: &[String]) -> Result<HttpAnswer, PortError> {
    let (head, mut body) = response.into_parts();
    let header = |name: &str| Some(String::from_utf8_lossy(head.headers.get(name)?.as_bytes()).into_owned());
    let kept = keep.iter().filter_map(|name| Some((name.clone(), header(name)?)));
    let mut answer = HttpAnswer { status: head.status.as_u16(), headers: kept.collect(), ..HttpAnswer::default() };
    let mut bytes = Vec::new();
    while !body.is_end_stream() {
        let frame = match timeout(SILENCE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broken(call, &chain(&error))),
            Err(_) => return Err(broken(call, "the answer stopped in the middle")),
        };
        bytes.extend_from_slice(frame.data_ref().map(|data| data.as_ref()).unwrap_or_default());
        if bytes.len() > MAX_BODY {
            answer.unreadable = Some(format!("it has more than {MAX_BODY} bytes"));
            return Ok(answer);
        }
    }
    let json = header("content-type").is_some_and(|kind| kind.to_lowercase().contains("json"));
    match (json, std::str::from_utf8(&bytes)) {
        (_, Ok("")) => {}
        (true, Ok(text)) => match serde_json::from_str(text) {
            Ok(value) => answer.body = value,
            Err(error) => answer.unreadable = Some(format!("it says that it is JSON, and is not: {error}")),
        },
        (false, Ok(text)) => answer.body = Value::String(text.to_owned()),
        (_, Err(error)) => answer.unreadable = Some(format!("it is no text: {error}")),
    }
    Ok(answer)
}

fn cleaned(mut answer: HttpAnswer, secrets: &Secrets) -> HttpAnswer {
    secrets.clean_json(&mut answer.body);
    answer.headers.values_mut().for_each(|value| secrets.clean(value));
    answer.unreadable.iter_mut().for_each(|why| secrets.clean(why));
    answer
}

/// Where it may have arrived all the same, and where it surely did not.
fn failed(call: &Prepared, error: &Error) -> PortError {
    if !error.is_connect() {
        return broken(call, &chain(error));
    }
    let (method, url) = (call.method.word(), &call.url);
    let unreachable = PortError::new("http_unreachable", format!("{method} {url} could not be sent"));
    unreachable.because(chain(error)).hint("look at the URL, the network and the service").retryable()
}

fn broken(call: &Prepared, why: &str) -> PortError {
    let (method, url) = (call.method.word(), &call.url);
    PortError::new("http_broken", format!("{method} {url} was sent and got no whole answer")).because(why).retryable()
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text.push_str(&format!(": {error}"));
        inner = error.source();
    }
    text
}
