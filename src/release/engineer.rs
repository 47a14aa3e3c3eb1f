//! The deployment engineer's JSON input, as agents send it, and the request it makes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::name::ModelName;
use super::request::{DeployRequest, ModelSource, RequestError};
use super::strategy::Strategy;
use super::units::{UnitError, parse_latency_ms, parse_rps, parse_share};

/// The input document. Every document that is valid by its published schema and has no unknown keys can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineerInput {
    /// What is to be served.
    pub model_artifact: ModelArtifact,
    /// What it must be able to do.
    pub serving_requirements: EngineerServing,
    /// How it gets its traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_strategy: Option<Strategy>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infrastructure: Option<EngineerInfrastructure>,
}

/// A trained model, or a project that serves one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelArtifact {
    /// Its file or folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What made it, e.g. `sklearn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Requirements in text with units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineerServing {
    /// E.g. `100ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<String>,
    /// E.g. `50 rps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<String>,
    /// E.g. `99.9%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<String>,
}

/// Where it runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EngineerInfrastructure {
    /// The platform's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// A cluster's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Free form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Map<String, Value>>,
}

impl EngineerInput {
    /// Reads the document.
    ///
    /// # Errors
    /// When it is not JSON, lacks a required key, or has one that is not in the contract; the message has line and column.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        serde_json::from_str(text).map_err(|error| RequestError::RequestInvalid { message: error.to_string() })
    }
}

impl DeployRequest {
    /// The request of an input document. `base` is the request of the release file in the folder that `modelArtifact.path` names, if
    /// it is such a folder; what the document says wins over it. Without `base` the path is a model without service code.
    ///
    /// # Errors
    /// When a value has no known unit (key, value and accepted forms are named), or, without `base`, the path or the framework is missing.
    pub fn from_engineer(input: &EngineerInput, base: Option<Self>) -> Result<Self, RequestError> {
        let mut request = match base {
            Some(base) => base,
            None => Self::for_artifact(&input.model_artifact)?,
        };
        let serving = &input.serving_requirements;
        let limits = &mut request.serving;
        overlay(&mut limits.latency_p99_ms, "latencyP99", serving.latency_p99.as_deref(), parse_latency_ms)?;
        overlay(&mut limits.throughput_rps, "throughput", serving.throughput.as_deref(), parse_rps)?;
        overlay(&mut limits.availability, "availability", serving.availability.as_deref(), parse_share)?;
        request.version = input.model_artifact.version.clone().or(request.version);
        request.strategy = input.deployment_strategy.or(request.strategy);
        if let Some(given) = input.infrastructure.clone() {
            let place = &mut request.infrastructure;
            place.platform = given.platform.or_else(|| place.platform.take());
            place.namespace = given.namespace.or_else(|| place.namespace.take());
            place.resources.extend(given.resources.unwrap_or_default());
        }
        Ok(request)
    }

    fn for_artifact(artifact: &ModelArtifact) -> Result<Self, RequestError> {
        let missing =
            |key: &str, why: &str| RequestError::RequestIncomplete { key: key.to_owned(), why: why.to_owned() };
        let path = artifact.path.as_deref().filter(|path| !path.is_empty());
        let path =
            path.ok_or_else(|| missing("modelArtifact.path", "it names the model, or the project, to release"))?;
        let framework = artifact.framework.clone().ok_or_else(|| {
            missing("modelArtifact.framework", "a model without service code is loaded by its framework")
        })?;
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let stem = last.rsplit_once('.').map_or(last, |(stem, _)| if stem.is_empty() { last } else { stem });
        let model = ModelName::derived_from(stem).map_err(|error| RequestError::name("modelArtifact.path", error))?;
        let source = ModelSource::Artifact { path: path.to_owned(), framework };
        Ok(Self { source, ..Self::for_project(model, path) })
    }
}

fn overlay(
    slot: &mut Option<f64>,
    key: &str,
    text: Option<&str>,
    parse: fn(&str) -> Result<f64, UnitError>,
) -> Result<(), RequestError> {
    if let Some(text) = text {
        *slot = Some(parse(text).map_err(|error| RequestError::unit(&format!("servingRequirements.{key}"), error))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{
        "modelArtifact": {"path": "models/iris_clf.joblib", "framework": "sklearn", "version": "1.2.0"},
        "servingRequirements": {"latencyP99": "100ms", "throughput": "50/s", "availability": "99.9%"},
        "deploymentStrategy": "blue-green",
        "infrastructure": {"platform": "local", "namespace": "ml", "resources": {"memory": "1Gi"}}
    }"#;

    #[test]
    fn a_full_document_becomes_numbers() {
        let request = DeployRequest::from_engineer(&EngineerInput::parse(FULL).expect("input"), None).expect("request");
        assert_eq!(request.model.as_str(), "iris-clf");
        assert_eq!(request.version.as_deref(), Some("1.2.0"));
        assert_eq!(request.serving.latency_p99_ms, Some(100.0));
        assert_eq!(request.serving.throughput_rps, Some(50.0));
        assert_eq!(request.serving.availability, Some(0.999));
        assert_eq!(request.strategy, Some(Strategy::BlueGreen));
        assert_eq!(request.infrastructure.resources["memory"], "1Gi");
    }

    #[test]
    fn a_wrong_unit_names_key_value_and_forms() {
        let input = EngineerInput::parse(&FULL.replace("100ms", "fast")).expect("input");
        let error = DeployRequest::from_engineer(&input, None).expect_err("unit");
        let text = error.to_string();
        assert!(
            text.contains("servingRequirements.latencyP99") && text.contains("`fast`") && text.contains("100ms"),
            "{text}"
        );
        assert_eq!(error.code(), "request_value");
    }

    #[test]
    fn unknown_keys_and_missing_parts_are_errors() {
        let error = EngineerInput::parse(&FULL.replace("platform", "platfrom")).expect_err("unknown").to_string();
        assert!(error.contains("platfrom") && error.contains("line"), "{error}");
        let input =
            EngineerInput::parse(r#"{"modelArtifact": {}, "servingRequirements": {}}"#).expect("valid by schema");
        let error = DeployRequest::from_engineer(&input, None).expect_err("no path");
        assert!(error.to_string().contains("modelArtifact.path"), "{error}");
    }

    #[test]
    fn the_document_wins_over_the_release_file() {
        let mut base = DeployRequest::for_project(ModelName::new("iris").expect("name"), "/p");
        base.serving.latency_p99_ms = Some(500.0);
        base.serving.availability = Some(0.9);
        base.service = Some("service:Iris".into());
        let input = EngineerInput::parse(
            r#"{"modelArtifact": {"path": "/p"}, "servingRequirements": {"latencyP99": "100ms"}}"#,
        );
        let request = DeployRequest::from_engineer(&input.expect("input"), Some(base)).expect("request");
        assert_eq!(request.model.as_str(), "iris");
        assert_eq!(request.serving.latency_p99_ms, Some(100.0));
        assert_eq!(request.serving.availability, Some(0.9));
        assert_eq!(request.service.as_deref(), Some("service:Iris"));
    }
}
