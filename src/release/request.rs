//! What a deploy is asked to do, in numbers, wherever it was asked: by a release file, by an agent's JSON, or by both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canary::CanarySpec;
use super::format::Format;
use super::golden::SmokeCase;
use super::metric::MetricSpec;
use super::name::{ModelName, NameError};
use super::release_file::ReleaseFile;
use super::rolling::RollingSpec;
use super::spec::{ApprovalSpec, BakeSpec};
use super::strategy::Strategy;
use super::trial::{AbTestSpec, ShadowSpec};
use super::units::UnitError;

/// The requirements file where none is named, relative to the project.
pub const DEFAULT_REQUIREMENTS: &str = "requirements.lock";

/// What a deploy is asked to do. Absent means: the planner decides, and says why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Format of this structure.
    #[serde(default)]
    pub format: Format<1>,
    /// The model's public name.
    pub model: ModelName,
    /// What is to be released.
    pub source: ModelSource,
    /// The version it shall have; absent: the build makes one.
    #[serde(default)]
    pub version: Option<String>,
    /// The service to build, `module:Class`; absent: what BentoML finds.
    #[serde(default)]
    pub service: Option<String>,
    /// The Python environment; absent: the planner's default.
    #[serde(default)]
    pub env: Option<EnvSpec>,
    /// Command that trains the model when it is missing, argv.
    #[serde(default)]
    pub train: Option<Vec<String>>,
    /// Tags of models that the build needs.
    #[serde(default)]
    pub needs_models: Vec<String>,
    /// File with the service's variables and secrets, absolute. A reference only: its content is never read here.
    #[serde(default)]
    pub env_file: Option<String>,
    /// Golden cases.
    #[serde(default)]
    pub smoke: Vec<SmokeCase>,
    /// What it must be able to do.
    #[serde(default)]
    pub serving: ServingRequirements,
    /// The strategy asked for; absent: the planner chooses.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    /// The steps of a canary and what is held meanwhile; absent: the planner's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
    /// An A/B test's split; absent: the planner's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ab_test: Option<AbTestSpec>,
    /// What a shadow repeats and compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSpec>,
    /// How replicas take each other's place; absent: the planner's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<RollingSpec>,
    /// How long requests may wait while a version is recreated, in milliseconds; absent: the planner's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// How long the version before stays warm behind a release that went well, in milliseconds; absent: until another one takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_ms: Option<u64>,
    /// Where it shall run.
    #[serde(default)]
    pub infrastructure: Infrastructure,
    /// How long it may take to become ready, in milliseconds; absent: the planner's default.
    #[serde(default)]
    pub ready_timeout_ms: Option<u64>,
    /// How it is watched after the switch.
    #[serde(default)]
    pub bake: BakeSpec,
    /// Figures of the user's own that are held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
    /// Whether a human decides.
    #[serde(default)]
    pub approval: ApprovalSpec,
    /// The target environment, e.g. `prod`; absent: none was named.
    #[serde(default)]
    pub environment: Option<String>,
    /// Who asks: a person, an agent.
    #[serde(default)]
    pub requested_by: Option<String>,
}

/// What is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelSource {
    /// A project with its own service.
    Project {
        /// Its folder, absolute.
        path: String,
    },
    /// A model without service code; one is generated.
    Artifact {
        /// The model's file or folder, as given.
        path: String,
        /// What made it, e.g. `sklearn`, as given.
        framework: String,
    },
}

impl ModelSource {
    /// Where it lies.
    pub fn path(&self) -> &str {
        match self {
            Self::Project { path } | Self::Artifact { path, .. } => path,
        }
    }

    /// It lies there from now on.
    pub fn move_to(&mut self, place: &str) {
        match self {
            Self::Project { path } | Self::Artifact { path, .. } => place.clone_into(path),
        }
    }
}

/// A Python environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvSpec {
    /// The locked requirements, relative to the project.
    pub requirements: String,
    /// A Python to use, e.g. `"3.11"`; absent: the `python3` on PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

