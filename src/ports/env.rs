//! Python environments: made once per set of locked requirements, shared by builds and slots.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PortError, Progress};

/// Which environment is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvRequest {
    /// The project's folder, absolute. Holds the requirements file.
    pub project: PathBuf,
    /// The locked requirements, relative to `project`, e.g. `requirements.lock`.
    pub requirements: PathBuf,
    /// A Python to use, as `uv venv --python` takes it (`3.11`, a path); `None`: the `python3` on PATH.
    #[serde(default)]
    pub python: Option<String>,
}

/// An environment that is complete and usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonEnv {
    /// Its folder, absolute.
    pub dir: PathBuf,
    /// Its interpreter, absolute.
    pub python: PathBuf,
    /// Digest of the requirements and the interpreter's version: `sha256:<hex>`.
    pub digest: String,
    /// Whether this call made it (false: it was there).
    pub created: bool,
}

/// Makes and finds Python environments.
#[async_trait]
pub trait EnvBackend: Send + Sync {
    /// The environment for `request`, made if it is missing. A half-made one left by a crash is made anew.
    async fn ensure(&self, request: &EnvRequest, progress: &dyn Progress) -> Result<PythonEnv, PortError>;
    /// The environment for `request` if it is complete already. Starts nothing, changes nothing.
    async fn find(&self, request: &EnvRequest) -> Result<Option<PythonEnv>, PortError>;
}
