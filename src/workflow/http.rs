//! `http`: makes a request. Safe methods look, and look again on every attempt; the others do something, once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::graph::{
    ChannelType, Context, DynNode, Failure, FailureDetails, Field, NodeError, NodeInfo, Produced, State, View, Write,
};
use crate::nodes::effects::{LaterCall, SendHttp, expected, query_of, result, url_of};
use crate::ports::{HttpAnswer, HttpCall, HttpCaller, HttpMethod, PortError, SecretSource, Statuses};

use super::tools::{Source, ToolSpec, secret_faults, settle_secrets};
use super::{Expression, names};

pub(super) const KIND: &str = "http";

/// What the expressions of a probe may name beside the channels.
const PROBE_NAMES: &[&str] = &["token"];
/// And those of an undo.
const UNDO_NAMES: &[&str] = &["answer", "token"];

/// What a file says of an `http` node, under `with`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpSpec {
    /// Method [default: GET].
    #[serde(default)]
    pub method: HttpMethod,
    /// The URL, as it is. One of `url` and `url_expr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// CEL expression of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_expr: Option<String>,
    /// CEL expression of an object whose entries are added to the URL's query; a list adds its name several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Headers with secrets: where each stands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers_from: BTreeMap<String, SecretSource>,
    /// CEL expression of the body: sent as JSON, or as it is where it is a text and `headers` names a content type that is no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Statuses that are a success [default: 2xx].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Statuses>,
    /// The channel that gets {status, body, headers}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Headers of the answer that are kept in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_headers: Vec<String>,
    /// It may be sent again when nobody knows whether it arrived [default: false].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    /// The request that tells whether it happened. Its expressions may name `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// The request that takes it back. Its expressions may name `answer` and `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSpec>,
}

/// A probe's request; headers are the node's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProbeSpec {
    /// Method [default: GET].
    #[serde(default)]
    pub method: HttpMethod,
    /// The URL, as it is [default: the node's].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// CEL expression of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_expr: Option<String>,
    /// CEL expression of what is added to the URL's query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// CEL expression of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// It happened, and this is its answer [default: 2xx].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Statuses>,
    /// It did not happen [default: 404].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_done: Option<Statuses>,
}

/// An undo's request; headers are the node's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoSpec {
    /// Method.
    pub method: HttpMethod,
    /// The URL, as it is [default: the node's].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// CEL expression of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_expr: Option<String>,
    /// CEL expression of what is added to the URL's query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// CEL expression of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// It is taken back [default: 2xx, 404, 410].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Statuses>,
}

impl ProbeSpec {
    fn later(&self) -> LaterCall {
        LaterCall {
            method: self.method,
            url: self.url.clone(),
            url_expr: self.url_expr.clone(),
            query: self.query.clone(),
            body: self.body.clone(),
            expect: self.done.clone().unwrap_or_else(Statuses::success),
            absent: Some(self.not_done.clone().unwrap_or_else(|| Statuses::of(&["404"]))),
        }
    }
}

impl UndoSpec {
    fn later(&self) -> LaterCall {
        LaterCall {
            method: self.method,
            url: self.url.clone(),
            url_expr: self.url_expr.clone(),
            query: self.query.clone(),
            body: self.body.clone(),
            expect: self.expect.clone().unwrap_or_else(|| Statuses::of(&["2xx", "404", "410"])),
            absent: None,
        }
    }
}

fn texts<'s>(
    under: &'static str,
    more: &'static [&'static str],
    keys: [(&'static str, &'s Option<String>); 3],
) -> impl Iterator<Item = Source<'s>> {
    let place = move |key: &str| [under, key].iter().filter(|k| !k.is_empty()).map(|k| (*k).to_owned()).collect();
    keys.into_iter().filter_map(move |(key, text)| Some(Source { place: place(key), text: text.as_deref()?, more }))
}

