//! A request that changes something elsewhere. An answer is the service's word; where there was none, what happened is not known.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::graph::{Effect, EffectCx, Failure, Probe};
use crate::nodes::world::port;
use crate::ports::{Expressions, HttpAnswer, HttpCall, HttpCaller, HttpMethod, Statuses};

/// Codes of failures after which nobody knows whether the request did something.
const UNKNOWN: [&str; 2] = ["http_broken", "http_server_error"];
/// So much of an answer's body is shown in a failure.
const EXCERPT_CHARS: usize = 500;

/// What an HTTP effect acts on.
pub struct HttpWorld {
    /// Makes requests.
    pub caller: Arc<dyn HttpCaller>,
    /// Evaluates what probe and undo say of their requests.
    pub expressions: Arc<dyn Expressions>,
}

/// A request that is made later, as texts: what it is made of is not known before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaterCall {
    /// Method.
    pub method: HttpMethod,
    /// The URL as it is.
    #[serde(default)]
    pub url: Option<String>,
    /// The URL as an expression.
    #[serde(default)]
    pub url_expr: Option<String>,
    /// Expression of what is added to the URL's query.
    #[serde(default)]
    pub query: Option<String>,
    /// Expression of the body.
    #[serde(default)]
    pub body: Option<String>,
    /// Statuses that are a success.
    pub expect: Statuses,
    /// Statuses by which a probe learns that it did not happen.
    #[serde(default)]
    pub absent: Option<Statuses>,
}

/// Makes a request with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendHttp {
    /// The request.
    pub call: HttpCall,
    /// Statuses that are a success.
    pub expect: Statuses,
    /// Whether it may be made again when nobody knows whether it arrived.
    pub repeat: bool,
    /// The request that tells whether it happened.
    #[serde(default)]
    pub probe: Option<LaterCall>,
    /// The request that takes it back.
    #[serde(default)]
    pub undo: Option<LaterCall>,
    /// What the node saw, as far as probe and undo name it.
    #[serde(default)]
    pub seen: Map<String, Value>,
}

impl SendHttp {
    /// Makes one of the later requests, which share the headers. `of`: the answer that is to be taken back.
    async fn later(
        &self,
        later: &LaterCall,
        of: Option<&HttpAnswer>,
        world: &HttpWorld,
        cx: &EffectCx,
    ) -> Result<HttpAnswer, Failure> {
        let mut names = self.seen.clone();
        names.insert("token".to_owned(), json!(cx.token));
        if let Some(answer) = of {
            names.insert("answer".to_owned(), result(answer));
        }
        let value = |source: &String| world.expressions.value(source, &names).map_err(port);
        let url = match (&later.url, &later.url_expr) {
            (Some(url), _) => url.clone(),
            (None, Some(source)) => url_of(value(source)?)?,
            (None, None) => self.call.url.clone(),
        };
        let call = HttpCall {
            method: later.method,
            url,
            query: later.query.as_ref().map(value).transpose()?.map_or_else(|| Ok(Map::new()), query_of)?,
            headers: headers(&self.call.headers, later.body.is_some()),
            headers_from: self.call.headers_from.clone(),
            body: later.body.as_ref().map(value).transpose()?,
            keep_headers: self.call.keep_headers.clone(),
        };
        // A key of its own: the service must not take it for the request itself.
        let what = if of.is_some() { "undo" } else { "probe" };
        let key = (!later.method.is_safe()).then(|| format!("{}-{what}", cx.token));
        world.caller.call(&call, key.as_deref()).await.map_err(port)
    }

    /// What follows where nobody knows.
    async fn unknown(&self, world: &HttpWorld, cx: &EffectCx) -> Result<Probe<HttpAnswer>, Failure> {
        if let Some(probe) = &self.probe {
            return Ok(self.asked(probe, world, cx).await);
        }
        if self.repeat {
            return Ok(Probe::NotDone);
        }
        Ok(match (&cx.reason, &self.undo) {
            // It is about to be undone, which asks for an undo and not for certainty.
            (Some(_), Some(_)) => Probe::Done(HttpAnswer::default()),
            (Some(_), None) => Probe::NotDone,
            (None, _) => Probe::Unknown(format!(
                "{} {} was sent, or was about to be, and nobody saw an answer; the node has no `probe`, and does not say \
                 `repeat: true`, so it is not sent again",
                self.call.method.word(),
                self.call.url
            )),
        })
    }