/// What a version must be able to do; each absent one is not checked.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServingRequirements {
    /// 99th percentile of latency, in milliseconds, at most.
    #[serde(default)]
    pub latency_p99_ms: Option<f64>,
    /// Requests per second, at least.
    #[serde(default)]
    pub throughput_rps: Option<f64>,
    /// Share of requests that succeed, 0 to 1, at least.
    #[serde(default)]
    pub availability: Option<f64>,
}

/// Where a version shall run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Infrastructure {
    /// The platform's name; absent: this machine.
    #[serde(default)]
    pub platform: Option<String>,
    /// A cluster's namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Resources as they were given; the planner reads `memory`, `cpu`, `replicas` and `workers`.
    #[serde(default)]
    pub resources: Map<String, Value>,
}

/// Why a request cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RequestError {
    /// It is not the document it should be.
    #[error("the deploy request cannot be read: {message}")]
    RequestInvalid {
        /// What the reader said, with line and column where it has them.
        message: String,
    },
    /// A value has a wrong unit or form.
    #[error("{key}: `{value}` is not understood; write {accepted}")]
    RequestValue {
        /// The key, as written, with dots.
        key: String,
        /// The value.
        value: String,
        /// Accepted forms, by example.
        accepted: String,
    },
    /// A key is needed and absent.
    #[error("{key} is missing: {why}")]
    RequestIncomplete {
        /// The key, as written, with dots.
        key: String,
        /// What it is needed for.
        why: String,
    },
    /// A path leaves the project.
    #[error("{key}: `{path}` leaves the project's folder")]
    PathEscapesProject {
        /// The key.
        key: String,
        /// The path.
        path: String,
    },
    /// The environment is not in the release file.
    #[error("the release file has no environment `{name}`; it has {known}")]
    EnvironmentUnknown {
        /// The environment asked for.
        name: String,
        /// Those that it has, in words.
        known: String,
    },
}

impl RequestError {
    /// Stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RequestInvalid { .. } => "request_invalid",
            Self::RequestValue { .. } => "request_value",
            Self::RequestIncomplete { .. } => "request_incomplete",
            Self::PathEscapesProject { .. } => "path_escapes_project",
            Self::EnvironmentUnknown { .. } => "environment_unknown",
        }
    }

    /// What to do next, one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::RequestInvalid { .. } => "`tidegate schema request` prints what is accepted".to_owned(),
            Self::RequestValue { key, .. } => format!("correct {key} and run the command again"),
            Self::RequestIncomplete { key, .. } => format!("add {key}"),
            Self::PathEscapesProject { .. } => {
                "use a path inside the project, or an absolute one where allowed".to_owned()
            }
            Self::EnvironmentUnknown { name, .. } => format!("add it under `environments:`, e.g. `{name}: {{}}`"),
        }
    }

    pub(super) fn unit(key: &str, error: UnitError) -> Self {
        Self::RequestValue { key: key.to_owned(), value: error.value, accepted: error.accepted.to_owned() }
    }

    pub(super) fn name(key: &str, error: NameError) -> Self {
        Self::RequestValue { key: key.to_owned(), value: error.value, accepted: error.why.to_owned() }
    }
}

impl DeployRequest {
    /// A request for the project at `path` (absolute) with everything else left to the planner.
    pub fn for_project(model: ModelName, path: &str) -> Self {
        Self {
            format: Format,
            model,
            source: ModelSource::Project { path: path.to_owned() },
            version: None,
            service: None,
            env: None,
            train: None,
            needs_models: Vec::new(),
            env_file: None,
            smoke: Vec::new(),
            serving: ServingRequirements::default(),
            strategy: None,
            canary: None,
            ab_test: None,
            shadow: None,
            rolling: None,
            hold_ms: None,
            standby_ms: None,
            infrastructure: Infrastructure::default(),
            ready_timeout_ms: None,
            bake: BakeSpec::default(),
            metrics: Vec::new(),
            approval: ApprovalSpec::default(),
            environment: None,
            requested_by: None,
        }
    }

