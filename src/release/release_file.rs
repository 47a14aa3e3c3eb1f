//! `tidegate.yaml`: how a project says what it releases and how.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::canary::CanarySpec;
use super::golden::SmokeCase;
use super::metric::MetricSpec;
use super::name::ModelName;
use super::request::{EnvSpec, Infrastructure, RequestError, ServingRequirements};
use super::rolling::RollingSpec;
use super::spec::{ApprovalSpec, BakeSpec};
use super::strategy::Strategy;
use super::trial::{AbTestSpec, ShadowSpec};
use super::units::{LatencyMs, Millis, Rps, Share};

/// A project's release file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFile {
    /// The model's public name, the first part of its endpoint's path.
    pub model: ModelName,
    /// The version to give it; absent: the build makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The service, `module:Class`; absent: what BentoML finds in the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The Python environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvSpec>,
    /// Command that trains (or fetches) the model when one of `needs_models` is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub train: Option<Vec<String>>,
    /// Tags of models that must be in the model store before the build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_models: Vec<String>,
    /// File of `KEY=value` lines for the service, relative to the project or absolute. Only its path is ever kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// Golden cases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smoke: Vec<SmokeCase>,
    /// What it must be able to do.
    #[serde(default)]
    pub serving: Serving,
    /// How it gets its traffic; absent: the planner chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The steps of a canary and what is held meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
    /// The split of an A/B test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ab_test: Option<AbTestSpec>,
    /// What a shadow repeats and compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSpec>,
    /// How replicas take each other's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<RollingSpec>,
    /// How many replicas of the version run; absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub replicas: Option<u32>,
    /// How many workers each replica has, BentoML's own processes for parallel calls; absent: as the service's code says, or more where what was
    /// measured asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub workers: Option<u32>,
    /// Memory that one replica needs, e.g. `1.5GB`; absent: what a small service takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// How long a request may wait while a version is recreated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Millis>,
    /// How long the version before stays warm behind a release that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Millis>,
    /// How long it may take to become ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<Millis>,
    /// How it is watched after the switch.
    #[serde(default)]
    pub bake: BakeSpec,
    /// Figures of your own that are held, beside what the gateway counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
    /// Whether a human decides.
    #[serde(default)]
    pub approval: ApprovalSpec,
    /// What differs per target environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<String, Overlay>,
}

/// Requirements with units.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// 99th percentile of latency, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<LatencyMs>,
    /// Requests per second, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Rps>,
    /// Share of requests that succeed, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Share>,
}

/// What one target environment says differently. `serving`, the strategies' own keys, `bake` and `approval` are overlaid part by part, every
/// other key as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// See [`ReleaseFile::version`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// See [`ReleaseFile::env`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvSpec>,
    /// See [`ReleaseFile::env_file`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// See [`ReleaseFile::smoke`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Vec<SmokeCase>>,
    /// See [`ReleaseFile::serving`].
    #[serde(default)]
    pub serving: Serving,
    /// See [`ReleaseFile::strategy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// See [`ReleaseFile::canary`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
    /// See [`ReleaseFile::ab_test`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ab_test: Option<AbTestSpec>,
    /// See [`ReleaseFile::shadow`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSpec>,
    /// See [`ReleaseFile::rolling`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<RollingSpec>,
    /// See [`ReleaseFile::replicas`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// See [`ReleaseFile::workers`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// See [`ReleaseFile::memory`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// See [`ReleaseFile::hold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Millis>,
    /// See [`ReleaseFile::standby`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Millis>,
    /// See [`ReleaseFile::ready_timeout`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<Millis>,
    /// See [`ReleaseFile::bake`].
    #[serde(default)]
    pub bake: BakeSpec,
    /// See [`ReleaseFile::metrics`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<MetricSpec>>,
    /// See [`ReleaseFile::approval`].
    #[serde(default)]
    pub approval: ApprovalSpec,
}

/// Why a release file cannot be read: where, what, and the lines around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFileError {
    /// The file, as the caller calls it.
    pub file: String,
    /// Line, from 1; 0 when the place is not known.
    pub line: u64,
    /// Column, from 1; 0 when the place is not known.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// The lines around the place with a mark below it; empty when the place is not known.
    pub snippet: String,
}