    async fn asked(&self, probe: &LaterCall, world: &HttpWorld, cx: &EffectCx) -> Probe<HttpAnswer> {
        let absent = |status| probe.absent.as_ref().is_some_and(|absent| absent.contains(status));
        match self.later(probe, None, world, cx).await {
            Ok(answer) if absent(answer.status) => Probe::NotDone,
            Ok(answer) if probe.expect.contains(answer.status) => Probe::Done(answer),
            Ok(answer) => Probe::Unknown(format!("its probe was answered with {}", answer.status)),
            Err(failure) => Probe::Unknown(format!("its probe could not tell: {}", failure.message)),
        }
    }
}

#[async_trait]
impl Effect for SendHttp {
    const KIND: &'static str = "http";
    type World = HttpWorld;
    type Receipt = HttpAnswer;

    async fn perform(&self, world: &HttpWorld, cx: &EffectCx) -> Result<HttpAnswer, Failure> {
        let answered = world.caller.call(&self.call, Some(&cx.token)).await.map_err(port);
        answered.and_then(|answer| expected(&self.call, &self.expect, answer)).map_err(|mut failure| {
            if UNKNOWN.contains(&failure.code.as_str()) && !self.repeat && self.probe.is_none() {
                failure.retryable = false;
                failure.hint =
                    Some("say `repeat: true` if it may be sent again, or give the node a `probe`".to_owned());
            }
            failure
        })
    }

    async fn probe(&self, world: &HttpWorld, cx: &EffectCx) -> Result<Probe<HttpAnswer>, Failure> {
        match &cx.failed {
            // The service said no, or never heard of it.
            Some(failure) if !UNKNOWN.contains(&failure.code.as_str()) => Ok(Probe::NotDone),
            _ => self.unknown(world, cx).await,
        }
    }

    async fn undo(&self, world: &HttpWorld, receipt: &HttpAnswer, cx: &EffectCx) -> Result<(), Failure> {
        let Some(undo) = &self.undo else { return Ok(()) };
        let answer = self.later(undo, Some(receipt), world, cx).await?;
        let call = HttpCall { method: undo.method, url: "its undo's URL".to_owned(), ..HttpCall::default() };
        expected(&call, &undo.expect, answer).map(drop)
    }
}

/// An answer as workflows see it.
pub fn result(answer: &HttpAnswer) -> Value {
    if answer.status == 0 {
        return Value::Null;
    }
    let mut result = json!({"status": answer.status, "body": answer.body});
    if !answer.headers.is_empty() {
        result["headers"] = json!(answer.headers);
    }
    result
}

/// The answer, if its status was expected.
pub fn expected(call: &HttpCall, expect: &Statuses, answer: HttpAnswer) -> Result<HttpAnswer, Failure> {
    if expect.contains(answer.status) {
        return Ok(answer);
    }
    let (method, url, status) = (call.method.word(), &call.url, answer.status);
    // 501 and 503 say that nothing was done; of the other 5xx a gateway may have seen only half.
    let server = status >= 500 && !matches!(status, 501 | 503);
    let code = if server { "http_server_error" } else { "http_refused" };
    let failure = Failure::new(code, format!("{method} {url} was answered with {status}, not {expect}"));
    let said = match &answer.body {
        Value::Null => String::new(),
        Value::String(text) => text.chars().take(EXCERPT_CHARS).collect(),
        other => other.to_string().chars().take(EXCERPT_CHARS).collect(),
    };
    let failure = if said.is_empty() { failure } else { failure.because(said) };
    let failure = match status {
        300..=399 => failure.hint("use the URL it leads to; only GET, HEAD and OPTIONS follow"),
        401 | 403 => failure.hint("look at `headers_from`"),
        _ => failure.hint("mend the request, or add the status to `expect`"),
    };
    let again = matches!(status, 408 | 425 | 429) || (status >= 500 && status != 501);
    Err(if again { failure.retryable() } else { failure })
}

/// A value as a URL.
pub fn url_of(value: Value) -> Result<String, Failure> {
    match value {
        Value::String(url) => Ok(url),
        other => Err(Failure::new("expression_type", "`url_expr` gives no text").because(other.to_string())),
    }
}

/// A value as what is added to a URL's query.
pub fn query_of(value: Value) -> Result<Map<String, Value>, Failure> {
    match value {
        Value::Object(query) => Ok(query),
        other => Err(Failure::new("expression_type", "`query` gives no object").because(other.to_string())),
    }
}

/// The node's headers for another request of it; what they say of a body is said of the node's own.
fn headers(own: &BTreeMap<String, String>, has_body: bool) -> BTreeMap<String, String> {
    let kept = |name: &str| has_body || !name.eq_ignore_ascii_case("content-type");
    own.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests;
