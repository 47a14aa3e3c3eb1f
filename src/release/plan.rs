//! The plan of a release: immutable, complete, and explained. Whoever executes it chooses nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canary::CanaryPlan;
use super::digest::own_digest;
use super::format::Format;
use super::golden::SmokeCase;
use super::metric::{During, MetricPlan};
use super::name::ModelName;
use super::policy::{ApprovalNeed, Policy};
use super::request::{DeployRequest, EnvSpec, ModelSource, ServingRequirements};
use super::rolling::RollingPlan;
use super::strategy::{Slots, Strategy};
use super::trial::{AbTestPlan, ShadowPlan, Trial};
use super::units::duration_text;
use crate::judge::Rule;

/// Everything that the planner looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanInput {
    /// What is asked for; the target environment is in it.
    pub request: DeployRequest,
    /// What serves now, if anything does.
    #[serde(default)]
    pub live: Option<LiveRelease>,
    /// What the machine has.
    #[serde(default)]
    pub machine: Machine,
    /// What was seen of the model so far.
    #[serde(default)]
    pub seen: Seen,
    /// The operator's rules.
    #[serde(default)]
    pub policy: Policy,
}

/// The release that serves now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveRelease {
    /// Its release.
    pub deployment_id: String,
    /// Its version.
    pub model_version: String,
    /// Its slot's name, e.g. `blue`.
    #[serde(default)]
    pub slot: Option<String>,
    /// Its slot's token.
    #[serde(default)]
    pub slot_token: Option<String>,
    /// Its content, `sha256:<hex>`.
    #[serde(default)]
    pub content_digest: Option<String>,
    /// How many replicas it was planned with; absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

/// What was seen of a model so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Requests per second that its users made in the last minutes; absent: not known.
    #[serde(default)]
    pub rps: Option<f64>,
    /// Requests per second that a release answered at most when one was last measured; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_rps: Option<f64>,
    /// How many replicas that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// How many workers each of them had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Workers>,
    /// The version of the last few releases that failed after users had got to it, the newest of them.
    #[serde(default)]
    pub went_bad: Option<String>,
}

/// What the machine has. Absent: not known, not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Memory that can be had now, in MB.
    #[serde(default)]
    pub memory_free_mb: Option<u64>,
    /// Memory that one copy of the model needs, in MB, e.g. as measured at the live version.
    #[serde(default)]
    pub memory_needed_mb: Option<u64>,
    /// How many workers that copy has, and how many its code asks for; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Workers>,
    /// Processors.
    #[serde(default)]
    pub cpu_count: Option<u32>,
}

/// How many workers a replica of some version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workers {
    /// As it runs.
    pub each: u32,
    /// As its code says.
    pub own: u32,
}

/// What will be done, in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentPlan {
    /// Format of this structure.
    #[serde(default)]
    pub format: Format<1>,
    /// The model's public name.
    pub model: ModelName,
    /// The version; absent: the build assigns one.
    #[serde(default)]
    pub version: Option<String>,
    /// The target environment, if one was named.
    #[serde(default)]
    pub environment: Option<String>,
    /// How the package is made.
    pub build: BuildSpec,
    /// The strategy.
    pub strategy: Strategy,
    /// The steps of a canary; absent for other strategies, and where nothing serves that it could be compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryPlan>,
    /// The split of an A/B test; absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ab_test: Option<AbTestPlan>,
    /// What a shadow repeats and compares; absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowPlan>,
    /// How replicas take each other's place; absent as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<RollingPlan>,
    /// How long requests may wait while one version stops and the next one starts, in milliseconds; absent where they never have to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// How long the version before stays warm behind a release that went well, in milliseconds; absent: until another one takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_ms: Option<u64>,
    /// How many copies of the new version run.
    pub replicas: u32,
    /// How many workers each of them has; absent: as the service's code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Whether that was sized, not asked for: then it counts only where the code of what was built asks for fewer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub workers_sized: bool,
    /// Memory counted for the new version, in MB, over all replicas.
    pub memory_mb: u64,
    /// Where versions run.
    pub slots: Slots,
    /// How long the new version may take to become ready, in milliseconds.
    pub ready_timeout_ms: u64,
    /// What it must be able to do.
    pub serving: ServingRequirements,
    /// Golden cases.
    pub smoke: Vec<SmokeCase>,
    /// What is checked before users see anything.
    pub checks: Vec<PlannedCheck>,
    /// How the new version is watched after it got the traffic.
    pub bake: Bake,
    /// Figures of the user's own that are held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricPlan>,
    /// What the judge holds while it is watched with all of the traffic, beside [`Bake::max_error_rate`]; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake_rule: Option<Rule>,
    /// What happens to the traffic, one sentence each.
    pub traffic: Vec<String>,
    /// Whether a human decides, and why.
    pub approval: ApprovalNeed,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// What serves now and is gone back to.
    #[serde(default)]
    pub previous: Option<LiveRelease>,
    /// File with the service's variables and secrets, absolute: the path, never the content.
    #[serde(default)]
    pub env_file: Option<String>,
    /// What happens, in order.
    pub steps: Vec<PlanStep>,
    /// Why it is so, rule by rule.
    pub reasons: Vec<Reason>,
}

