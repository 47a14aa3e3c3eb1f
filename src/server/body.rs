//! Bodies: read within their limit, and looked into.

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde_json::{Map, Value};

use super::activity::TooSlow;
use super::error::{Answer, ApiError};

/// Largest body, in bytes: an input is kept in the database with every run.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Of a body that is too large so much is read and thrown away: a client that is still sending does not read the answer.
const MOST_DISCARDED: usize = 64 * 1024 * 1024;

/// Deepest body: what is kept lies in rows that nest it further, and none may be so deep that it cannot be read again.
const MOST_DEPTH: usize = 64;

/// A body's JSON; an empty one is null.
pub(super) async fn json(body: Body) -> Answer<Value> {
    let bytes = read(body).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let value = serde_json::from_slice(&bytes).map_err(|_| ApiError::invalid("Invalid JSON in request body"))?;
    if is_deeper(&value, MOST_DEPTH) {
        return Err(ApiError::invalid(format!("the body is nested deeper than {MOST_DEPTH} levels")));
    }
    Ok(value)
}

/// Whether lists and objects lie in each other deeper than so. The parser has bounded it already.
fn is_deeper(value: &Value, most: usize) -> bool {
    match value {
        Value::Array(items) => most == 0 || items.iter().any(|item| is_deeper(item, most - 1)),
        Value::Object(keys) => most == 0 || keys.values().any(|item| is_deeper(item, most - 1)),
        _ => false,
    }
}

/// A body's bytes.
pub(super) async fn read(body: Body) -> Answer<Vec<u8>> {
    let (mut stream, mut bytes, mut length) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(broken)?;
        length += chunk.len();
        if length > MOST_DISCARDED {
            break;
        }
        if length <= MAX_BYTES {
            bytes.extend_from_slice(&chunk);
        }
    }
    if length > MAX_BYTES {
        let detail = format!("the body has more than {MAX_BYTES} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    Ok(bytes)
}

fn broken(error: axum::Error) -> ApiError {
    match error.into_inner().downcast_ref::<TooSlow>() {
        Some(slow) => ApiError::new(StatusCode::REQUEST_TIMEOUT, slow.to_string()),
        None => ApiError::new(StatusCode::BAD_REQUEST, "the body broke off"),
    }
}

/// A body that is an object; none at all is an empty one.
pub(super) async fn object(body: Body) -> Answer<Fields> {
    match json(body).await? {
        Value::Null => Ok(Fields(Map::new())),
        Value::Object(map) => Ok(Fields(map)),
        _ => Err(ApiError::invalid("the body is no object")),
    }
}

/// The keys of an object. A key that is null counts as absent.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(pub Map<String, Value>);

impl Fields {
    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&self, key: &str) -> Answer<Option<&str>> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| wrong(key, "a string"))).transpose()
    }

    /// One of some words.
    pub fn word<'k>(&self, key: &str, words: &[&'k str]) -> Answer<Option<&'k str>> {
        let Some(given) = self.text(key)? else { return Ok(None) };
        let known = words.iter().find(|word| **word == given).copied();
        known
            .map(Some)
            .ok_or_else(|| ApiError::invalid(format!("`{key}` is one of {}, not \"{given}\"", words.join(", "))))
    }

    /// An object; absent: an empty one.
    pub fn map(&self, key: &str) -> Answer<Map<String, Value>> {
        match self.get(key) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(wrong(key, "an object")),
        }
    }

    /// A boolean; absent: false.
    pub fn flag(&self, key: &str) -> Answer<bool> {
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| wrong(key, "true or false")))
    }

    /// A whole number between two others.
    pub fn number(&self, key: &str, least: u64, most: u64) -> Answer<Option<u64>> {
        let Some(given) = self.get(key) else { return Ok(None) };
        let number = given.as_u64().filter(|n| (least..=most).contains(n));
        number
            .map(Some)
            .ok_or_else(|| ApiError::invalid(format!("`{key}` is a whole number from {least} to {most}, not {given}")))
    }

    /// A text, or a list of texts.
    pub fn texts(&self, key: &str) -> Answer<Option<Vec<String>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
            Some(Value::Array(many)) => {
                let all: Option<Vec<String>> = many.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                all.map(Some).ok_or_else(|| wrong(key, "a list of strings"))
            }
            Some(_) => Err(wrong(key, "a string or a list of strings")),
        }
    }
}

fn wrong(key: &str, wanted: &str) -> ApiError {
    ApiError::invalid(format!("`{key}` must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_its_key() {
        let Value::Object(map) = json!({"n": -1, "s": 1, "w": "x", "l": ["a", 1], "none": null}) else {
            unreachable!()
        };
        let fields = Fields(map);
        for refused in [
            fields.number("n", 1, 9).err(),
            fields.text("s").err(),
            fields.word("w", &["a", "b"]).err(),
            fields.texts("l").err(),
        ] {
            assert_eq!(refused.unwrap().status, StatusCode::UNPROCESSABLE_ENTITY);
        }
        assert!(fields.get("none").is_none() && fields.map("none").unwrap().is_empty());
    }
}
