//! The model registry: which versions exist and which one is live, for people and tools outside Tidegate.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{PackagedModel, PortError};

/// One registered version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredModel {
    /// The model's name.
    pub model_name: String,
    /// The version.
    pub model_version: String,
    /// `sha256:<hex>` of its content.
    pub content_digest: String,
    /// Everything that is needed to serve it again without a build.
    pub package: PackagedModel,
    /// The release that registered it.
    pub deployment_id: String,
}

/// Registers versions and points the `current` alias at one. The truth about what is live stays in Tidegate's own database; the
/// alias follows it.
#[async_trait]
pub trait ModelRegistry: Send + Sync {
    /// Registers a version; the same one again is fine, another digest under the same name and version is an error.
    async fn register(&self, model: &RegisteredModel) -> Result<(), PortError>;
    /// A registered version, if there.
    async fn find(&self, model_name: &str, model_version: &str) -> Result<Option<RegisteredModel>, PortError>;
    /// Removes a version. Fine when it is not there.
    async fn unregister(&self, model_name: &str, model_version: &str) -> Result<(), PortError>;
    /// Points `current` at a version, atomically; `None` removes it.
    async fn set_current(&self, model_name: &str, model_version: Option<&str>) -> Result<(), PortError>;
    /// Where `current` points.
    async fn current(&self, model_name: &str) -> Result<Option<String>, PortError>;
}
