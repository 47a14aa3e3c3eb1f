//! JSON Schemas that a workflow file holds values against: `answer` of an `ask`, the properties of `input`.

use jsonschema::Validator;
use serde_json::Value;

/// Most faults of one value that are told.
const MOST_TOLD: usize = 5;

/// Compiles a schema. The error says why it is none; a `$ref` to another document is none either: nothing is fetched.
pub(super) fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::validator_for(schema).map_err(|error| error.to_string())
}

/// What does not fit, each with its place in the value (empty: the value itself). The value is not repeated: it may be large.
pub(super) fn misfits(schema: &Validator, value: &Value) -> Vec<(String, String)> {
    let told = |error: jsonschema::ValidationError<'_>| match error.instance_path().to_string() {
        path if path.is_empty() => (String::new(), error.masked().to_string()),
        path => (format!(" at {path}"), error.masked().to_string()),
    };
    schema.iter_errors(value).take(MOST_TOLD).map(told).collect()
}
