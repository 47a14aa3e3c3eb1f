//! What tools take. No unknown key is ignored.

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::follow::MOST_SECONDS;
use crate::app::{Overrides, read_request, request_of};
use crate::graph::Failure;
use crate::release::{DeployRequest, EngineerInput, PlanState};

/// Most releases of one list.
pub const MOST_RELEASES: u32 = 200;

/// Arguments of `deploy_start`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The deployment engineer's document. Its paths are absolute. Either this or `path`.
    #[serde(default)]
    #[schemars(with = "Option<EngineerInput>")]
    pub request: Option<Value>,
    /// A project's folder with its tidegate.yaml, that file, or a request document, absolute. Either this or `request`.
    #[serde(default)]
    pub path: Option<String>,
    /// The target environment, one of those of the release file.
    #[serde(default)]
    pub environment: Option<String>,
    /// Waits at most so long for its end, or until it waits for a person. Absent: answers at once, with a task where the client knows
    /// tasks.
    #[serde(default)]
    #[schemars(range(min = 0, max = MOST_SECONDS))]
    pub wait_seconds: Option<u32>,
}

/// Arguments of `deploy_plan`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The deployment engineer's document. Its paths are absolute. Either this or `path`.
    #[serde(default)]
    #[schemars(with = "Option<EngineerInput>")]
    pub request: Option<Value>,
    /// A project's folder with its tidegate.yaml, that file, or a request document, absolute. Either this or `request`.
    #[serde(default)]
    pub path: Option<String>,
    /// The target environment, one of those of the release file.
    #[serde(default)]
    pub environment: Option<String>,
}

/// Arguments of `deploy_status`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The release: its thread_id, the beginning of it, or a model's name for its newest release.
    pub thread_id: String,
    /// Waits at most so long until it has ended, or asks a person anew. Absent: answers at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = MOST_SECONDS))]
    pub wait_seconds: Option<u32>,
}

/// Arguments of `deploy_cancel`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// The release, by its whole thread_id.
    pub thread_id: String,
    /// Why; recorded.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Arguments of `rollback`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The model.
    pub model: String,
    /// The version to go back to. Absent: the one before.
    #[serde(default)]
    pub to: Option<String>,
    /// Why; recorded.
    #[serde(default)]
    pub reason: Option<String>,
    /// Waits at most so long for its end. Absent: 30.
    #[serde(default)]
    #[schemars(range(min = 0, max = MOST_SECONDS))]
    pub wait_seconds: Option<u32>,
}

/// Arguments of `list_releases`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Of this model only.
    #[serde(default)]
    pub model: Option<String>,
    /// In this state only.
    #[serde(default)]
    pub state: Option<PlanState>,
    /// Only those that serve (true), or do not (false).
    #[serde(default)]
    pub live: Option<bool>,
    /// At most so many, the newest. Absent: 50.
    #[serde(default)]
    #[schemars(range(min = 1, max = MOST_RELEASES))]
    pub limit: Option<u32>,
}

/// Arguments of `explain_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The run: its thread_id, the beginning of it, or a model's name for its newest release.
    pub thread_id: String,
}

/// An argument that makes no sense.
pub fn wrong(message: impl Into<String>) -> Failure {
    Failure::new("bad_arguments", message).hint("`tools/list` has what each tool takes")
}

/// How long a call waits.
pub fn seconds(given: Option<u32>, otherwise: u32) -> Result<u32, Failure> {
    let seconds = given.unwrap_or(otherwise);
    if seconds > MOST_SECONDS {
        let what = format!("`wait_seconds` is at most {MOST_SECONDS}, not {seconds}");
        return Err(wrong(what).because("clients give up on an answer that takes a minute"));
    }
    Ok(seconds)
}

/// Whether a path can be a project's folder, its release file, or a request: what may be read for somebody who is not at the terminal.
fn is_request(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else { return true };
    let is = |name: &str| real.file_name().is_some_and(|file| file == name);
    real.is_dir() || is("tidegate.yaml") || real.extension().is_some_and(|extension| extension == "json")
}

/// The request that a call names, asked for by `by`.
pub fn request(
    document: Option<&Value>,
    path: Option<&str>,
    environment: Option<String>,
    by: &str,
) -> Result<DeployRequest, Failure> {
    let overrides = Overrides { environment, requested_by: Some(by.to_owned()), ..Overrides::default() };
    match (document, path) {
        (Some(document), None) => request_of(&document.to_string(), &overrides),
        (None, Some(path)) if Path::new(path).is_absolute() && !is_request(Path::new(path)) => {
            Err(Failure::new("request_value", format!("`path` is no project and no request: {path}"))
                .because("errors show what they are about, and other files are none of the caller's business")
                .hint("name a project's folder, its tidegate.yaml, or a request as .json"))
        }
        (None, Some(path)) if Path::new(path).is_absolute() => read_request(Path::new(path), &overrides),
        (None, Some(path)) => Err(Failure::new("request_value", format!("`path` is relative: {path}"))
            .because("there is no folder from which it could count")
            .hint("give the absolute path")),
        (Some(_), Some(_)) => Err(wrong("`request` and `path` exclude each other")),
        (None, None) => Err(wrong("`request` or `path` is required")),
    }
}
