//! `/openapi.json`: told from the routes as they are registered, so that neither has what the other has not.

use serde_json::{Map, Value, json};

/// The shapes of bodies and answers.
const SCHEMAS: &str = include_str!("schemas.json");

/// What a route says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    /// What it does.
    pub summary: &'static str,
    /// The schema of its body; empty: it has none.
    pub takes: &'static str,
    /// The schema of its answer: `[Name]` a list of these; `stream` server-sent events; `yaml` YAML; `none` no body; empty: any JSON.
    pub gives: &'static str,
}

/// The document, as far as it is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Document(Map<String, Value>);

impl Document {
    /// One more route.
    pub fn add(&mut self, method: &str, path: &str, said: Said) {
        let Said { summary, takes, gives } = said;
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let refused = json!({"description": "refused", "content": content("application/json", reference("Error"))});
        let (status, answered) = match gives {
            "none" => ("204", json!({"description": "done"})),
            "stream" => (
                "200",
                json!({"description": "events", "content": content("text/event-stream", json!({"type": "string"}))}),
            ),
            "yaml" => (
                "200",
                json!({"description": "done", "content": content("application/yaml", json!({"type": "string"}))}),
            ),
            shape => ("200", json!({"description": "done", "content": content("application/json", shaped(shape))})),
        };
        let mut operation = json!({
            "summary": summary, "parameters": parameters, "responses": {status: answered, "default": refused},
        });
        if !takes.is_empty() {
            operation["requestBody"] = json!({"content": content("application/json", shaped(takes))});
        }
        let entry = self.0.entry(path.to_owned()).or_insert_with(|| json!({}));
        entry[method] = operation;
    }

    /// All of it.
    pub fn told(&self) -> Value {
        let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
        json!({
            "openapi": "3.1.0",
            "info": {"title": "Tidegate", "version": env!("CARGO_PKG_VERSION"), "description": "The LangGraph Server API over a home's workflows"},
            "paths": self.0, "components": {"schemas": schemas},
        })
    }
}

fn content(kind: &str, schema: Value) -> Value {
    Value::Object(Map::from_iter([(kind.to_owned(), json!({"schema": schema}))]))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn shaped(shape: &str) -> Value {
    match shape.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(item) => json!({"type": "array", "items": reference(item)}),
        None if shape.is_empty() => json!({}),
        None => reference(shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_only_schemas_that_it_has() {
        let mut document = Document::default();
        document.add("get", "/threads/{thread}", Said { summary: "s", takes: "ThreadCreate", gives: "[Thread]" });
        let told = document.told();
        let schemas = told["components"]["schemas"].as_object().unwrap();
        assert!(schemas.len() > 15);
        let text = told.to_string();
        for named in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(schemas.contains_key(named), "{named}");
        }
        let operation = &told["paths"]["/threads/{thread}"]["get"];
        assert_eq!(operation["parameters"][0]["name"], "thread");
    }
}