impl ReleaseFileError {
    /// Stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        "release_file_invalid"
    }

    /// What to do next, one sentence.
    pub fn hint(&self) -> String {
        "`tidegate schema release-file` prints what is accepted".to_owned()
    }
}

impl fmt::Display for ReleaseFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message),
        }?;
        if self.snippet.is_empty() { Ok(()) } else { write!(f, "\n{}", self.snippet) }
    }
}

impl std::error::Error for ReleaseFileError {}

impl Serving {
    /// In numbers.
    pub fn requirements(self) -> ServingRequirements {
        ServingRequirements {
            latency_p99_ms: self.latency_p99.map(|limit| limit.0),
            throughput_rps: self.throughput.map(|limit| limit.0),
            availability: self.availability.map(|limit| limit.0),
        }
    }

    fn overlaid(self, over: Self) -> Self {
        Self {
            latency_p99: over.latency_p99.or(self.latency_p99),
            throughput: over.throughput.or(self.throughput),
            availability: over.availability.or(self.availability),
        }
    }
}

impl ReleaseFile {
    /// Reads the text of a release file; `file` is what errors call it.
    ///
    /// # Errors
    /// When it is not YAML, has an unknown key or a wrong value, a smoke case without leading slash or with a name used twice, or an
    /// empty `train`; with line, column and snippet where there is a place.
    pub fn parse(text: &str, file: &str) -> Result<Self, ReleaseFileError> {
        let read: Self = serde_saphyr::from_str(text).map_err(|error| placed(text, file, &error))?;
        read.check().map_err(|message| ReleaseFileError {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message,
            snippet: String::new(),
        })?;
        Ok(read)
    }

    /// Where it shall run, as the planner reads it.
    pub(super) fn infrastructure(&self) -> Infrastructure {
        let replicas = self.replicas.map(|count| ("replicas".to_owned(), count.into()));
        let workers = self.workers.map(|count| ("workers".to_owned(), count.into()));
        let memory = self.memory.clone().map(|memory| ("memory".to_owned(), memory.into()));
        let resources = replicas.into_iter().chain(workers).chain(memory).collect();
        Infrastructure { resources, ..Infrastructure::default() }
    }

