//! Places in a JSON document: `$.rows[*].label`.

use std::fmt;

use thiserror::Error;

/// A step from a value to one inside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Of an object.
    Key(String),
    /// Of a list.
    Index(usize),
    /// Any key or index; in patterns only.
    Any,
}

/// A pattern of places, with `*` for any key or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Step>);

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{path}` is not a path, which begins with `$` and goes on with `.key`, `['key']`, `[0]`, `[*]` or `.*`")]
pub struct PathError {
    /// The path.
    pub path: String,
}

impl Pattern {
    /// Reads `$.rows[*]['a key']`.
    pub(super) fn parse(path: &str) -> Result<Self, PathError> {
        let fail = || PathError { path: path.to_owned() };
        let mut rest = path.trim().strip_prefix('$').ok_or_else(fail)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = next(rest).ok_or_else(fail)?;
            steps.push(step);
            rest = after;
        }
        Ok(Self(steps))
    }

    /// Whether a place is the pattern's, or inside of one that is.
    pub(super) fn covers(&self, place: &[Step]) -> bool {
        self.0.len() <= place.len() && self.agrees(place)
    }

    /// Whether one of the pattern's places could be this one, inside of it, or around it.
    pub(super) fn touches(&self, place: &[Step]) -> bool {
        self.agrees(place)
    }

    fn agrees(&self, place: &[Step]) -> bool {
        self.0.iter().zip(place).all(|(pattern, step)| *pattern == Step::Any || pattern == step)
    }

    /// All values at the pattern's places.
    pub(super) fn values<'a>(&self, value: &'a serde_json::Value) -> Vec<&'a serde_json::Value> {
        use serde_json::Value::{Array, Object};
        self.0.iter().fold(vec![value], |values, step| {
            let inside = |value: &'a serde_json::Value| -> Vec<&'a serde_json::Value> {
                match (step, value) {
                    (Step::Key(key), Object(object)) => object.get(key).into_iter().collect(),
                    (Step::Index(index), Array(list)) => list.get(*index).into_iter().collect(),
                    (Step::Any, Object(object)) => object.values().collect(),
                    (Step::Any, Array(list)) => list.iter().collect(),
                    _ => Vec::new(),
                }
            };
            values.into_iter().flat_map(inside).collect()
        })
    }
}

/// The next step of a path, and what follows it.
fn next(path: &str) -> Option<(Step, &str)> {
    if let Some(quoted) = path.strip_prefix("['") {
        let (key, after) = quoted.split_once("']")?;
        return Some((Step::Key(key.to_owned()), after));
    }
    if let Some(index) = path.strip_prefix('[') {
        let (index, after) = index.split_once(']')?;
        let step = if index == "*" { Step::Any } else { Step::Index(index.parse().ok()?) };
        return Some((step, after));
    }
    let name = path.strip_prefix('.')?;
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (key, after) = name.split_at(end);
    match key {
        "" => None,
        "*" => Some((Step::Any, after)),
        key => Some((Step::Key(key.to_owned()), after)),
    }
}

/// A place as a path.
pub(super) struct Place<'a>(pub(super) &'a [Step]);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|step| match step {
            Step::Key(key) if !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                write!(f, ".{key}")
            }
            Step::Key(key) => write!(f, "['{key}']"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Any => f.write_str("[*]"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let pattern = Pattern::parse("$.rows[*]['a key'][0].*").expect("a path");
        assert_eq!(Place(&pattern.0).to_string(), "$.rows[*]['a key'][0][*]");
        for wrong in ["", "rows", "$rows", "$..a", "$[x]", "$['a"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn finds_values() {
        let json = serde_json::json!({"rows": [{"p": 1}, {"p": 2}, {"q": 3}]});
        let at = |path: &str| Pattern::parse(path).expect("a path").values(&json).len();
        assert_eq!((at("$.rows[*].p"), at("$.rows[1]"), at("$"), at("$.none")), (2, 1, 1, 0));
    }
}
