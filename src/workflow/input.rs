//! The file's `input`: which channels an input writes, of which types, and what it must have.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::graph::{Channel, ChannelType, Failure, kind};

use super::fault::{Faults, under};
use super::{InputSpec, WorkflowFile, json_schema};

/// Checks an input against a resolved document and fills in defaults. Unknown keys are the engine's to refuse.
pub fn accept_input(document: &Value, mut input: Map<String, Value>) -> Result<Map<String, Value>, Failure> {
    let Some(spec) = document.get("input") else { return Ok(input) };
    let spec: InputSpec = serde_json::from_value(spec.clone()).map_err(|e| {
        Failure::new("document_damaged", "a workflow document has a bad `input`").because(e.to_string())
    })?;
    for (name, property) in &spec.properties {
        if let (Some(default), false) = (property.get("default"), input.contains_key(name)) {
            input.insert(name.clone(), default.clone());
        }
    }
    let mut wrong: Vec<String> =
        spec.required.iter().filter(|r| !input.contains_key(*r)).map(|r| missing(&spec, r)).collect();
    for (name, value) in &input {
        wrong.extend(spec.properties.get(name).into_iter().flat_map(|property| misfits(name, property, value)));
    }
    if wrong.is_empty() {
        return Ok(input);
    }
    let what = document.get("name").and_then(Value::as_str).unwrap_or("the workflow");
    Err(Failure::new("bad_input", format!("the input does not fit `{what}`"))
        .because(wrong.join("\n"))
        .hint("mend the input; the workflow file's `input` says what it takes"))
}

fn missing(spec: &InputSpec, name: &str) -> String {
    let about = spec.properties.get(name).and_then(|p| p.get("description")).and_then(Value::as_str);
    about.map_or_else(|| format!("`{name}` is required"), |about| format!("`{name}` is required: {about}"))
}

/// Everything that its JSON Schema says of a value.
fn misfits(name: &str, property: &Value, value: &Value) -> Vec<String> {
    if let Some(why) = misfit(name, property, value) {
        return vec![why];
    }
    // A thread may have begun with a schema that no file may have any more.
    let Ok(schema) = json_schema::validator(property) else { return Vec::new() };
    let told = |(place, why): (String, String)| format!("`{name}`{place}: {why}");
    json_schema::misfits(&schema, value).into_iter().map(told).collect()
}

/// Its type and its choices, in the words of this house.
fn misfit(name: &str, property: &Value, value: &Value) -> Option<String> {
    let types = types(property);
    if !types.is_empty() && !types.iter().any(|t| admits(t, value)) {
        return Some(format!("`{name}` must be {}, got {}", types.join(" or "), kind(value)));
    }
    let choices = property.get("enum")?.as_array()?;
    let told = || choices.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    (!choices.contains(value)).then(|| format!("`{name}` must be one of {}, got {value}", told()))
}

fn admits(word: &str, value: &Value) -> bool {
    match word {
        "null" => value.is_null(),
        other => channel_type(other).is_some_and(|t| t.admits(value)),
    }
}

