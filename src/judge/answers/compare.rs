//! Two answers to the same request, and the first place where they differ.

use serde_json::{Number, Value};

use super::path::{Pattern, Place, Step};
use crate::release::Difference;

/// What is compared, and how exactly.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    pub(super) compare: Vec<Pattern>,
    pub(super) ignore: Vec<Pattern>,
    pub(super) absolute: f64,
    pub(super) relative: f64,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The first difference, in the order of the document.
    pub(super) first: Option<Difference>,
    /// Values that were compared.
    pub(super) compared: u64,
}

impl Comparison {
    /// Compares the candidate's answer with the baseline's.
    pub(super) fn of(&self, baseline: &Value, candidate: &Value) -> Found {
        let mut found = Found::default();
        self.visit(Some(baseline), Some(candidate), &mut Vec::new(), &mut found);
        found
    }

    fn visit(&self, baseline: Option<&Value>, candidate: Option<&Value>, place: &mut Vec<Step>, found: &mut Found) {
        let ignored = self.ignore.iter().any(|pattern| pattern.covers(place));
        let touched = self.compare.is_empty() || self.compare.iter().any(|pattern| pattern.touches(place));
        if found.first.is_some() || ignored || !touched {
            return;
        }
        match (baseline, candidate) {
            (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
                let more = theirs.iter().filter(|(key, _)| !ours.contains_key(*key));
                for (key, _) in ours.iter().chain(more) {
                    place.push(Step::Key(key.clone()));
                    self.visit(ours.get(key), theirs.get(key), place, found);
                    place.pop();
                }
            }
            (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
                for index in 0..ours.len().max(theirs.len()) {
                    place.push(Step::Index(index));
                    self.visit(ours.get(index), theirs.get(index), place, found);
                    place.pop();
                }
            }
            (ours, theirs) => {
                found.compared += 1;
                found.first = self.difference(ours, theirs).map(|why| Difference {
                    path: Place(place).to_string(),
                    expected: ours.cloned(),
                    got: theirs.cloned(),
                    why,
                });
            }
        }
    }

    /// Why two values that are not both objects or lists differ.
    fn difference(&self, baseline: Option<&Value>, candidate: Option<&Value>) -> Option<String> {
        match (baseline, candidate) {
            (Some(Value::Number(ours)), Some(Value::Number(theirs))) => self.apart(ours, theirs),
            (Some(ours), Some(theirs)) if ours == theirs => None,
            (Some(ours), Some(theirs)) if kind(ours) == kind(theirs) => Some("differs".to_owned()),
            (Some(ours), Some(theirs)) => Some(format!("is {}, the baseline's is {}", kind(theirs), kind(ours))),
            (Some(_), None) => Some("is missing".to_owned()),
            (None, Some(_)) => Some("the baseline does not have it".to_owned()),
            (None, None) => None,
        }
    }

    fn apart(&self, ours: &Number, theirs: &Number) -> Option<String> {
        if ours == theirs {
            return None;
        }
        let (Some(a), Some(b)) = (ours.as_f64(), theirs.as_f64()) else { return Some("differs".to_owned()) };
        let (apart, allowed) = ((a - b).abs(), self.absolute + self.relative * a.abs());
        // Large whole numbers run together as floats: not equal, yet no distance.
        let blurred = apart == 0.0 && ours.is_i64() == theirs.is_i64() && !ours.is_f64() && allowed < 1.0;
        (apart > allowed || blurred).then(|| format!("differs by {apart}, allowed {allowed}"))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
