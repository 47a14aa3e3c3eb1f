//! What the gateway changes in the heads of requests and answers.
//!
//! `Host` goes through as the client sent it; `X-Forwarded-For` is appended to, `X-Forwarded-Proto` and `-Host` are set where nobody in
//! front of us has, `X-Forwarded-Prefix` gets our prefix appended. `Expect` ends here: hyper answers `100 Continue` itself as soon as
//! the body is read, which is when a slot was found for the request.

use std::collections::BTreeMap;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{Uri, Version};

use super::connections::Peer;

/// Headers of one connection only (RFC 9110, 7.6.1, and the older ones still seen).
const HOP_BY_HOP: [HeaderName; 7] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// The protocol that both sides shall change to, if the head asks for, or grants, one.
pub(crate) fn upgrade_wish(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    wanted.then(|| headers.get(header::UPGRADE).cloned()).flatten()
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Takes out what belongs to one connection only, and puts an agreed change of protocol back in.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    let is_one =
        |name: &HeaderName| *name == header::CONNECTION || *name == header::UPGRADE || HOP_BY_HOP.contains(name);
    // Most messages have none of them, and one look at the names is cheaper than nine searches.
    if !headers.keys().any(is_one) {
        return;
    }
    let named: Vec<HeaderName> = connection_tokens(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

/// Tells the slot who asked, and how.
pub(crate) fn add_forwarded(headers: &mut HeaderMap, uri: &Uri, version: Version, peer: Peer, prefix: &str) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
    if version == Version::HTTP_2
        && let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    append(headers, FOR, ", ", peer.ip.to_string());
    headers.entry(PROTO).or_insert(HeaderValue::from_static(if peer.secure { "https" } else { "http" }));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(HOST).or_insert(host);
    }
    if !prefix.is_empty() {
        append(headers, PREFIX, "", prefix.to_owned());
    }
    headers.remove(header::EXPECT);
}

fn append(headers: &mut HeaderMap, name: HeaderName, separator: &str, value: String) {
    let before: Vec<&str> = headers.get_all(&name).iter().filter_map(|v| v.to_str().ok()).collect();
    let joined = if before.is_empty() { value } else { before.join(", ") + separator + &value };
    if let Ok(value) = HeaderValue::try_from(joined) {
        headers.insert(name, value);
    }
}

/// Which model a request is for, and what is left of its path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Addressed {
    pub(super) model: String,
    pub(super) path: PathAndQuery,
    /// What was taken from the path: `/MODEL`, or nothing where the host says it.
    pub(super) prefix: String,
}

/// By the first part of the path.
pub(super) fn by_path(uri: &Uri) -> Option<Addressed> {
    let (model, path) = split_path(uri)?;
    Some(Addressed { model: model.to_owned(), path, prefix: format!("/{model}") })
}

/// By the host that the client asked, where the settings give it a model.
pub(super) fn by_host(uri: &Uri, headers: &HeaderMap, hosts: &BTreeMap<String, String>) -> Option<Addressed> {
    if hosts.is_empty() || uri.path().starts_with("/-/") {
        return None;
    }
    let of_header = || headers.get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let authority = uri.authority().cloned().or_else(of_header)?;
    let model = hosts.get(&authority.host().to_ascii_lowercase())?;
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Some(Addressed { model: model.clone(), path, prefix: String::new() })
}

/// Splits `/MODEL/rest?query` into the model and what the slot gets: `/rest?query`.
pub(crate) fn split_path(uri: &Uri) -> Option<(&str, PathAndQuery)> {
    let path = uri.path().strip_prefix('/')?;
    let (model, rest) = path.find('/').map_or((path, "/"), |at| path.split_at(at));
    if model.is_empty() {
        return None;
    }
    let stripped = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{rest}?{query}")),
        None => PathAndQuery::try_from(rest),
    };
    Some((model, stripped.ok()?))
}

/// A slot knows nothing of its prefix: a redirect to `/docs` means `/MODEL/docs`.
pub(crate) fn prefix_location(headers: &mut HeaderMap, prefix: &str) {
    if prefix.is_empty() {
        return;
    }
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let knows = location.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    if location.starts_with('/') && !location.starts_with("//") && !knows {
        let rewritten = HeaderValue::from_str(&format!("{prefix}{location}"));
        rewritten.ok().map(|value| headers.insert(header::LOCATION, value));
    }
}

/// Names a host where there is none: a client of HTTP/1.0 may leave it out, we may not.
pub(super) fn ensure_host(headers: &mut HeaderMap, port: u16) {
    if !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&format!("127.0.0.1:{port}"))
    {
        headers.insert(header::HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Option<(String, String)> {
        let uri: Uri = path.parse().unwrap();
        split_path(&uri).map(|(model, rest)| (model.to_owned(), rest.to_string()))
    }

    #[test]
    fn strips_the_model() {
        let some = |model: &str, rest: &str| Some((model.to_owned(), rest.to_owned()));
        assert_eq!(split("/iris"), some("iris", "/"));
        assert_eq!(split("/iris/"), some("iris", "/"));
        assert_eq!(split("/iris?x=1"), some("iris", "/?x=1"));
        assert_eq!(split("/iris/predict?x=1&y=%2F"), some("iris", "/predict?x=1&y=%2F"));
        assert_eq!(split("/iris//a"), some("iris", "//a"));
        assert_eq!(split("/"), None);
        assert_eq!(split("//a"), None);
    }

    #[test]
    fn a_host_may_say_the_model() {
        let hosts = BTreeMap::from([("iris.example".to_owned(), "iris".to_owned())]);
        let model = |uri: &'static str, host: &'static str| {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            by_host(&Uri::from_static(uri), &headers, &hosts).map(|found| (found.model, found.path.to_string()))
        };
        let iris = Some(("iris".to_owned(), "/predict?x=1".to_owned()));
        assert_eq!(model("/predict?x=1", "iris.example"), iris);
        assert_eq!(model("/predict?x=1", "IRIS.example:7311"), iris);
        assert_eq!(model("http://iris.example/predict?x=1", "other"), iris);
        assert_eq!(model("/predict", "other.example"), None);
        assert_eq!(model("/-/healthz", "iris.example"), None);
    }

    #[test]
    fn hop_by_hop_headers_end_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("x-kept", "1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers, None);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn forwarded_headers_are_added_to() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("models.example"));
        headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        headers.insert("expect", HeaderValue::from_static("100-continue"));
        let uri = Uri::from_static("/iris/predict");
        let peer = Peer { ip: "127.0.0.1".parse().unwrap(), secure: false };
        add_forwarded(&mut headers, &uri, Version::HTTP_11, peer, "/iris");
        let get = |name| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(get("x-forwarded-for"), "10.0.0.1, 127.0.0.1");
        assert_eq!(get("x-forwarded-proto"), "http");
        assert_eq!(get("x-forwarded-host"), "models.example");
        assert_eq!(get("x-forwarded-prefix"), "/iris");
        assert_eq!(get("host"), "models.example");
        assert!(!headers.contains_key("expect"));
    }

    #[test]
    fn redirects_keep_the_prefix() {
        for (from, to) in [
            ("/docs", "/iris/docs"),
            ("/iris/docs", "/iris/docs"),
            ("//other/x", "//other/x"),
            ("http://o/x", "http://o/x"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_str(from).unwrap());
            prefix_location(&mut headers, "/iris");
            assert_eq!(headers[header::LOCATION], to);
        }
    }
}
