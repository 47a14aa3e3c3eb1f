//! JSON ⇄ CEL. Whole numbers stay whole, doubles stay doubles; what JSON cannot hold is an error, never a guess.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value as Cel;
use cel::objects::Key;
use serde_json::{Map, Number, Value};

/// A JSON value as CEL sees it.
pub(super) fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(int), _) => Cel::Int(int),
            (None, Some(large)) => Cel::UInt(large),
            // A JSON number that is no integer is a double.
            (None, None) => Cel::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => Cel::String(Arc::new(s.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields: HashMap<String, Cel> = fields.iter().map(|(k, v)| (k.clone(), to_cel(v))).collect();
            fields.into()
        }
    }
}

/// A CEL value as JSON. The error says what JSON has no place for.
pub(super) fn to_json(value: &Cel) -> Result<Value, String> {
    match value {
        Cel::Null => Ok(Value::Null),
        Cel::Bool(b) => Ok(Value::Bool(*b)),
        Cel::Int(i) => Ok(Value::from(*i)),
        Cel::UInt(u) => Ok(Value::from(*u)),
        Cel::Float(f) => Number::from_f64(*f).map(Value::Number).ok_or_else(|| format!("{f} is no JSON number")),
        Cel::String(s) => Ok(Value::String(s.as_ref().clone())),
        Cel::List(items) => items.iter().map(to_json).collect::<Result<Vec<_>, _>>().map(Value::Array),
        Cel::Map(map) => {
            let mut object = Map::new();
            for (key, value) in map.map.iter() {
                let Key::String(key) = key else {
                    return Err(format!("a map's keys must be strings, found {}", word(&key.into())));
                };
                object.insert(key.as_ref().clone(), to_json(value)?);
            }
            Ok(Value::Object(object))
        }
        other => Err(format!("a value of type {} has no place in JSON", word(other))),
    }
}

/// The type of a CEL value in CEL's words.
pub(super) fn word(value: &Cel) -> String {
    value.type_of().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways_exactly() {
        let value = json!({
            "int": -3, "min": i64::MIN, "large": u64::MAX, "double": 2.0, "small": 1e-9, "null": null, "yes": true,
            "list": [1, [2.5, "x"], {}], "text": "ä\n", "map": {"a": {"b": []}},
        });
        assert_eq!(to_json(&to_cel(&value)).unwrap(), value);
        assert!(to_json(&to_cel(&value)).unwrap()["double"].is_f64());
        assert!(to_json(&Cel::Float(f64::NAN)).is_err());
        assert!(to_json(&Cel::Map(HashMap::from([(1_i64, Cel::Null)]).into())).is_err());
    }
}
