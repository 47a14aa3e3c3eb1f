//! From a request and the state of the world to a plan. Pure: the same input gives the same plan, byte for byte.

use serde::{Deserialize, Serialize};

use super::checks::{checks, steps};
use super::format::Format;
use super::plan::{BuildSpec, DeploymentPlan, PlanInput, Reason};
use super::request::{DEFAULT_REQUIREMENTS, DeployRequest, EnvSpec, ModelSource};
use super::strategy::{Situation, Slots, Strategies, Strategy};
use super::units::duration_text;
use bake::{bake, bake_rule};
use choose::{choose_strategy, hold, trials};
use metrics::metrics;
pub use size::{DEFAULT_MEMORY_MB, MOST_REPLICAS, replicas_for};
use size::{Size, memory, size};

/// How long a version may take to become ready where nobody says, in milliseconds: ten times what a small model takes.
pub const DEFAULT_READY_TIMEOUT_MS: u64 = 60_000;
/// How long the new version is watched where nobody says, in milliseconds.
pub const DEFAULT_BAKE_MS: u64 = 10_000;
/// How long a request may wait while a version is recreated where nobody says, in milliseconds: as long as clients wait as a rule.
pub const DEFAULT_HOLD_MS: u64 = 60_000;
/// The measured figure that later plans size replicas by.
pub const MOST_RPS: &str = "throughput_rps";
/// Requests per second from which a canary's judge has something to look at.
pub const CANARY_FROM_RPS: f64 = 1.0;
/// Share of failed requests above which it goes back, where nobody says.
pub const DEFAULT_MAX_ERROR_RATE: f64 = 0.01;

/// Platform words that mean this machine.
const THIS_MACHINE: [&str; 6] = ["local", "localhost", "host", "bentoml", "linux", "this-machine"];
/// Framework words for which a service can be generated.
const GENERATED: [&str; 3] = ["sklearn", "scikit-learn", "scikit_learn"];

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PlanError {
    /// The strategy is known but cannot be executed.
    #[error("the strategy {strategy} is known but cannot be executed yet; {available} can")]
    StrategyUnavailable {
        /// The one asked for.
        strategy: Strategy,
        /// Those that can be, in words.
        available: String,
    },
    /// Several strategies are described and none is named.
    #[error("the request describes {described} and names no strategy")]
    StrategyUnclear {
        /// Those that are described, in words.
        described: String,
    },
    /// What a strategy is told makes no sense.
    #[error("{key}.{message}")]
    TrialInvalid {
        /// The strategy's own key: `canary`, `ab_test`, `shadow`.
        key: String,
        /// Where and why, in words.
        message: String,
    },
    /// A metric makes no sense.
    #[error("metrics.{metric}: {message}")]
    MetricInvalid {
        /// Its name, or its number.
        metric: String,
        /// Why, in words.
        message: String,
    },
    /// No service can be generated for the framework.
    #[error("no service can be generated for a model of `{framework}`, only for scikit-learn")]
    FrameworkUnavailable {
        /// The framework asked for.
        framework: String,
    },
    /// The platform is not this machine.
    #[error("the platform `{platform}` is not available; this tidegate deploys to this machine (`local`)")]
    PlatformUnavailable {
        /// The platform asked for.
        platform: String,
    },
    /// More replicas than there may be.
    #[error("{replicas} replicas were asked for; a version has at most {MOST_REPLICAS} on one machine")]
    ReplicasUnavailable {
        /// How many were asked for.
        replicas: u64,
    },
    /// A resource is not understood.
    #[error("infrastructure.resources.{key}: `{value}` is not understood; write {accepted}")]
    ResourceInvalid {
        /// The key below `resources`.
        key: String,
        /// The value.
        value: String,
        /// Accepted forms, by example.
        accepted: String,
    },
    /// It does not fit beside the live version.
    #[error("{model} needs {needed_mb} MB beside what runs already, and {free_mb} MB are free")]
    InsufficientMemory {
        /// The model.
        model: String,
        /// What the new version needs, in MB.
        needed_mb: u64,
        /// What is free, in MB.
        free_mb: u64,
    },
    /// The version is the one that serves.
    #[error("version {version} of {model} is live already")]
    VersionIsLive {
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
}

impl PlanError {
    /// Stable code, documented in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::StrategyUnavailable { .. } => "strategy_unavailable",
            Self::StrategyUnclear { .. } => "strategy_unclear",
            Self::TrialInvalid { .. } => "trial_invalid",
            Self::MetricInvalid { .. } => "metric_invalid",
            Self::FrameworkUnavailable { .. } => "framework_unavailable",
            Self::PlatformUnavailable { .. } => "platform_unavailable",
            Self::ReplicasUnavailable { .. } => "replicas_unavailable",
            Self::ResourceInvalid { .. } => "resource_invalid",
            Self::InsufficientMemory { .. } => "insufficient_memory",
            Self::VersionIsLive { .. } => "version_is_live",
        }
    }

    /// What to do next, one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::StrategyUnavailable { .. } => "ask for another one, or leave the strategy out",
            Self::StrategyUnclear { .. } => "name one: `strategy: …`, or `--strategy`",
            Self::TrialInvalid { .. } => {
                "docs/strategies.md has the keys of each strategy, docs/judge.md those of a rule"
            }
            Self::MetricInvalid { .. } => "docs/metrics.md has the keys of a metric",
            Self::FrameworkUnavailable { .. } => {
                "write a BentoML service (a class with @bentoml.service that loads the model) and a tidegate.yaml that names it, \
                 and deploy that folder"
            }
            Self::PlatformUnavailable { .. } => "leave `infrastructure.platform` out, or write `local`",
            Self::ReplicasUnavailable { .. } => "ask for fewer, and for more `workers` in each",
            Self::ResourceInvalid { .. } => "correct the value, or leave it out",
            Self::InsufficientMemory { .. } => {
                "free memory, retire a model that is not needed, or replace the live version in its place: `--strategy recreate`"
            }
            Self::VersionIsLive { .. } => "choose another version, or leave it out and the build makes one",
        }
    }

    /// Whether the same request may succeed later by itself.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::InsufficientMemory { .. })
    }
}

