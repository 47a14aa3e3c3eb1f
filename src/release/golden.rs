//! Golden cases: a request, the answer it must get, and the comparison of the two.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::units::Millis;

/// Largest absolute difference of two fractions where a case names none: the noise of float arithmetic.
pub const DEFAULT_TOLERANCE: f64 = 1e-6;

/// At most so many differences are listed; a wrong answer of a thousand numbers is understood from the first few.
pub const MAX_DIFFERENCES: usize = 20;

/// One request to a version under test and what its answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeCase {
    /// A name for people, unique among the cases.
    pub name: String,
    /// Path with its leading slash, without the model's prefix, e.g. `/predict`.
    pub path: String,
    /// JSON body; with one the request is a POST, without one a GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// The JSON answer; absent: any answer. A written `null` demands the answer `null`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expect: Option<Value>,
    /// Largest absolute difference of two numbers; absent: 0.000001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub tolerance: Option<f64>,
    /// The HTTP status; absent: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<u16>,
    /// How long the answer may take; absent: 10 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
}

impl SmokeCase {
    /// The expected HTTP status.
    pub fn expected_status(&self) -> u16 {
        self.status.unwrap_or(200)
    }

    /// How long the answer may take, in milliseconds.
    pub fn timeout_ms(&self) -> u64 {
        self.timeout.map_or(10_000, |timeout| timeout.0)
    }

    /// How an answer's JSON differs from the expected one; empty when it does not, or when any answer will do.
    pub fn differences(&self, got: &Value) -> Vec<Difference> {
        let tolerance = self.tolerance.unwrap_or(DEFAULT_TOLERANCE);
        self.expect.as_ref().map(|expect| compare(expect, got, tolerance)).unwrap_or_default()
    }
}

/// Reads a present key, `null` included, as `Some`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// One place where an answer is not the expected one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Where, as JSON path: `$.rows[2].label`.
    pub path: String,
    /// What was expected there; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    /// What is there; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<Value>,
    /// The difference in words.
    pub why: String,
}

/// Every difference between `expect` and `got`, in the order of the document, at most [`MAX_DIFFERENCES`]. Numbers are equal when they
/// differ by at most `tolerance`, absolutely; whole numbers and fractions are one kind (`0` is `0.0`). Missing keys, additional
/// keys and lengths of lists count.
pub fn compare(expect: &Value, got: &Value, tolerance: f64) -> Vec<Difference> {
    let mut found = Vec::new();
    visit(expect, got, tolerance, "$", &mut found);
    found
}

fn visit(expect: &Value, got: &Value, tolerance: f64, path: &str, found: &mut Vec<Difference>) {
    if found.len() >= MAX_DIFFERENCES {
        return;
    }
    match (expect, got) {
        (Value::Number(left), Value::Number(right)) => {
            let off = distance(left, right);
            if off > tolerance {
                push(found, path, Some(expect), Some(got), format!("differs by {off}, allowed {tolerance}"));
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                let why = format!("has {} items, expected {}", right.len(), left.len());
                push(found, path, Some(expect), Some(got), why);
                return;
            }
            for (index, (a, b)) in left.iter().zip(right).enumerate() {
                visit(a, b, tolerance, &format!("{path}[{index}]"), found);
            }
        }
        (Value::Object(left), Value::Object(right)) => {
            for (key, a) in left {
                let place = child(path, key);
                match right.get(key) {
                    Some(b) => visit(a, b, tolerance, &place, found),
                    None => push(found, &place, Some(a), None, "is missing".to_owned()),
                }
            }
            for (key, b) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                push(found, &child(path, key), None, Some(b), "was not expected".to_owned());
            }
        }
        (a, b) if a == b => {}
        (a, b) if kind(a) == kind(b) => push(found, path, Some(a), Some(b), "differs".to_owned()),
        (a, b) => push(found, path, Some(a), Some(b), format!("is {}, expected {}", kind(b), kind(a))),
    }
}

fn push(found: &mut Vec<Difference>, path: &str, expected: Option<&Value>, got: Option<&Value>, why: String) {
    if found.len() < MAX_DIFFERENCES {
        found.push(Difference { path: path.to_owned(), expected: expected.cloned(), got: got.cloned(), why });
    }
}

/// How far two numbers are apart. Whole numbers are subtracted as such: as floats, large ones would run together.
fn distance(left: &serde_json::Number, right: &serde_json::Number) -> f64 {
    let whole = |n: &serde_json::Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(a), Some(b)) => (a - b).abs() as f64,
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs(),
            _ => f64::INFINITY,
        },
    }
}

fn child(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { format!("{path}.{key}") } else { format!("{path}[{}]", Value::from(key)) }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn paths(expect: &Value, got: &Value) -> Vec<String> {
        compare(expect, got, 1e-6).into_iter().map(|d| format!("{} {}", d.path, d.why)).collect()
    }

    #[test]
    fn equal_within_tolerance() {
        assert!(paths(&json!([0, 1.0]), &json!([0.0, 1.000_000_1])).is_empty());
        assert_eq!(compare(&json!(0.5), &json!(0.6), 0.05).len(), 1);
        assert!(compare(&json!(0.5), &json!(0.54), 0.05).is_empty());
        assert_eq!(compare(&json!(9_007_199_254_740_993_i64), &json!(9_007_199_254_740_992_i64), 0.0).len(), 1);
    }

    #[test]
    fn places_and_words() {
        let expect = json!({"rows": [{"label": "a", "p": 0.5}], "n": 1});
        let got = json!({"rows": [{"label": "b", "p": "0.5"}], "odd key": 2});
        assert_eq!(
            paths(&expect, &got),
            [
                "$.n is missing",
                "$.rows[0].label differs",
                "$.rows[0].p is a string, expected a number",
                "$[\"odd key\"] was not expected"
            ]
        );
        assert_eq!(paths(&json!([1, 2]), &json!([1])), ["$ has 1 items, expected 2"]);
        assert_eq!(paths(&json!([0]), &json!([true])), ["$[0] is a boolean, expected a number"]);
    }

    #[test]
    fn a_long_wrong_answer_is_cut() {
        let expect = json!(vec![0; 1000]);
        assert_eq!(compare(&expect, &json!(vec![1; 1000]), 0.0).len(), MAX_DIFFERENCES);
    }

    #[test]
    fn a_written_null_is_an_expectation() {
        let case: SmokeCase = serde_json::from_value(json!({"name": "n", "path": "/p", "expect": null})).expect("case");
        assert_eq!(case.differences(&json!(1)).len(), 1);
        let case: SmokeCase = serde_json::from_value(json!({"name": "n", "path": "/p"})).expect("case");
        assert!(case.differences(&json!(1)).is_empty());
        assert_eq!((case.expected_status(), case.timeout_ms()), (200, 10_000));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e6..1e6_f64).prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself(value in any_json()) {
            prop_assert!(compare(&value, &value, 0.0).is_empty());
        }

        #[test]
        fn without_tolerance_only_equal_documents_pass(a in any_json(), b in any_json()) {
            if compare(&a, &b, 0.0).is_empty() {
                prop_assert!(compare(&b, &a, 0.0).is_empty());
            } else {
                prop_assert_ne!(a, b);
            }
        }
    }
}