/// How the package is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// A project, or a model for which a service is generated.
    pub source: ModelSource,
    /// The service, `module:Class`; absent: what BentoML finds.
    #[serde(default)]
    pub service: Option<String>,
    /// The Python environment.
    pub env: EnvSpec,
    /// Command that trains the model when it is missing, argv.
    #[serde(default)]
    pub train: Option<Vec<String>>,
    /// Tags of models that the build needs.
    #[serde(default)]
    pub needs_models: Vec<String>,
}

/// How the new version is watched after it got the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bake {
    /// How long, in milliseconds; 0: not at all.
    pub for_ms: u64,
    /// Share of failed requests above which it goes back, 0 to 1.
    pub max_error_rate: f64,
}

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// The process answers.
    Liveness,
    /// It says that it is ready.
    Readiness,
    /// A golden case.
    Smoke,
    /// A figure of the user's own.
    Metric,
    /// A request made from the service's own schema, as there is no golden case.
    GeneratedSmoke,
    /// The 99th percentile of latency.
    LatencyP99,
    /// Requests per second.
    Throughput,
    /// The share of requests that succeed.
    Availability,
    /// The golden cases' answers beside the live version's.
    DifferenceToLive,
}

/// Which side of a limit is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The measured value may not be above.
    AtMost,
    /// The measured value may not be below.
    AtLeast,
}

/// A limit on a measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Which side is good.
    pub bound: Bound,
    /// The limit.
    pub value: f64,
    /// Its unit: `ms`, `rps`.
    pub unit: String,
}

impl Limit {
    /// Whether `value` keeps the limit; what is not a number does not.
    pub fn holds(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtMost => value <= self.value,
            Bound::AtLeast => value >= self.value,
        }
    }
}

/// One check that will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedCheck {
    /// Its name, unique in the plan, e.g. `smoke:setosa`.
    pub name: String,
    /// What it looks at.
    pub kind: CheckKind,
    /// What must hold, in words.
    pub what: String,
    /// The limit on what is measured, where something is.
    #[serde(default)]
    pub limit: Option<Limit>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    /// The node that does it, e.g. `packager`.
    pub node: String,
    /// What it does, one sentence.
    pub does: String,
}

/// Why something in a plan is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The rule, e.g. `strategy`.
    pub rule: String,
    /// What it decided, from what.
    pub because: String,
}

impl DeploymentPlan {
    /// `sha256:<hex>` over the whole plan in canonical JSON.
    pub fn digest(&self) -> String {
        own_digest(self)
    }

    /// What the new version goes through before it gets all of the traffic, if anything.
    pub fn trial(&self) -> Option<Trial> {
        let canary = || self.canary.as_ref().map(CanaryPlan::trial);
        let ab_test = || self.ab_test.as_ref().map(AbTestPlan::trial);
        let shadow = || self.shadow.as_ref().map(ShadowPlan::trial);
        let rolling = || self.rolling.as_ref().map(|rolling| rolling.trial(self.replicas));
        canary().or_else(ab_test).or_else(shadow).or_else(rolling)
    }

    /// How many replicas are started before validation: all, or one where they are rolled out one after the other.
    pub fn first_replicas(&self) -> u32 {
        if self.rolling.is_some() { 1 } else { self.replicas }
    }

    /// The metrics that are held at a time.
    pub fn metrics_during(&self, during: During) -> Vec<MetricPlan> {
        self.metrics.iter().filter(|metric| metric.during.contains(&during)).cloned().collect()
    }

    /// The version that serves now.
    pub fn previous_version(&self) -> Option<&str> {
        self.previous.as_ref().map(|live| live.model_version.as_str())
    }

    /// The version in words.
    pub fn version_text(&self) -> &str {
        self.version.as_deref().unwrap_or("assigned by the build")
    }

    /// The plan as a JSON value.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("invariant: a plan holds nothing that JSON cannot say")
    }

    /// The plan for people, plain lines.
    pub fn lines(&self) -> Vec<String> {
        let workers = self.workers.map(|workers| format!(" of {workers} worker(s)")).unwrap_or_default();
        let mut lines = vec![
            format!("model      {} ({})", self.model, self.build.source.path()),
            format!("version    {}", self.version_text()),
            format!("replaces   {}", self.previous_version().unwrap_or("nothing: first release")),
            format!("strategy   {}, slot {}", self.strategy, self.slots.candidate),
            format!("memory     {} MB for {} replica(s){workers}", self.memory_mb, self.replicas),
            format!("ready in   {}", duration_text(self.ready_timeout_ms)),
            format!(
                "approval   {}: {}",
                if self.approval.required { "required" } else { "none" },
                self.approval.because
            ),
            "steps".to_owned(),
        ];
        let steps = self.steps.iter().enumerate();
        lines.extend(steps.map(|(index, step)| format!("  {}. {}: {}", index + 1, step.node, step.does)));
        lines.push("checks".to_owned());
        lines.extend(self.checks.iter().map(|check| format!("  {}: {}", check.name, check.what)));
        if !self.metrics.is_empty() {
            lines.push("metrics".to_owned());
            lines.extend(self.metrics.iter().map(|metric| format!("  {}", metric.line())));
        }
        lines.push("reasons".to_owned());
        lines.extend(self.reasons.iter().map(|reason| format!("  {}: {}", reason.rule, reason.because)));
        lines
    }
}