    /// The request of a release file in the project's folder `project` (absolute), for one of its environments or none.
    ///
    /// # Errors
    /// When the file has no such environment, or a path leaves the project.
    pub fn from_release_file(
        file: &ReleaseFile,
        project: &str,
        environment: Option<&str>,
    ) -> Result<Self, RequestError> {
        let file = file.for_environment(environment)?;
        if let Some(env) = &file.env {
            inside_project("env.requirements", &env.requirements)?;
        }
        file.version.as_deref().map(check_version).transpose()?;
        let env_file = file.env_file.as_deref().map(|path| resolve("env_file", project, path)).transpose()?;
        Ok(Self {
            service: file.service.clone(),
            version: file.version.clone(),
            env: file.env.clone(),
            train: file.train.clone(),
            needs_models: file.needs_models.clone(),
            env_file,
            smoke: file.smoke.clone(),
            serving: file.serving.requirements(),
            strategy: file.strategy,
            canary: file.canary.clone(),
            ab_test: file.ab_test.clone(),
            shadow: file.shadow.clone(),
            rolling: file.rolling.clone(),
            infrastructure: file.infrastructure(),
            hold_ms: file.hold.map(|hold| hold.0),
            standby_ms: file.standby.map(|standby| standby.0),
            ready_timeout_ms: file.ready_timeout.map(|timeout| timeout.0),
            bake: file.bake.clone(),
            metrics: file.metrics.clone(),
            approval: file.approval,
            environment: environment.map(str::to_owned),
            ..Self::for_project(file.model, project)
        })
    }
}

/// Refuses what BentoML takes for no version: it would say so only after the environment was made.
fn check_version(version: &str) -> Result<(), RequestError> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let fine = version.len() <= 128
        && version.starts_with(plain)
        && version.ends_with(plain)
        && version.chars().all(|c| plain(c) || "._-".contains(c));
    if fine {
        return Ok(());
    }
    let accepted = "1 to 128 letters, digits, `.`, `_`, `-`, with a letter or digit at both ends, e.g. 1.4.0";
    let (key, value) = ("version".to_owned(), version.chars().take(160).collect());
    Err(RequestError::RequestValue { key, value, accepted: accepted.to_owned() })
}

/// An absolute path as it is; a relative one, which must stay inside, below `project`.
fn resolve(key: &str, project: &str, path: &str) -> Result<String, RequestError> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    inside_project(key, path)?;
    Ok(format!("{}/{}", project.trim_end_matches('/'), path))
}

/// Refuses a path that leaves the project by its text; links are the reader's to judge.
fn inside_project(key: &str, path: &str) -> Result<(), RequestError> {
    let fail = || RequestError::PathEscapesProject { key: key.to_owned(), path: path.to_owned() };
    if path.is_empty() || path.starts_with('/') {
        return Err(fail());
    }
    let mut depth = 0_i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(fail());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for path in ["a.env", "conf/a.env", "conf/../a.env", "./a"] {
            assert!(inside_project("env_file", path).is_ok(), "{path}");
        }
        for path in ["../a.env", "a/../../b", "", "/etc/passwd", "a/../.."] {
            assert!(inside_project("env_file", path).is_err(), "{path}");
        }
        assert_eq!(resolve("env_file", "/p/", "s.env").as_deref(), Ok("/p/s.env"));
        assert_eq!(resolve("env_file", "/p", "/run/s.env").as_deref(), Ok("/run/s.env"));
    }

    #[test]
    fn a_stored_request_survives_and_is_strict() {
        let request = DeployRequest::for_project(ModelName::new("iris").expect("name"), "/p");
        let mut json = serde_json::to_value(&request).expect("json");
        assert_eq!(serde_json::from_value::<DeployRequest>(json.clone()).expect("same"), request);
        json["modle"] = "x".into();
        assert!(serde_json::from_value::<DeployRequest>(json).expect_err("unknown").to_string().contains("modle"));
    }

    #[test]
    fn errors_are_data() {
        let error = RequestError::RequestIncomplete { key: "a.b".into(), why: "c".into() };
        let json = serde_json::to_value(&error).expect("json");
        assert_eq!(json["code"], error.code());
        assert_eq!(serde_json::from_value::<RequestError>(json).expect("same"), error);
    }
}
