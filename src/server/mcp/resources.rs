//! Releases, runs and schemas as resources.

use rmcp::model::{ErrorData, ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::Value;

use super::super::authorise::{Action, Subject, authorise};
use super::looks::of_ledger;
use super::{Mcp, call};
use crate::graph::{Failure, ThreadId};
use crate::release::{ReleaseFilter, schema};

const RELEASES: &str = "tidegate://releases/";
const THREADS: &str = "tidegate://threads/";
const SCHEMAS: &str = "tidegate://schemas/";
const JSON: &str = "application/json";
/// Most releases that are listed, the newest; all can be read.
const MOST_LISTED: u32 = 50;
/// Longest text of a resource: a client keeps it in memory, and a model has to read it.
const MOST_BYTES: usize = 8 * 1024 * 1024;

fn told(failure: &Failure) -> ErrorData {
    let message = call::words(failure);
    match failure.code.as_str() {
        "no_thread" | "release_unknown" => ErrorData::resource_not_found(message, None),
        _ => ErrorData::internal_error(message, None),
    }
}

fn allowed(mcp: &Mcp, context: &RequestContext<RoleServer>, subject: &Subject) -> Result<(), ErrorData> {
    let caller = mcp.caller(context)?;
    authorise(&caller, Action::Look, subject).map_err(|refused| ErrorData::invalid_request(refused.detail, None))
}

/// The schemas, and the newest releases with their runs.
pub async fn list(mcp: &Mcp, context: &RequestContext<RoleServer>) -> Result<ListResourcesResult, ErrorData> {
    allowed(mcp, context, &Subject::Server)?;
    let mut all: Vec<Resource> = schema::names()
        .into_iter()
        .map(|name| {
            let about = "A JSON Schema of what Tidegate reads or hands back";
            Resource::new(format!("{SCHEMAS}{name}"), format!("schema: {name}"))
                .with_description(about)
                .with_mime_type(JSON)
        })
        .collect();
    let newest = ReleaseFilter { limit: Some(MOST_LISTED), ..ReleaseFilter::default() };
    let rows = mcp.app.ledger().list(&newest).await.map_err(|e| told(&of_ledger(e)))?;
    for row in rows {
        let id = &row.deployment_id;
        let version = row.model_version.as_deref().unwrap_or("–");
        let name = format!("{} of {} {version}: {}", row.kind.as_str(), row.model_name, row.status.as_str());
        let record = format!("the run of the {name}");
        all.push(Resource::new(format!("{RELEASES}{id}"), name).with_mime_type(JSON));
        all.push(Resource::new(format!("{THREADS}{id}"), record).with_mime_type(JSON));
    }
    Ok(ListResourcesResult::with_all_items(all))
}

/// What can be read by an id.
pub fn templates() -> Vec<ResourceTemplate> {
    let template = |uri: String, name: &str, about: &str| {
        ResourceTemplate::new(uri, name).with_description(about).with_mime_type(JSON)
    };
    vec![
        template(format!("{RELEASES}{{id}}"), "release", "A release's row, with its plan and its contract"),
        template(format!("{THREADS}{{id}}"), "run", "A run's whole record, which `tidegate run replay` can replay"),
        template(format!("{SCHEMAS}{{name}}"), "schema", "A JSON Schema of what Tidegate reads or hands back"),
    ]
}

/// A resource's text.
pub async fn read(mcp: &Mcp, uri: &str, context: &RequestContext<RoleServer>) -> Result<ReadResourceResult, ErrorData> {
    let missing = || ErrorData::resource_not_found(format!("there is no resource `{uri}`"), None);
    let value: Value = if let Some(id) = uri.strip_prefix(RELEASES) {
        allowed(mcp, context, &Subject::Thread(id.to_owned()))?;
        let row = mcp.app.ledger().get(id).await.map_err(|e| told(&of_ledger(e)))?;
        serde_json::to_value(row.ok_or_else(missing)?).map_err(|e| ErrorData::internal_error(e.to_string(), None))?
    } else if let Some(id) = uri.strip_prefix(THREADS) {
        allowed(mcp, context, &Subject::Thread(id.to_owned()))?;
        let export = mcp.app.export(&ThreadId::from(id)).await.map_err(|failure| told(&failure))?;
        serde_json::to_value(export).map_err(|e| ErrorData::internal_error(e.to_string(), None))?
    } else {
        allowed(mcp, context, &Subject::Server)?;
        uri.strip_prefix(SCHEMAS).and_then(schema::schema).ok_or_else(missing)?
    };
    let text = value.to_string();
    if text.len() > MOST_BYTES {
        let message = format!("{uri} has {} bytes, more than the {MOST_BYTES} of a resource", text.len());
        return Err(ErrorData::invalid_request(format!("{message}; use `tidegate run export`"), None));
    }
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(JSON)]))
}
