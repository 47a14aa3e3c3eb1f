//! What tools answer.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::graph::{Failure, ThreadStatus};
use crate::release::{
    ApprovalNeed, CheckResult, ModelDeployerOutput, PlanState, Reason, ReleaseKind, ReleaseRow, Strategy,
};

/// How a release, or a rollback, stands.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Release {
    /// Its thread; the contract calls it `deployment_id`.
    pub thread_id: String,
    /// `model_deployer` or `rollback`.
    pub workflow: String,
    /// The model.
    pub model: Option<String>,
    /// The version, once it is known.
    pub version: Option<String>,
    /// What its run is.
    pub status: ThreadStatus,
    /// Whether nothing more comes of it.
    pub ended: bool,
    /// What the release is, once it is planned.
    pub release: Option<PlanState>,
    /// Who asked for it.
    pub requested_by: Option<String>,
    /// What is due or at work.
    pub next: Vec<String>,
    /// Set while it waits for a person.
    pub approval: Option<Approval>,
    /// Why it failed, was cancelled or is stuck.
    pub failure: Option<Trouble>,
    /// The contract, when it has ended well.
    pub output: Option<ModelDeployerOutput>,
}

/// A question that a person decides. No tool does.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Approval {
    /// The question.
    pub question_id: String,
    /// The version that it is about.
    pub version: String,
    /// Digest of what is shown; a decision carries it.
    pub digest: String,
    /// Since when.
    pub asked_at: DateTime<Utc>,
    /// Until when; then the release fails.
    pub expires_at: Option<DateTime<Utc>>,
    /// What a person is shown, line by line.
    pub shows: Vec<String>,
    /// How a person decides.
    pub decide: Decide,
}

/// How a person decides.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Decide {
    /// The command that says yes.
    pub approve: String,
    /// The command that says no.
    pub reject: String,
    /// Where it can be looked at and decided over HTTP, where a server runs here.
    pub url: Option<String>,
}

/// What went wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Trouble {
    /// A stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// Why.
    pub cause: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl From<&Failure> for Trouble {
    fn from(failure: &Failure) -> Self {
        let failure = failure.clone().into_details();
        Self { code: failure.code, message: failure.message, cause: failure.cause, hint: failure.hint }
    }
}

/// What would be done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Planned {
    /// The model.
    pub model: String,
    /// The version; absent: the build assigns one.
    pub version: Option<String>,
    /// The version that serves now.
    pub previous_version: Option<String>,
    /// The strategy.
    pub strategy: Strategy,
    /// Whether a person is asked, and why.
    pub approval: ApprovalNeed,
    /// The plan in words, line by line, with the reasons rule by rule.
    pub summary: Vec<String>,
    /// The whole plan, as `tidegate://schemas/plan` describes it.
    pub plan: Map<String, Value>,
}

/// Releases, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Releases {
    /// The rows.
    pub releases: Vec<Row>,
    /// Whether there are older ones.
    pub more: bool,
}

/// One release or rollback.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Its thread.
    pub thread_id: String,
    /// A deploy or a rollback.
    pub kind: ReleaseKind,
    /// The model.
    pub model: String,
    /// The version, once it is known.
    pub version: Option<String>,
    /// Its state.
    pub state: PlanState,
    /// Whether it serves now.
    pub live: bool,
    /// The strategy.
    pub strategy: Strategy,
    /// The model's public URL.
    pub endpoint_url: Option<String>,
    /// The version that served before.
    pub previous_version: Option<String>,
    /// Why it failed, or why it was rolled back.
    pub reason: Option<String>,
    /// Who asked.
    pub requested_by: Option<String>,
    /// The target environment.
    pub environment: Option<String>,
    /// When it was opened.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl From<ReleaseRow> for Row {
    fn from(row: ReleaseRow) -> Self {
        Self {
            thread_id: row.deployment_id,
            kind: row.kind,
            model: row.model_name,
            version: row.model_version,
            state: row.status,
            live: row.live,
            strategy: row.deployment_strategy,
            endpoint_url: row.endpoint_url,
            previous_version: row.previous_version,
            reason: row.reason,
            requested_by: row.requested_by,
            environment: row.environment,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

/// What happened in a run, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explained {
    /// The run.
    pub thread_id: String,
    /// Its workflow.
    pub workflow: String,
    /// What it is.
    pub status: ThreadStatus,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// Why the plan is as it is, rule by rule.
    pub reasons: Vec<Reason>,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Steps at the beginning that are left out, because there are too many.
    pub left_out: usize,
    /// The checks before users saw anything.
    pub checks: Vec<CheckResult>,
    /// What the judge found while the version was watched.
    pub verdicts: Vec<Verdict>,
    /// Who answered what was asked.
    pub decisions: Vec<Decision>,
    /// Effects that were undone, newest first.
    pub undone: Vec<String>,
    /// Why it failed, was cancelled or is stuck.
    pub failure: Option<Trouble>,
}

/// A node that was due.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Step {
    /// The superstep, from 1.
    pub step: i64,
    /// The node, with the nodes that it lies in: `strategy/traffic_shift`.
    pub node: String,
    /// The how-many-eth time it was due.
    pub visit: u64,
    /// How far it came: `done`, `failed`, `asks` …
    pub state: String,
    /// When it became due.
    pub at: DateTime<Utc>,
    /// How long it worked, in milliseconds.
    pub took_ms: u64,
    /// How long it waited for an answer, a signal or the time, in milliseconds.
    pub waited_ms: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Code of its last failure.
    pub failure: Option<String>,
}

/// A verdict of the judge.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Verdict {
    /// When.
    pub at: DateTime<Utc>,
    /// Of what: `bake`, `canary` …
    pub of: String,
    /// `pass`, `fail` or `inconclusive`.
    pub verdict: String,
    /// Why.
    pub reason: String,
}

/// An answer to a question.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Decision {
    /// The question.
    pub question_id: String,
    /// The node that asked.
    pub node: String,
    /// When it was asked.
    pub asked_at: DateTime<Utc>,
    /// Who answered; absent: nobody yet, or nobody in time.
    pub by: Option<String>,
    /// Through what.
    pub via: Option<String>,
    /// When.
    pub at: Option<DateTime<Utc>>,
    /// `approve` or `reject`.
    pub verdict: Option<String>,
    /// Why.
    pub reason: Option<String>,
}