/// Plans a release with the strategies that come with Tidegate.
///
/// # Errors
/// When the request asks for something that cannot be done here; nothing asked for is silently replaced.
pub fn plan(input: &PlanInput) -> Result<DeploymentPlan, PlanError> {
    plan_with(input, &Strategies::builtin())
}

/// [`plan`] with other strategies.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(input: &PlanInput, strategies: &Strategies) -> Result<DeploymentPlan, PlanError> {
    let PlanInput { request, live, policy, .. } = input;
    let mut why = Reasons::default();
    let strategy = choose_strategy(input, strategies, &mut why)?;
    let build = build_spec(request, &mut why)?;
    check_place(request, &mut why)?;
    check_version(input, &mut why)?;
    let size = size(input, &mut why)?;
    let Size { replicas, workers, workers_sized } = size;
    let trials = trials(request, strategy.strategy(), live.is_some(), replicas, &mut why)?;
    let trial = trials.trial(replicas);
    let copies = trials.copies_at_once();
    let copies = copies.unwrap_or_else(|| strategy.additional_copies().saturating_mul(replicas));
    let memory_mb = memory(input, copies, size, &mut why)?;
    let ready_timeout_ms = ready_timeout(request, &mut why);
    let bake = bake(request, &mut why);
    let approval = policy.decide(request.environment.as_deref(), live.is_none(), request.approval);
    why.add("approval", approval.because.clone());
    let recreated = strategy.strategy() == Strategy::Recreate && live.is_some();
    let hold_ms = recreated.then(|| hold(request, &mut why)).transpose()?;
    let standby_ms = standby(request.standby_ms.filter(|_| live.is_some() && !recreated), &mut why);
    let situation = Situation {
        model: request.model.as_str(),
        live_version: live.as_ref().map(|live| live.model_version.as_str()),
        live_slot: live.as_ref().map(|live| live.slot.as_deref().unwrap_or("blue")),
        bake_ms: bake.for_ms,
        trial: trial.as_ref(),
        hold_ms: hold_ms.unwrap_or_default(),
        standby_ms,
    };
    let slots = strategy.slots(&situation);
    why.add("slot", slot_chosen(&slots));
    let metrics = metrics(request, trial.as_ref(), &mut why)?;
    let bake_rule = bake_rule(request, bake, &mut why)?;
    let checks = checks(input, ready_timeout_ms, &metrics, &mut why);
    let plan = DeploymentPlan {
        format: Format,
        model: request.model.clone(),
        version: request.version.clone(),
        environment: request.environment.clone(),
        build,
        strategy: strategy.strategy(),
        canary: trials.canary,
        ab_test: trials.ab_test,
        shadow: trials.shadow,
        rolling: trials.rolling,
        hold_ms,
        standby_ms,
        replicas,
        workers,
        workers_sized,
        memory_mb,
        traffic: strategy.traffic(&situation),
        slots,
        ready_timeout_ms,
        serving: request.serving,
        smoke: request.smoke.clone(),
        checks,
        bake,
        metrics,
        bake_rule,
        approval,
        requested_by: request.requested_by.clone(),
        previous: live.clone(),
        env_file: request.env_file.clone(),
        steps: Vec::new(),
        reasons: why.0,
    };
    Ok(DeploymentPlan { steps: steps(&plan), ..plan })
}