    fn check(&self) -> Result<(), String> {
        if self.train.as_ref().is_some_and(Vec::is_empty) {
            return Err("train: an empty command cannot be run; remove it or write e.g. [python, train.py]".to_owned());
        }
        check_cases("smoke", &self.smoke)?;
        for (name, overlay) in &self.environments {
            check_cases(&format!("environments.{name}.smoke"), overlay.smoke.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    /// The file as it is for `environment`: its overlay laid over the rest. `None` is the file without overlay. The result has no
    /// `environments` any more.
    ///
    /// # Errors
    /// When the file does not name that environment.
    pub fn for_environment(&self, environment: Option<&str>) -> Result<Self, RequestError> {
        let mut file = self.clone();
        let mut overlays = std::mem::take(&mut file.environments);
        let Some(name) = environment else { return Ok(file) };
        let Some(over) = overlays.remove(name) else {
            let known: Vec<_> = overlays.into_keys().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(RequestError::EnvironmentUnknown { name: name.to_owned(), known });
        };
        file.version = over.version.or(file.version);
        file.env = over.env.or(file.env);
        file.env_file = over.env_file.or(file.env_file);
        file.smoke = over.smoke.unwrap_or(file.smoke);
        file.serving = file.serving.overlaid(over.serving);
        file.strategy = over.strategy.or(file.strategy);
        file.canary = overlaid(file.canary, over.canary, |base, over| base.overlaid(&over));
        file.ab_test = overlaid(file.ab_test, over.ab_test, AbTestSpec::overlaid);
        file.shadow = overlaid(file.shadow, over.shadow, ShadowSpec::overlaid);
        file.rolling = overlaid(file.rolling, over.rolling, RollingSpec::overlaid);
        file.replicas = over.replicas.or(file.replicas);
        file.workers = over.workers.or(file.workers);
        file.memory = over.memory.or(file.memory);
        file.hold = over.hold.or(file.hold);
        file.standby = over.standby.or(file.standby);
        file.ready_timeout = over.ready_timeout.or(file.ready_timeout);
        file.bake = file.bake.overlaid(over.bake);
        file.metrics = over.metrics.unwrap_or(file.metrics);
        file.approval = file.approval.overlaid(over.approval);
        Ok(file)
    }
}

/// The overlay on the base, where both are there.
fn overlaid<T>(base: Option<T>, over: Option<T>, both: impl Fn(T, T) -> T) -> Option<T> {
    match (base, over) {
        (Some(base), Some(over)) => Some(both(base, over)),
        (base, over) => over.or(base),
    }
}

fn check_cases(key: &str, cases: &[SmokeCase]) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for case in cases {
        if !seen.insert(case.name.as_str()) {
            return Err(format!("{key}: two cases are named `{}`; names tell them apart in reports", case.name));
        }
        if !case.path.starts_with('/') {
            return Err(format!("{key}: the path `{}` of case `{}` must begin with a slash", case.path, case.name));
        }
        if case.tolerance.is_some_and(|tolerance| !(tolerance >= 0.0 && tolerance.is_finite())) {
            return Err(format!("{key}: the tolerance of case `{}` must be a number from 0 up", case.name));
        }
    }
    Ok(())
}

/// Gives a reader's error its place.
fn placed(text: &str, file: &str, error: &serde_saphyr::Error) -> ReleaseFileError {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let message = error.without_snippet().to_string();
    // The place has fields of its own.
    // Advice for programmers, not for the file's author.
    let message = message.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    let message = message.split(" at line ").next().unwrap_or_default().trim().to_owned();
    ReleaseFileError { file: file.to_owned(), line, column, message, snippet: snippet(text, line, column) }
}

/// The line with its neighbours, numbered, and a mark below the column.
fn snippet(text: &str, line: u64, column: u64) -> String {
    let Some(index) = usize::try_from(line).ok().and_then(|line| line.checked_sub(1)) else { return String::new() };
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    for (number, content) in lines.iter().enumerate().take(index + 2).skip(index.saturating_sub(1)) {
        out.push(format!("{:>4} | {content}", number + 1));
        if number == index {
            let indent = usize::try_from(column).unwrap_or(1).saturating_sub(1);
            out.push(format!("     | {}^", " ".repeat(indent)));
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{ApprovalMode, DeployRequest};

    const FULL: &str = r#"
model: iris
service: service:IrisClassifier
env: { requirements: requirements.lock, python: "3.11" }
train: [python, train.py]
needs_models: ["iris_clf:latest"]
env_file: secrets.env
smoke:
  - { name: setosa, path: /predict, body: { features: [[5.1, 3.5, 1.4, 0.2]] }, expect: [0], tolerance: 1e-6, status: 200 }
serving: { latency_p99: 200ms, throughput: 20 rps, availability: 99.9% }
strategy: blue-green
ready_timeout: 60s
bake: { for: 10s, max_error_rate: 0.01 }
replicas: 2
memory: 1.5GB
approval: required
environments: { prod: { approval: required, bake: 5m, replicas: 4 }, dev: { approval: none } }
"#;

    #[test]
    fn the_full_file() {
        let file = ReleaseFile::parse(FULL, "tidegate.yaml").expect("valid");
        let request = DeployRequest::from_release_file(&file, "/p/iris", Some("prod")).expect("request");
        assert_eq!(request.model.as_str(), "iris");
        assert_eq!(request.env_file.as_deref(), Some("/p/iris/secrets.env"));
        assert_eq!(request.serving.latency_p99_ms, Some(200.0));
        assert_eq!(request.serving.throughput_rps, Some(20.0));
        assert_eq!(request.serving.availability, Some(0.999));
        assert_eq!(request.ready_timeout_ms, Some(60_000));
        assert_eq!(request.infrastructure.resources["replicas"], 4);
        assert_eq!(request.infrastructure.resources["memory"], "1.5GB");
        assert_eq!(request.bake.duration, Some(Millis(300_000)), "prod bakes longer");
        assert_eq!(request.bake.max_error_rate, Some(Share(0.01)), "what the overlay does not name stays");
        assert_eq!(request.smoke[0].expect, Some(serde_json::json!([0])));
        assert_eq!(request.smoke[0].tolerance, Some(1e-6));
        let dev = DeployRequest::from_release_file(&file, "/p/iris", Some("dev")).expect("request");
        assert_eq!(dev.approval.mode, Some(ApprovalMode::None));
    }

    #[test]
    fn it_survives_being_written() {
        let file = ReleaseFile::parse(FULL, "tidegate.yaml").expect("valid");
        let text = serde_saphyr::to_string(&file).expect("yaml");
        assert_eq!(ReleaseFile::parse(&text, "again.yaml").expect("valid"), file, "{text}");
    }

    #[test]
    fn an_unknown_environment_is_an_error_that_names_the_known() {
        let file = ReleaseFile::parse(FULL, "tidegate.yaml").expect("valid");
        let error = file.for_environment(Some("production")).expect_err("unknown").to_string();
        assert!(error.contains("`production`") && error.contains("dev, prod"), "{error}");
    }

    #[test]
    fn errors_have_a_place() {
        for (wrong, line, parts) in [
            (FULL.replace("serving:", "srving:"), 10, vec!["srving"]),
            (FULL.replace("200ms", "200"), 10, vec!["`200` is not a latency", "100ms"]),
            (FULL.replace("10s", "ten"), 13, vec!["`ten` is not a duration"]),
            (FULL.replace("model: iris", "model: Iris"), 2, vec!["`Iris` cannot be a model's name"]),
            (FULL.replace("strategy: blue-green", "strategy: bluegreen"), 11, vec!["bluegreen", "blue-green"]),
            (FULL.replace("approval: required\n", "approval: maybe\n"), 16, vec!["maybe"]),
            (FULL.replace("latency_p99", "latencyP99"), 10, vec!["latencyP99"]),
            (FULL.replace("[python, train.py]", "[python"), 6, vec![]),
            (format!("{FULL}model: other\n"), 18, vec!["duplicate", "model"]),
        ] {
            let error = ReleaseFile::parse(&wrong, "tidegate.yaml").expect_err("wrong");
            let text = error.to_string();
            assert!(error.line.abs_diff(line) <= 1 && error.column > 0, "{line} {text}");
            assert!(text.starts_with(&format!("tidegate.yaml:{}:{}: ", error.line, error.column)), "{text}");
            assert!(text.contains(" | ") && text.contains('^'), "{text}");
            assert!(!text.contains("Options"), "{text}");
            assert!(parts.iter().all(|part| error.message.contains(part)), "{text}");
        }
    }

    #[test]
    fn other_errors() {
        for (text, part) in [
            ("service: a:B\n", "model"),
            ("model: iris\ntrain: []\n", "train"),
            ("model: iris\nsmoke: [{name: a, path: predict}]\n", "slash"),
            ("model: iris\nsmoke: [{name: a, path: /p}, {name: a, path: /q}]\n", "two cases"),
            ("", ""),
        ] {
            let error = ReleaseFile::parse(text, "tidegate.yaml").expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn paths_may_not_leave_the_project() {
        for text in ["env_file: ../secrets.env", "env: { requirements: ../r.lock }", "env: { requirements: /r.lock }"] {
            let file = ReleaseFile::parse(&format!("model: iris\n{text}\n"), "tidegate.yaml").expect("valid");
            let error = DeployRequest::from_release_file(&file, "/p", None).expect_err(text);
            assert_eq!(error.code(), "path_escapes_project");
        }
    }

    #[test]
    fn a_python_version_without_quotes_keeps_its_zero() {
        let file =
            ReleaseFile::parse("model: iris\nenv: { requirements: r.lock, python: 3.10 }\n", "t").expect("valid");
        assert_eq!(file.env.and_then(|env| env.python).as_deref(), Some("3.10"));
    }
}