fn types(property: &Value) -> Vec<&str> {
    match property.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn channel_type(word: &str) -> Option<ChannelType> {
    use ChannelType as T;
    [T::Integer, T::Number, T::String, T::Boolean, T::Array, T::Object].into_iter().find(|t| t.word() == word)
}

/// The graph's channels: the declared ones, and those that only the input declares.
pub(super) fn channels(file: &WorkflowFile, path: &[String], faults: &mut Faults) -> BTreeMap<String, Channel> {
    let mut channels = file.channels.clone();
    let Some(input) = &file.input else { return channels };
    if input.kind.as_deref().is_some_and(|kind| kind != "object") {
        let failure = Failure::new("bad_input_schema", "an input is an object").hint("write `type: object`");
        faults.push(under(path, ["input", "type"]), failure);
    }
    if input.additional_properties == Some(true) {
        let failure = Failure::new("bad_input_schema", "an input with unknown keys is always refused");
        faults.push(under(path, ["input", "additionalProperties"]), failure.hint("name every key under `properties`"));
    }
    for name in input.required.iter().filter(|name| !input.properties.contains_key(*name)) {
        let failure = Failure::new("bad_input_schema", format!("`{name}` is required, but is no property"));
        faults.push(under(path, ["input", "required"]), failure.hint("add it under `properties`"));
    }
    for (name, property) in &input.properties {
        if let Some(failure) = bad_property(name, property) {
            faults.push(under(path, ["input", "properties", name]), failure);
        }
        channels.entry(name.clone()).or_insert_with(|| Channel::last(declared(property)));
    }
    channels
}

fn declared(property: &Value) -> ChannelType {
    match types(property).as_slice() {
        [one] => channel_type(one).unwrap_or(ChannelType::Any),
        _ => ChannelType::Any,
    }
}

fn bad_property(name: &str, property: &Value) -> Option<Failure> {
    let bad = |why: String| Some(Failure::new("bad_input_schema", format!("property `{name}`: {why}")));
    if !property.is_object() {
        return bad(format!("a JSON Schema is an object, this is {}", kind(property)));
    }
    if let Some(unknown) = types(property).into_iter().find(|t| *t != "null" && channel_type(t).is_none()) {
        return bad(format!("there is no type `{unknown}`"));
    }
    property
        .get("default")
        .and_then(|default| misfit(name, property, default))
        .and_then(|why| bad(format!("its default: {why}")))
}

/// Why a property is no JSON Schema, or does not admit its own default. Faults that [`channels`] tells are left out.
pub(super) fn bad_schema(name: &str, property: &Value) -> Option<Failure> {
    if bad_property(name, property).is_some() {
        return None;
    }
    let bad = |why: String| Some(Failure::new("bad_input_schema", format!("property `{name}`: {why}")));
    if let Err(why) = json_schema::validator(property) {
        return bad(format!("this is no JSON Schema: {why}"));
    }
    let default = property.get("default")?;
    bad(format!("its default: {}", misfits(name, property, default).into_iter().next()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn holds_the_whole_schema() {
        let document = json!({"name": "w", "input": {"properties": {
            "n": {"type": "integer", "minimum": 1, "default": 2}, "s": {"type": "string", "maxLength": 3, "pattern": "^a"},
            "o": {"type": "object", "properties": {"deep": {"type": "array", "items": {"$ref": "#/$defs/small"}}},
                "$defs": {"small": {"maximum": 9}}},
            "odd": {"type": "string", "pattern": "("},
        }}});
        let accept = |input: Value| accept_input(&document, serde_json::from_value(input).unwrap());
        assert_eq!(json!(accept(json!({"s": "abc", "o": {"deep": [9]}})).unwrap()["n"]), 2);
        let refused = accept(json!({"n": 0, "s": "bcde", "o": {"deep": [1, 10]}})).unwrap_err();
        assert_eq!(refused.code, "bad_input");
        let cause = refused.cause.clone().unwrap();
        for part in ["`n`: ", "`s`: ", "`o` at /deep/1: "] {
            assert!(cause.contains(part), "{part} in {cause}");
        }
        assert!(cause.matches("`s`").count() == 2 && !cause.contains("bcde"), "all, and not their values: {cause}");
        assert!(accept(json!({"odd": "x"})).is_ok(), "a thread may have begun with a schema that is none");
    }

    #[test]
    fn holds_types_enums_and_required() {
        let document = json!({"name": "w", "input": {
            "properties": {
                "n": {"type": "integer"}, "s": {"type": ["string", "null"]}, "mode": {"enum": ["a", "b"], "default": "a"},
            },
            "required": ["n"],
        }});
        let accept = |input: Value| match input {
            Value::Object(map) => accept_input(&document, map),
            _ => unreachable!(),
        };
        assert_eq!(json!(accept(json!({"n": 1, "s": null})).unwrap()), json!({"n": 1, "s": null, "mode": "a"}));
        let wrong = accept(json!({"s": 1, "mode": "c"})).unwrap_err();
        assert_eq!(wrong.code, "bad_input");
        assert_eq!(wrong.cause.clone().unwrap().lines().count(), 3);
        assert!(accept(json!({"n": 1.5})).is_err());
    }
}
