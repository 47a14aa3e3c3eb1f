//! Schemas in words that every client understands: some turn them into dialects that know one type at a place and no formats of Rust's.

use std::sync::Arc;

use rmcp::model::Tool;
use serde_json::{Map, Value, json};

/// A tool whose schemas say the same with fewer words.
pub fn portable(mut tool: Tool) -> Tool {
    tool.input_schema = told(&tool.input_schema, absent);
    tool.output_schema = tool.output_schema.map(|schema| told(&schema, branches));
    tool
}

/// How a schema says that something may be null.
type Nulls = fn(&mut Map<String, Value>);

fn told(schema: &Map<String, Value>, nulls: Nulls) -> Arc<Map<String, Value>> {
    let mut schema = schema.clone();
    walk(&mut schema, nulls);
    Arc::new(schema)
}

fn walk(schema: &mut Map<String, Value>, nulls: Nulls) {
    for value in schema.values_mut() {
        match value {
            Value::Object(inner) => walk(inner, nulls),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| walk(item, nulls)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    const OF_RUST: [&str; 6] = ["uint", "uint32", "uint64", "int32", "int64", "double"];
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| OF_RUST.contains(&format)) {
        schema.remove("format");
    }
    nulls(schema);
}

fn is_null(schema: &Value) -> bool {
    *schema == json!({"type": "null"})
}

/// The types beside null, where a schema has a list of both.
fn beside_null(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    let types = schema.get("type")?.as_array()?;
    let others: Vec<Value> = types.iter().filter(|name| *name != "null").cloned().collect();
    (others.len() < types.len()).then_some(others)
}

/// What may be left out need not be null as well; a null counts as left out all the same.
fn absent(schema: &mut Map<String, Value>) {
    if let Some(mut others) = beside_null(schema) {
        let one = if others.len() == 1 { others.remove(0) } else { Value::Array(others) };
        schema.insert("type".to_owned(), one);
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    let Some(Value::Array(any)) = schema.get_mut("anyOf") else { return };
    any.retain(|branch| !is_null(branch));
    if let [Value::Object(only)] = any.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        schema.extend(only);
    }
}

/// What is always there and may be null: a branch for each type.
fn branches(schema: &mut Map<String, Value>) {
    let Some(others) = beside_null(schema) else { return };
    schema.remove("type");
    let any: Vec<Value> = others.into_iter().chain([json!("null")]).map(|name| json!({"type": name})).collect();
    schema.insert("anyOf".to_owned(), Value::Array(any));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(schema: Value, nulls: Nulls) -> Value {
        let Value::Object(mut schema) = schema else { unreachable!() };
        walk(&mut schema, nulls);
        Value::Object(schema)
    }

    #[test]
    fn nulls_are_said_in_a_portable_way() {
        let schema = json!({"properties": {
            "a": {"type": ["string", "null"], "default": null, "description": "d"},
            "b": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}], "description": "d"},
            "c": {"type": ["integer", "null"], "format": "uint32", "minimum": 0},
        }});
        let plain = json!({"properties": {
            "a": {"type": "string", "description": "d"},
            "b": {"$ref": "#/$defs/B", "description": "d"},
            "c": {"type": "integer", "minimum": 0},
        }});
        assert_eq!(walked(schema.clone(), absent), plain);
        let told = walked(schema, branches);
        assert_eq!(told["properties"]["a"]["anyOf"], json!([{"type": "string"}, {"type": "null"}]));
        assert_eq!(told["properties"]["b"]["anyOf"], json!([{"$ref": "#/$defs/B"}, {"type": "null"}]));
        assert_eq!(told["properties"]["c"], json!({"anyOf": [{"type": "integer"}, {"type": "null"}], "minimum": 0}));
    }
}