fn standby(keep_ms: Option<u64>, why: &mut Reasons) -> Option<u64> {
    if let Some(ms) = keep_ms {
        why.add("standby", format!("the version before stays warm for {}, as the request says", duration_text(ms)));
    }
    keep_ms
}

fn slot_chosen(slots: &Slots) -> String {
    match &slots.live {
        Some(live) => format!("{live} serves, so the new version goes to {}", slots.candidate),
        None => format!("nothing serves, so the new version goes to {}", slots.candidate),
    }
}

/// Collects why.
#[derive(Default)]
pub(super) struct Reasons(Vec<Reason>);

impl Reasons {
    pub(super) fn add(&mut self, rule: &str, because: impl Into<String>) {
        self.0.push(Reason { rule: rule.to_owned(), because: because.into() });
    }
}

fn build_spec(request: &DeployRequest, why: &mut Reasons) -> Result<BuildSpec, PlanError> {
    match &request.source {
        ModelSource::Project { path } => why.add("package", format!("the project in {path} has its own service")),
        ModelSource::Artifact { framework, .. } => {
            if !GENERATED.contains(&framework.to_ascii_lowercase().as_str()) {
                return Err(PlanError::FrameworkUnavailable { framework: framework.clone() });
            }
            why.add("package", format!("only a {framework} model is given, so a BentoML service is generated for it"));
        }
    }
    let env = request.env.clone().unwrap_or_else(|| {
        why.add("environment", format!("no requirements file is named, so it is {DEFAULT_REQUIREMENTS}"));
        EnvSpec { requirements: DEFAULT_REQUIREMENTS.to_owned(), python: None }
    });
    Ok(BuildSpec {
        source: request.source.clone(),
        service: request.service.clone(),
        env,
        train: request.train.clone(),
        needs_models: request.needs_models.clone(),
    })
}

fn check_place(request: &DeployRequest, why: &mut Reasons) -> Result<(), PlanError> {
    let place = &request.infrastructure;
    match &place.platform {
        None => why.add("platform", "none is named, so it is this machine"),
        Some(platform) if THIS_MACHINE.contains(&platform.to_ascii_lowercase().as_str()) => {
            why.add("platform", format!("{platform} is this machine"));
        }
        Some(platform) => return Err(PlanError::PlatformUnavailable { platform: platform.clone() }),
    }
    if let Some(namespace) = &place.namespace {
        why.add("namespace", format!("{namespace} is recorded only: this machine has no namespaces"));
    }
    for key in place.resources.keys().filter(|key| !matches!(key.as_str(), "memory" | "cpu" | "replicas" | "workers")) {
        why.add("resources", format!("{key} is recorded only: this machine cannot reserve it"));
    }
    Ok(())
}

fn check_version(input: &PlanInput, why: &mut Reasons) -> Result<(), PlanError> {
    let live = input.live.as_ref().map(|live| live.model_version.as_str());
    match (input.request.version.as_deref(), live) {
        (Some(version), Some(live)) if version == live => {
            let (model, version) = (input.request.model.to_string(), version.to_owned());
            return Err(PlanError::VersionIsLive { model, version });
        }
        (Some(version), _) => why.add("version", format!("{version}: the request names it")),
        (None, _) => why.add("version", "the request names none, so the build assigns it"),
    }
    why.add(
        "previous",
        match live {
            Some(live) => format!("version {live} serves and is what a rollback goes back to"),
            None => "nothing serves: a failure closes the endpoint again".to_owned(),
        },
    );
    Ok(())
}

fn ready_timeout(request: &DeployRequest, why: &mut Reasons) -> u64 {
    let (ms, source) = match request.ready_timeout_ms {
        Some(ms) => (ms, "as the request says"),
        None => (DEFAULT_READY_TIMEOUT_MS, "by default"),
    };
    why.add("ready_timeout", format!("{} {source}", duration_text(ms)));
    ms
}

mod bake;
mod choose;
mod metrics;
mod size;
#[cfg(test)]
mod tests;
