//! What is handed back: `ModelDeployerOutput`, and the deployment engineer's output for orchestrators that speak it.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::canary::{CanaryStep, WHOLE_WEIGHT};
use super::monitoring::{Watched, alerts, dashboard_uid};
use super::plan::DeploymentPlan;
use super::strategy::Strategy;

/// The result of a release. Exactly these keys, all present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = [
    "deployment_id", "endpoint_url", "deployment_strategy", "previous_version", "deployment_timestamp", "health_check_passed",
    "metrics_baseline"
]))]
pub struct ModelDeployerOutput {
    /// The release.
    pub deployment_id: String,
    /// The model's public URL.
    pub endpoint_url: String,
    /// The strategy, by the contract's word.
    pub deployment_strategy: Strategy,
    /// The version that served before; null at a first release.
    #[serde(deserialize_with = "present_or_null")]
    pub previous_version: Option<String>,
    /// When the release was finished, ISO 8601 with offset.
    #[serde(with = "with_offset")]
    #[schemars(with = "DateTime<FixedOffset>")]
    pub deployment_timestamp: DateTime<FixedOffset>,
    /// Whether every check passed.
    pub health_check_passed: bool,
    /// What was measured before users saw the version, by name.
    pub metrics_baseline: BTreeMap<String, f64>,
}

/// What a finished release knows beyond its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseFacts {
    /// The release.
    pub deployment_id: String,
    /// The version that was built.
    pub model_version: String,
    /// The model's public URL, without a slash at its end.
    pub endpoint_url: String,
    /// When the release was finished.
    pub finished_at: DateTime<Utc>,
    /// Whether every check passed.
    pub health_check_passed: bool,
    /// What was measured, by name.
    pub metrics_baseline: BTreeMap<String, f64>,
    /// The package's content, `sha256:<hex>`, or the image's name where one was made.
    #[serde(default)]
    pub artifact: Option<String>,
}

/// A fact that has no place in the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// JSON has no word for it.
    #[error("the metric `{name}` is not a finite number")]
    NotFinite {
        /// The metric.
        name: String,
    },
    /// A text that must not be empty.
    #[error("{key} is empty")]
    Empty {
        /// The contract's key.
        key: &'static str,
    },
}

/// Keeps the measurements that the contract can say: finite numbers. Returns them and the names of the others.
pub fn finite_metrics(measured: BTreeMap<String, f64>) -> (BTreeMap<String, f64>, Vec<String>) {
    let (finite, other): (BTreeMap<_, _>, BTreeMap<_, _>) =
        measured.into_iter().partition(|(_, value)| value.is_finite());
    (finite, other.into_keys().collect())
}

impl ModelDeployerOutput {
    /// The result of a release of `plan`.
    ///
    /// # Errors
    /// When an id or URL is empty, or a metric is not a finite number (see [`finite_metrics`]).
    pub fn new(plan: &DeploymentPlan, facts: &ReleaseFacts) -> Result<Self, ContractError> {
        if facts.deployment_id.is_empty() {
            return Err(ContractError::Empty { key: "deployment_id" });
        }
        if facts.endpoint_url.is_empty() {
            return Err(ContractError::Empty { key: "endpoint_url" });
        }
        if let Some((name, _)) = facts.metrics_baseline.iter().find(|(_, value)| !value.is_finite()) {
            return Err(ContractError::NotFinite { name: name.clone() });
        }
        Ok(Self {
            deployment_id: facts.deployment_id.clone(),
            endpoint_url: facts.endpoint_url.clone(),
            deployment_strategy: plan.strategy,
            previous_version: plan.previous_version().map(str::to_owned),
            deployment_timestamp: facts.finished_at.fixed_offset(),
            health_check_passed: facts.health_check_passed,
            metrics_baseline: facts.metrics_baseline.clone(),
        })
    }
}

/// Accepts null, but not an absent key.
fn present_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

/// RFC 3339 with milliseconds and a numeric offset: `+00:00` and never `Z`, which older readers of ISO 8601 refuse.
mod with_offset {
    use super::{DateTime, FixedOffset, SecondsFormat};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &DateTime<FixedOffset>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, false))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<FixedOffset>, D::Error> {
        DateTime::deserialize(deserializer)
    }
}

/// The deployment engineer's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentEngineerOutput {
    /// What runs.
    pub deployment_config: DeploymentConfig,
    /// Where it answers.
    pub serving_endpoint: ServingEndpoint,
    /// How traffic got there and when it goes back.
    pub traffic_config: TrafficConfig,
    /// What is watched.
    pub monitoring: Monitoring,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentConfig {
    /// The image, or the digest of the package where no image is made; absent: neither is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
    /// How many copies run.
    pub replicas: u32,
    /// What they take.
    pub resources: Map<String, Value>,
    /// The strategy and its parts.
    pub strategy: Map<String, Value>,
}

/// Where it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServingEndpoint {
    /// The model's public URL.
    pub url: String,
    /// Answers 200 when it is ready.
    pub health_endpoint: String,
    /// Its metrics.
    pub metrics_endpoint: String,
}

/// How traffic got there and when it goes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficConfig {
    /// Share of the traffic during the rollout, in percent; absent: the strategy has no share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<u32>,
    /// The steps of the traffic, in words.
    pub rollout_schedule: String,
    /// What makes it go back.
    pub rollback_triggers: Vec<Value>,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitoring {
    /// Metrics with their baseline.
    pub metrics: Vec<Value>,
    /// Prometheus alerts, each with its expression over the gateway's metrics.
    pub alerts: Vec<Value>,
    /// Pages, and where they are to be had.
    pub dashboards: Vec<Value>,
}