impl ToolSpec for HttpSpec {
    fn sources(&self) -> Vec<Source<'_>> {
        let own = [("url_expr", &self.url_expr), ("query", &self.query), ("body", &self.body)];
        let mut all: Vec<Source<'_>> = texts("", &[], own).collect();
        if let Some(p) = &self.probe {
            all.extend(texts(
                "probe",
                PROBE_NAMES,
                [("url_expr", &p.url_expr), ("query", &p.query), ("body", &p.body)],
            ));
        }
        if let Some(u) = &self.undo {
            all.extend(texts("undo", UNDO_NAMES, [("url_expr", &u.url_expr), ("query", &u.query), ("body", &u.body)]));
        }
        all
    }

    fn faults(&self) -> Vec<(Vec<String>, String)> {
        let mut faults = secret_faults("headers_from", &self.headers_from);
        let mut wrong = |place: &[&str], why: &str| {
            faults.push((place.iter().map(|key| (*key).to_owned()).collect(), why.to_owned()));
        };
        if self.url.is_some() == self.url_expr.is_some() {
            wrong(&[], "a request needs one of `url` and `url_expr`");
        }
        if let Some(url) = self.url.as_deref().filter(|url| !is_http(url)) {
            wrong(&["url"], &format!("`{url}` is no http:// or https:// URL; an expression stands under `url_expr`"));
        }
        let later = [
            ("probe", self.probe.as_ref().map(|p| (&p.url, &p.url_expr))),
            ("undo", self.undo.as_ref().map(|u| (&u.url, &u.url_expr))),
        ];
        for (key, urls) in later {
            if urls.is_some_and(|(url, expression)| url.is_some() && expression.is_some()) {
                wrong(&[key], "`url` and `url_expr` exclude one another");
            }
            if urls.is_some_and(|(url, _)| url.as_deref().is_some_and(|url| !is_http(url))) {
                wrong(&[key, "url"], "it is no http:// or https:// URL; an expression stands under `url_expr`");
            }
        }
        if let Some(twice) = self.headers_from.keys().find(|n| self.headers.keys().any(|o| o.eq_ignore_ascii_case(n))) {
            wrong(&["headers_from", twice], "it is also under `headers`");
        }
        if self.method.is_safe() {
            let given = [("repeat", self.repeat), ("probe", self.probe.is_some()), ("undo", self.undo.is_some())];
            for (key, _) in given.into_iter().filter(|(_, given)| *given) {
                wrong(&[key], &format!("{} changes nothing: `{key}` has no meaning for it", self.method.word()));
            }
            if self.body.is_some() {
                wrong(&["body"], &format!("{} has no body", self.method.word()));
            }
        }
        if self.repeat && self.probe.is_some() {
            wrong(&["probe"], "what may be repeated needs no probe: remove `probe` or `repeat`");
        }
        faults
    }

    fn settle(&mut self, folder: &Path) {
        settle_secrets(&mut self.headers_from, folder);
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

pub(super) struct HttpNode {
    spec: HttpSpec,
    url: Option<Expression>,
    query: Option<Expression>,
    body: Option<Expression>,
    /// Expressions of probe and undo, for the names they use.
    later: Vec<Expression>,
    caller: Arc<dyn HttpCaller>,
    parameters: Value,
}

impl HttpNode {
    pub fn new(spec: HttpSpec, caller: Arc<dyn HttpCaller>) -> Result<Self, Failure> {
        if let Some((place, why)) = spec.faults().into_iter().next() {
            let place = if place.is_empty() { String::new() } else { format!("`{}`: ", place.join(".")) };
            return Err(Failure::new("bad_parameters", format!("{place}{why}")));
        }
        let compiled = |source: &Option<String>| source.as_deref().map(Expression::compile).transpose();
        let (url, query, body) = (compiled(&spec.url_expr)?, compiled(&spec.query)?, compiled(&spec.body)?);
        let sources = spec.sources();
        let later =
            sources.iter().filter(|source| !source.more.is_empty()).map(|source| Expression::compile(source.text));
        let later = later.collect::<Result<_, Failure>>()?;
        let parameters = json!(spec);
        Ok(Self { url, query, body, later, caller, parameters, spec })
    }

    fn call(&self, state: &State) -> Result<HttpCall, Failure> {
        let value = |expression: &Option<Expression>| expression.as_ref().map(|e| e.value(state)).transpose();
        let spec = &self.spec;
        let url = match (&spec.url, value(&self.url)?) {
            (Some(url), _) => url.clone(),
            (None, Some(value)) => url_of(value)?,
            (None, None) => String::new(),
        };
        Ok(HttpCall {
            method: spec.method,
            url,
            query: value(&self.query)?.map_or_else(|| Ok(Map::new()), query_of)?,
            headers: spec.headers.clone(),
            headers_from: spec.headers_from.clone(),
            body: value(&self.body)?,
            keep_headers: spec.keep_headers.iter().map(|name| name.to_lowercase()).collect(),
        })
    }

    fn effect(&self, state: &State, call: HttpCall, expect: Statuses) -> SendHttp {
        let names = || self.later.iter().map(Expression::names);
        let whole = names().any(|names| names.whole);
        let named = |name: &str| whole || names().any(|names| names.all().any(|used| used == name));
        let seen = state.iter().filter(|(name, _)| named(name)).map(|(n, v)| (n.to_string(), v.clone())).collect();
        let probe = self.spec.probe.as_ref().map(ProbeSpec::later);
        let undo = self.spec.undo.as_ref().map(UndoSpec::later);
        SendHttp { call, expect, repeat: self.spec.repeat, probe, undo, seen }
    }
}

fn port(error: PortError) -> Failure {
    let PortError { code, message, cause, hint, retryable } = error;
    FailureDetails { code, message, cause, hint, retryable, node: None }.into()
}

#[async_trait]
impl DynNode for HttpNode {
    fn info(&self) -> NodeInfo {
        let any = Field { kind: ChannelType::Any, required: false };
        let now = self.url.iter().chain(&self.query).chain(&self.body).map(Expression::names);
        // `answer` and `token` are no channels; where there are channels of that name, nothing is lost.
        let own = |name: &str| UNDO_NAMES.contains(&name) && self.later.iter().any(|e| e.names().bare.contains(name));
        let reads = names::reads(now, self.later.iter().map(Expression::names));
        NodeInfo {
            kind: KIND.to_owned(),
            version: 1,
            reads: reads.map(|reads| reads.into_iter().filter(|(name, _)| !own(name)).collect()),
            writes: Some(self.spec.into.iter().map(|channel| (channel.clone(), any)).collect()),
            always_writes: self.spec.into.iter().cloned().collect(),
            parameters: self.parameters.clone(),
            ..NodeInfo::default()
        }
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        let call = self.call(&view.0)?;
        let expect = self.spec.expect.clone().unwrap_or_else(Statuses::success);
        let (method, url) = (call.method, call.url.clone());
        let answer: HttpAnswer = if method.is_safe() {
            let look = async {
                let answer = self.caller.call(&call, None).await.map_err(port)?;
                Ok(expected(&call, &expect, answer)?)
            };
            cx.observe(KIND, look).await?
        } else {
            cx.effect(KIND, self.effect(&view.0, call, expect)).await?
        };
        if let Some(why) = answer.unreadable {
            let failure =
                Failure::new("http_answer_unreadable", format!("the answer to {} {url} cannot be used", method.word()));
            return Err(failure.because(why).hint("ask the service for JSON or text of at most 1 MiB").into());
        }
        let write = |channel: &String| Write::new(channel.clone(), result(&answer));
        Ok(Produced { writes: self.spec.into.iter().map(write).collect(), goto: Vec::new() })
    }
}
