//! From a project's folder to something that can be served, and served again later.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PortError, Progress, PythonEnv};

/// One build. The same `token` always means the same build: a second call finds the first one's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageRequest {
    /// Idempotency key, `[a-z0-9-]{1,64}`.
    pub token: String,
    /// The project's folder, absolute.
    pub project: PathBuf,
    /// The environment to build with.
    pub env: PythonEnv,
    /// Command that trains (or fetches) the model, run in `project` when a model is missing; argv, `python` is the environment's.
    #[serde(default)]
    pub train: Option<Vec<String>>,
    /// Tags of models that must be in the model store before the build, e.g. `iris_clf:latest`.
    #[serde(default)]
    pub needs_models: Vec<String>,
    /// The service to build, `module:Class`; `None`: what the project's bentofile or BentoML finds.
    #[serde(default)]
    pub service: Option<String>,
    /// The version to give the bento; `None`: BentoML makes one.
    #[serde(default)]
    pub version: Option<String>,
    /// Files of the project, relative to it, that must not come into the package: the file with the service's secrets.
    #[serde(default)]
    pub keep_out: Vec<PathBuf>,
    /// The name that the service's bento must have; a different one is an error. `None`: any.
    #[serde(default)]
    pub expect_name: Option<String>,
}

/// A built model, self-contained: code, model, configuration, environment and schemas in one folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagedModel {
    /// The request's token.
    pub token: String,
    /// The bento's name.
    pub model_name: String,
    /// The bento's version.
    pub model_version: String,
    /// `name:version`.
    pub bento_tag: String,
    /// The unpacked, servable folder, absolute.
    pub release_dir: PathBuf,
    /// The exported `.bento` archive, absolute.
    pub archive: PathBuf,
    /// `sha256:<hex>` over the sorted list of files with their hashes (BentoML's own archives are not reproducible).
    pub content_digest: String,
    /// Bytes in `release_dir`.
    pub size_bytes: u64,
    /// The environment that it was built with and is served with.
    pub env: PythonEnv,
    /// Tags of the models inside.
    pub models: Vec<String>,
    /// The service's name (class), as BentoML's configuration keys it.
    pub service: String,
    /// How many workers its code asks for; absent: that is no number, or depends on what the machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// The service's routes, with the JSON Schemas of input and output.
    pub routes: Vec<ServiceRoute>,
    /// Where the build wrote what it printed, absolute.
    pub log: PathBuf,
    /// How long the build took, in milliseconds.
    pub duration_ms: u64,
}

/// One endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRoute {
    /// Path with its leading slash, e.g. `/predict`.
    pub path: String,
    /// JSON Schema of the request body.
    pub input: Value,
    /// JSON Schema of the answer.
    pub output: Value,
}

/// Builds, finds and discards packages.
#[async_trait]
pub trait Packager: Send + Sync {
    /// Builds `request`, or returns the result that its token already has. Leftovers of a killed build (files and processes)
    /// are removed first.
    async fn package(&self, request: &PackageRequest, progress: &dyn Progress) -> Result<PackagedModel, PortError>;
    /// The finished build of `token`, if there is one. Changes nothing but for ending orphans of a killed build.
    async fn find(&self, token: &str) -> Result<Option<PackagedModel>, PortError>;
    /// Removes everything the build of `token` made. Fine when there is nothing.
    async fn discard(&self, token: &str) -> Result<(), PortError>;
    /// `sha256:<hex>` over all files of a project, or of an artifact, absolute: whether it is still what somebody saw. What git keeps
    /// beside them is left out, and what a link leads to.
    async fn digest_of_source(&self, source: &std::path::Path) -> Result<String, PortError>;
    /// Copies a project, or an artifact, as [`Packager::digest_of_source`] sees it into a place of our own, anew each time, and says where it is and
    /// what the copy's digest is: what is built from it nobody changes meanwhile. `of`: whose it is, any text.
    async fn copy_source(&self, source: &std::path::Path, of: &str) -> Result<SourceCopy, PortError>;
    /// Removes that copy. Fine when there is none.
    async fn drop_copy(&self, of: &str) -> Result<(), PortError>;
    /// How to serve `model` in a slot: argv, working directory, environment (without the user's secrets).
    /// `{port}` in argv is replaced by the target; `slot_dir` is the slot's own BENTOML_HOME; `workers`: how many of them, `None` as the
    /// service's code says.
    fn serve_command(&self, model: &PackagedModel, slot_dir: &std::path::Path, workers: Option<u32>) -> ServeCommand;
    /// Why a service did not start, from its log: its last traceback, if there is one.
    fn explain(&self, log: &[String]) -> Option<String>;
    /// A project with a generated service for a model artifact that comes without one. Made again on every call, same place.
    async fn generate(&self, artifact: &ModelArtifact) -> Result<GeneratedProject, PortError>;
}

/// A copy of a project, or of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCopy {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// `sha256:<hex>`.
    pub digest: String,
}

/// How a slot's process is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeCommand {
    /// Program and arguments; `{port}` stands for the slot's port.
    pub argv: Vec<String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// Environment on top of the host daemon's own minimal one.
    pub env: std::collections::BTreeMap<String, String>,
}

/// A trained model without a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelArtifact {
    /// The file, absolute.
    pub path: PathBuf,
    /// The framework it was made with, e.g. `scikit-learn`.
    pub framework: String,
    /// The model's public name.
    pub name: String,
}

/// A project that was generated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratedProject {
    /// Its folder, absolute.
    pub project: PathBuf,
    /// Locked requirements, relative to it.
    pub requirements: PathBuf,
    /// Command that puts the model into the model store.
    pub train: Vec<String>,
    /// The models that the service needs.
    pub needs_models: Vec<String>,
    /// The service, `module:Class`.
    pub service: String,
}