impl DeploymentEngineerOutput {
    /// The output for a release of `plan`.
    pub fn new(plan: &DeploymentPlan, facts: &ReleaseFacts) -> Self {
        Self::of(&Watched::planned(&facts.deployment_id, &facts.model_version, &facts.endpoint_url, plan), facts)
    }

    /// The output for a release that is watched as `release` says.
    pub fn of(release: &Watched<'_>, facts: &ReleaseFacts) -> Self {
        let plan = release.plan;
        let url = facts.endpoint_url.trim_end_matches('/');
        let mut triggers = vec![json!({ "trigger": "readiness_lost" })];
        if plan.bake.for_ms > 0 {
            triggers.insert(
                0,
                json!({ "trigger": "error_rate", "above": plan.bake.max_error_rate, "within_ms": plan.bake.for_ms }),
            );
        }
        let baseline = facts.metrics_baseline.iter().filter(|(_, value)| value.is_finite());
        Self {
            deployment_config: DeploymentConfig {
                container_image: facts.artifact.clone(),
                replicas: plan.replicas,
                resources: object(
                    [("memoryMb", json!(plan.memory_mb))]
                        .into_iter()
                        .chain(plan.workers.map(|n| ("workers", json!(n)))),
                ),
                strategy: object([
                    ("type", json!(plan.strategy)),
                    ("slot", json!(plan.slots.candidate)),
                    ("modelVersion", json!(facts.model_version)),
                    ("previousVersion", json!(plan.previous_version())),
                ]),
            },
            serving_endpoint: ServingEndpoint {
                url: url.to_owned(),
                health_endpoint: format!("{url}/readyz"),
                metrics_endpoint: format!("{url}/metrics"),
            },
            traffic_config: TrafficConfig {
                canary_percent: first_percent(plan),
                rollout_schedule: plan.traffic.join("; "),
                rollback_triggers: triggers,
            },
            monitoring: Monitoring {
                metrics: baseline.map(|(name, value)| json!({ "name": name, "baseline": value })).collect(),
                ..watched(release)
            },
        }
    }
}

/// The alerts and the dashboard of a release; where they are to be had, as paths of the server and as commands.
fn watched(release: &Watched<'_>) -> Monitoring {
    let id = release.deployment_id;
    let rules = json!({ "path": format!("/releases/{id}/prometheus-rules"), "command": format!("tidegate release rules {id}") });
    let alert = |alert| {
        // Texts and words only: JSON can say them.
        let mut told = serde_json::to_value(alert).unwrap_or_default();
        told["rules"] = rules.clone();
        told
    };
    let dashboard = json!({
        "type": "grafana", "uid": dashboard_uid(release.plan.model.as_str()), "path": format!("/releases/{id}/grafana-dashboard"),
        "command": format!("tidegate release dashboard {id}"),
    });
    Monitoring {
        metrics: Vec::new(),
        alerts: alerts(release).into_iter().map(alert).collect(),
        dashboards: vec![dashboard],
    }
}

/// The first share of the traffic that the plan gives the new version, where it is a whole percent.
fn first_percent(plan: &DeploymentPlan) -> Option<u32> {
    let trial = plan.trial().filter(|_| matches!(plan.strategy, Strategy::Canary | Strategy::AbTest))?;
    let weight = trial.steps.iter().find_map(|step| match step {
        CanaryStep::Weight(weight) => Some(*weight),
        CanaryStep::Wait(_) | CanaryStep::Pause | CanaryStep::Analysis | CanaryStep::Approval => None,
    })?;
    (weight % (WHOLE_WEIGHT / 100) == 0).then_some(weight / (WHOLE_WEIGHT / 100))
}

fn object<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::fixtures::{facts, plan_of_iris};

    #[test]
    fn exactly_the_keys_of_the_contract() {
        let output = ModelDeployerOutput::new(&plan_of_iris(None), &facts()).expect("output");
        let json = serde_json::to_value(&output).expect("json");
        let keys: Vec<_> = json.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "deployment_id",
                "deployment_strategy",
                "deployment_timestamp",
                "endpoint_url",
                "health_check_passed",
                "metrics_baseline",
                "previous_version"
            ]
        );
        assert_eq!(json["previous_version"], Value::Null);
        assert_eq!(json["deployment_timestamp"], "2026-11-20T10:00:00.000+00:00");
        assert_eq!(json["deployment_strategy"], "blue-green");
        assert_eq!(serde_json::from_value::<ModelDeployerOutput>(json).expect("same"), output);
    }

    #[test]
    fn the_previous_version_may_be_null_but_not_absent() {
        let output = ModelDeployerOutput::new(&plan_of_iris(Some("v1")), &facts()).expect("output");
        assert_eq!(output.previous_version.as_deref(), Some("v1"));
        let mut json = serde_json::to_value(&output).expect("json");
        json.as_object_mut().expect("object").remove("previous_version");
        let error = serde_json::from_value::<ModelDeployerOutput>(json).expect_err("absent").to_string();
        assert!(error.contains("previous_version"), "{error}");
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let mut facts = facts();
        facts.metrics_baseline.insert("p99".into(), f64::NAN);
        let error = ModelDeployerOutput::new(&plan_of_iris(None), &facts).expect_err("NaN");
        assert_eq!(error, ContractError::NotFinite { name: "p99".into() });
        let (kept, dropped) = finite_metrics(facts.metrics_baseline);
        assert_eq!((kept.len(), dropped), (1, vec!["p99".to_owned()]));
    }
}
