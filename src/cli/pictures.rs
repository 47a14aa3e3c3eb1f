//! `graph` and `schema`.

use serde_json::{Value, json};

use super::args::{GraphArgs, PictureFormat, SchemaArgs};
use super::out::{Out, pretty};
use super::{Exit, Failed, plain};
use crate::app::{App, Settings};
use crate::graph::{Failure, Picture};
use crate::release::schema;

/// Draws a workflow, or a run.
pub async fn graph(app: &App, args: &GraphArgs, out: &Out) -> Result<Exit, Failed> {
    let Some(name) = &args.workflow else { return of_run(app, args, out).await };
    let workflow = app.workflow(name).map_err(plain)?;
    let graph = app.build(&workflow).map_err(plain)?;
    let picture = drawn(&Picture::of(&graph, None), args.format);
    if args.strict {
        workflow.refuse_warnings(&graph).map_err(plain)?;
    }
    let warnings = workflow.warnings(&graph);
    out.data(&json!({"workflow": graph.name(), "picture": picture, "warnings": warnings}), || picture.clone())?;
    out.warn(&warnings);
    Ok(Exit::Done)
}

async fn of_run(app: &App, args: &GraphArgs, out: &Out) -> Result<Exit, Failed> {
    let thread = app.find_thread(args.run.as_deref().unwrap_or_default()).await.map_err(plain)?;
    let (graph, picture) = app.picture_of(&thread).await.map_err(|f| (f, Some(thread.id.clone())))?;
    let picture = drawn(&picture, args.format);
    let value = json!({"workflow": graph.name(), "thread": thread.id, "picture": picture, "warnings": []});
    out.data_of(&thread.id, &value, || picture.clone())?;
    Ok(Exit::Done)
}

fn drawn(picture: &Picture, format: PictureFormat) -> String {
    match format {
        PictureFormat::Mermaid => picture.mermaid(),
        PictureFormat::Dot => picture.dot(),
        PictureFormat::Svg => picture.svg(),
    }
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
