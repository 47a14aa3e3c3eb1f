//! `graph` and `schema`.

use serde_json::{Value, json};

use super::args::{GraphArgs, PictureFormat, SchemaArgs};
use super::out::{Out, pretty};
use super::{Exit, Failed, plain};
use crate::app::{App, Settings};
use crate::graph::{Failure, dot, mermaid};
use crate::release::schema;

/// Draws a workflow.
pub fn graph(app: &App, args: &GraphArgs, out: &Out) -> Result<Exit, Failed> {
    let workflow = app.workflow(&args.workflow).map_err(plain)?;
    let graph = app.build(&workflow).map_err(plain)?;
    let picture = match args.format {
        PictureFormat::Mermaid => mermaid(&graph),
        PictureFormat::Dot => dot(&graph),
    };
    let warnings = graph.warnings();
    out.data(&json!({"workflow": graph.name(), "picture": picture, "warnings": warnings}), || picture.clone())?;
    for warning in warnings {
        out.note(&format!("warning: {}", warning.message));
    }
    Ok(Exit::Done)
}

/// Prints a JSON Schema, or the names of all.
pub fn schema(args: &SchemaArgs, out: &Out) -> Result<Exit, Failed> {
    let mut names: Vec<&str> = schema::names().to_vec();
    names.extend(["workflow", "settings", "command", "http"]);
    let Some(name) = &args.name else {
        out.data(&names, || names.join("\n"))?;
        return Ok(Exit::Done);
    };
    let found: Option<Value> = match name.as_str() {
        "workflow" => Some(crate::workflow::json_schema()),
        "settings" => Some(schemars::schema_for!(Settings).to_value()),
        other => crate::workflow::parameter_schema(other).or_else(|| schema::schema(other)),
    };
    let unknown =
        || Failure::new("usage", format!("there is no schema `{name}`")).hint(format!("one of: {}", names.join(", ")));
    let found = found.ok_or_else(|| plain(unknown()))?;
    out.data(&found, || pretty(&found))?;
    Ok(Exit::Done)
}
