//! A request made up from a JSON Schema, for services that come without golden cases.

use serde_json::{Map, Value, json};

/// Deepest nesting that is followed; schemas may be recursive.
const MAX_DEPTH: usize = 8;

/// Longest side of a made-up tensor.
const MAX_SIDE: i64 = 4096;

/// A small value that a schema admits, as far as types, enums, defaults and required properties go.
pub fn sample_request(schema: &Value) -> Value {
    sample(schema, schema, 0)
}

fn sample(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(given) = schema.get("default").or_else(|| schema.get("const")) {
        return given.clone();
    }
    if let Some(first) = schema["enum"].as_array().or_else(|| schema["examples"].as_array()).and_then(|all| all.first())
    {
        return first.clone();
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
        return sample(target, root, depth + 1);
    }
    if let Some(first) = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema[*key].as_array()?.first()) {
        return sample(first, root, depth + 1);
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, root, depth),
        Some("array" | "tensor") => array(schema, root, depth),
        Some("string") => json!("a"),
        Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1.0)),
        Some("boolean") => json!(false),
        _ if schema.get("properties").is_some() => object(schema, root, depth),
        _ => Value::Null,
    }
}

fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let wanted = properties.filter(|(name, _)| required.contains(&name.as_str()));
    Value::Object(wanted.map(|(name, of)| (name.clone(), sample(of, root, depth + 1))).collect::<Map<_, _>>())
}

fn array(schema: &Value, root: &Value, depth: usize) -> Value {
    if let Some(shape) = schema["shape"].as_array() {
        return tensor(shape);
    }
    match schema.get("items") {
        Some(items) => json!([sample(items, root, depth + 1)]),
        // BentoML describes a NumPy array without its shape: a row of one number is the smallest table.
        None => json!([[1.0]]),
    }
}

/// Ones in the shape that a tensor's schema tells; an open side is 1, and a side is at most [`MAX_SIDE`].
fn tensor(shape: &[Value]) -> Value {
    let side = |of: &Value| usize::try_from(of.as_i64().unwrap_or(1).clamp(1, MAX_SIDE)).unwrap_or(1);
    shape.iter().rev().take(MAX_DEPTH).fold(json!(1.0), |inner, of| Value::Array(vec![inner; side(of)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_what_is_required() {
        let schema = json!({
            "type": "object", "required": ["text", "k", "rows"],
            "properties": {
                "text": {"type": "string"}, "k": {"type": "integer", "minimum": 3}, "optional": {"type": "string"},
                "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
            },
            "$defs": {"row": {"type": "object", "required": ["x"], "properties": {"x": {"type": "number", "default": 2.5}}}},
        });
        assert_eq!(sample_request(&schema), json!({"text": "a", "k": 3, "rows": [{"x": 2.5}]}));
    }

    #[test]
    fn a_tensor_has_its_shape() {
        let schema = json!({"type": "tensor", "format": "numpy-array", "shape": [-1, 4]});
        assert_eq!(sample_request(&schema), json!([[1.0, 1.0, 1.0, 1.0]]));
    }

    #[test]
    fn ends_on_recursion() {
        let schema = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}});
        assert_eq!(sample_request(&schema), Value::Null);
    }
}
