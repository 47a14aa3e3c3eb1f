//! The API for people: what `/openapi.json` says, to be read. Made once, from the same document.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::assets::{Assets, assets};
use super::error::PageError;
use super::html;

/// What the names of schemas begin with where they are referred to.
const SCHEMAS: &str = "#/components/schemas/";

#[derive(Template)]
#[template(path = "docs.html")]
struct DocsPage<'a> {
    assets: &'static Assets,
    version: &'a str,
    groups: Vec<Group>,
    schemas: Vec<Schema>,
}

/// Requests about the same.
#[derive(Debug, PartialEq)]
struct Group {
    name: String,
    operations: Vec<Operation>,
}

/// One request.
#[derive(Debug, PartialEq)]
struct Operation {
    method: String,
    path: String,
    summary: String,
    takes: Option<Shape>,
    gives: Option<Shape>,
    /// In words, where it is no JSON of a known shape.
    answer: &'static str,
}

/// A schema, or a list of what it describes.
#[derive(Debug, PartialEq)]
struct Shape {
    name: String,
    many: bool,
}

/// What a body looks like.
struct Schema {
    name: String,
    text: String,
}

/// The page of an OpenAPI document, as the server answers it to everybody.
pub(in crate::server) fn docs(document: &Value) -> Response {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    let schemas = schemas.map(|(name, schema)| Schema { name: name.clone(), text: format!("{schema:#}") });
    let page = DocsPage {
        assets: assets(),
        version: document["info"]["version"].as_str().unwrap_or_default(),
        groups: groups(document),
        schemas: schemas.collect(),
    };
    match page.render() {
        Ok(text) => html(StatusCode::OK, text),
        Err(error) => PageError::from(error).into_response(),
    }
}

fn groups(document: &Value) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let name = group_of(path);
        let operations = methods.as_object().into_iter().flatten();
        let operations = operations.map(|(method, said)| operation(method, path, said));
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.operations.extend(operations),
            None => groups.push(Group { name, operations: operations.collect() }),
        }
    }
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    groups
}

/// Runs are a matter of their own, in whatever thread; else the first part of the path.
fn group_of(path: &str) -> String {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default();
    match first {
        "ok" | "info" => "server".to_owned(),
        "threads" if parts.any(|part| part == "runs") => "runs".to_owned(),
        first => first.to_owned(),
    }
}

fn operation(method: &str, path: &str, said: &Value) -> Operation {
    let responses = &said["responses"];
    let content = &responses["200"]["content"];
    let answer = match () {
        () if responses.get("204").is_some() => "nothing (204)",
        () if content.get("text/event-stream").is_some() => "server-sent events",
        () if content.get("application/yaml").is_some() => "YAML",
        () => "JSON",
    };
    Operation {
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: said["summary"].as_str().unwrap_or_default().to_owned(),
        takes: shape(&said["requestBody"]["content"]["application/json"]["schema"]),
        gives: shape(&content["application/json"]["schema"]),
        answer,
    }
}

fn shape(schema: &Value) -> Option<Shape> {
    let many = schema.get("items").is_some();
    let of = if many { &schema["items"] } else { schema };
    let name = of["$ref"].as_str()?.strip_prefix(SCHEMAS)?.to_owned();
    Some(Shape { name, many })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_told_in_groups() {
        let list = json!({"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Run"}}});
        let document = json!({
            "info": {"version": "1"},
            "paths": {
                "/threads/{t}/runs": {"get": {"summary": "Its <runs>", "responses": {"200": {"content": {"application/json": list}}}}},
                "/threads/{t}": {"delete": {"summary": "Removes it", "responses": {"204": {}}}},
                "/ok": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {}}}}}}},
            },
            "components": {"schemas": {"Run": {"type": "object"}}},
        });
        let told = groups(&document);
        let names: Vec<&str> = told.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["runs", "server", "threads"]);
        let run = &told[0].operations[0];
        assert_eq!((run.method.as_str(), run.answer), ("GET", "JSON"));
        assert_eq!(run.gives, Some(Shape { name: "Run".into(), many: true }));
        assert_eq!((told[2].operations[0].answer, &told[1].operations[0].gives), ("nothing (204)", &None));
        assert_eq!(docs(&document).status(), StatusCode::OK);
    }
}
