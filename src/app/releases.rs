//! What is told of releases: the ledger's rows, and of one release everything that is known. Terminal and server tell the same.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{App, Home, host_failure};
use crate::graph::{Failure, ThreadId, ThreadStatus};
use crate::host::{HostClient, HostConfig};
use crate::ports::{Slot, VersionTraffic, first_of, together};
use crate::release::monitoring::{self, Watched};
use crate::release::{
    DeploymentEngineerOutput, DeploymentPlan, LedgerError, ModelDeployerOutput, ReleaseFacts, ReleaseFilter,
    ReleaseKind, ReleaseRow,
};

/// How long the host daemon may take to say how it fares.
const HOST_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// A live release with what the host daemon says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowServing {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: Option<String>,
    /// The release.
    pub deployment_id: String,
    /// The model's public URL.
    pub endpoint_url: Option<String>,
    /// Its first slot's name, for people.
    #[serde(skip)]
    pub slot_name: Option<String>,
    /// Its first slot.
    pub slot: Option<Slot>,
    /// What the slot does, or why that is not known.
    pub state: String,
    /// What its replicas did together.
    pub traffic: Option<VersionTraffic>,
}

/// Everything that is known of a release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReleaseTold {
    /// Its row, as `tidegate history --json` has it.
    pub release: ReleaseRow,
    /// The contract; null until it is complete.
    pub output: Option<ModelDeployerOutput>,
    /// The deployment engineer's document; null until it is complete.
    pub engineer: Option<DeploymentEngineerOutput>,
    /// The plan; null until there is one. A rollback has that of the release it went back to.
    pub plan: Option<DeploymentPlan>,
    /// The checks with what was seen; empty until they were made.
    pub checks: Value,
    /// What was measured before users saw it, by name.
    pub metrics: BTreeMap<String, f64>,
    /// How it fared while it was watched.
    pub bake: Option<Value>,
    /// How its thread stands; null where the thread is not kept any more.
    pub thread_status: Option<ThreadStatus>,
    /// How it fares now, where it is live.
    pub serving: Option<RowServing>,
}

fn ledger(error: &LedgerError) -> Failure {
    Failure::new(error.code(), error.to_string())
}

fn unreadable(what: &str, error: &serde_json::Error) -> Failure {
    Failure::new("release_unreadable", format!("the release's {what} cannot be read"))
        .because(error.to_string())
        .hint("a newer version of Tidegate may have written it; use that one")
}

/// A client that starts no daemon: looking must not start one that was stopped on purpose.
pub fn host_client(home: &Home) -> Result<HostClient, Failure> {
    let paths = HostConfig::new(home.dir()).and_then(|config| config.paths()).map_err(|e| host_failure(&e))?;
    Ok(HostClient::new(paths))
}

impl RowServing {
    fn of(row: &ReleaseRow, slot: Option<Slot>, traffic: Option<VersionTraffic>, trouble: Option<String>) -> Self {
        let word = |slot: &Slot| serde_json::to_value(slot.state).ok().and_then(|v| v.as_str().map(str::to_owned));
        let state = match (&slot, trouble) {
            (Some(slot), _) => word(slot).unwrap_or_default(),
            (None, Some(trouble)) => trouble,
            (None, None) => "gone".to_owned(),
        };
        Self {
            model: row.model_name.clone(),
            version: row.model_version.clone(),
            deployment_id: row.deployment_id.clone(),
            endpoint_url: row.endpoint_url.clone(),
            slot_name: row.slot.clone(),
            slot,
            state,
            traffic,
        }
    }
}

impl App {
    /// How a live release fares.
    pub async fn row_serving(&self, row: &ReleaseRow) -> RowServing {
        let down = || RowServing::of(row, None, None, Some("the host daemon does not run".to_owned()));
        let token = row.slot_token.clone().unwrap_or_default();
        let Ok(client) = host_client(self.home()) else { return down() };
        if client.status_now(HOST_ANSWERS_WITHIN).await.is_err() {
            return down();
        }
        let slot = client.slot(&token).await;
        let traffic = client.traffic(&row.model_name).await;
        let trouble = slot.as_ref().err().or(traffic.as_ref().err()).map(ToString::to_string);
        let traffic = together(traffic.unwrap_or_default().into_iter().filter(|t| first_of(&t.token) == token));
        RowServing::of(row, slot.ok().flatten(), traffic, trouble)
    }

    /// Releases, newest first.
    pub async fn releases(&self, filter: &ReleaseFilter) -> Result<Vec<ReleaseRow>, Failure> {
        self.ledger().list(filter).await.map_err(|e| ledger(&e))
    }

    /// Releases, newest first, and how many there are without limit and offset.
    pub async fn releases_page(&self, filter: &ReleaseFilter) -> Result<(Vec<ReleaseRow>, u64), Failure> {
        let total = self.ledger().count(filter).await.map_err(|e| ledger(&e))?;
        Ok((self.releases(filter).await?, total))
    }

    /// A model's releases, newest first; one at least.
    pub async fn releases_of(&self, model: &str) -> Result<Vec<ReleaseRow>, Failure> {
        let rows = self.ledger().history(model).await.map_err(|e| ledger(&e))?;
        if rows.is_empty() {
            let failure = Failure::new("model_unknown", format!("there is no model {model}"));
            return Err(failure.hint("`tidegate list` shows all releases"));
        }
        Ok(rows)
    }

    /// The release of an id.
    pub async fn release(&self, id: &str) -> Result<ReleaseRow, Failure> {
        let row = self.ledger().get(id).await.map_err(|e| ledger(&e))?;
        row.ok_or_else(|| {
            Failure::new("release_unknown", format!("there is no release {id}"))
                .hint("`tidegate list` shows all releases, and `GET /releases`")
        })
    }

    /// The release that a person means: an id, or a model's name for the one that serves, else its newest.
    pub async fn find_release(&self, meant: &str) -> Result<ReleaseRow, Failure> {
        if let Some(row) = self.ledger().get(meant).await.map_err(|e| ledger(&e))? {
            return Ok(row);
        }
        let mut rows = self.releases_of(meant).await?;
        let at = rows.iter().position(|row| row.live).unwrap_or(0);
        Ok(rows.swap_remove(at))
    }

    /// Everything that is known of a release.
    pub async fn release_told(&self, row: ReleaseRow) -> Result<ReleaseTold, Failure> {
        let plan = plan_of(&row)?;
        let output: Option<ModelDeployerOutput> =
            row.output.clone().map(serde_json::from_value).transpose().map_err(|e| unreadable("output", &e))?;
        let engineer = plan.as_ref().zip(output.as_ref()).map(|(plan, output)| engineer(&row, plan, output));
        let id = ThreadId::from(row.deployment_id.as_str());
        let thread = self.store().thread(&id).await.map_err(|e| e.failure())?;
        let validated = self.channel(&id, "validated").await?;
        let checks = validated.map(|mut validated| validated["checks"].take()).filter(Value::is_array);
        let serving = if row.live { Some(self.row_serving(&row).await) } else { None };
        Ok(ReleaseTold {
            output,
            engineer,
            plan,
            checks: checks.unwrap_or_else(|| Value::Array(Vec::new())),
            metrics: row.metrics_baseline.clone(),
            bake: self.channel(&id, "bake").await?,
            thread_status: thread.map(|thread| thread.status),
            serving,
            release: row,
        })
    }

    /// The alerts of a release as a Prometheus rule file.
    pub fn prometheus_rules(&self, row: &ReleaseRow) -> Result<String, Failure> {
        let plan = watchable(row)?;
        monitoring::rules(&watched(row, &plan)).map_err(|why| {
            Failure::new("rules_unwritable", format!("the rules of release {} cannot be written", row.deployment_id))
                .because(why)
        })
    }

    /// The Grafana dashboard of a release.
    pub fn grafana_dashboard(&self, row: &ReleaseRow) -> Result<Value, Failure> {
        let plan = watchable(row)?;
        Ok(monitoring::dashboard(&watched(row, &plan)))
    }
}

fn plan_of(row: &ReleaseRow) -> Result<Option<DeploymentPlan>, Failure> {
    row.plan.clone().map(serde_json::from_value).transpose().map_err(|e| unreadable("plan", &e))
}

/// The plan of a release that has come so far that it can be watched.
fn watchable(row: &ReleaseRow) -> Result<DeploymentPlan, Failure> {
    let plan = plan_of(row)?.filter(|_| row.model_version.is_some() && row.output.is_some());
    plan.ok_or_else(|| {
        Failure::new("release_unfinished", format!("release {} has nothing that could be watched", row.deployment_id))
            .because(format!("it is {} and never served, or does not yet", row.status))
            .hint("ask for one that is complete: `tidegate list`")
    })
}

fn watched<'a>(row: &'a ReleaseRow, plan: &'a DeploymentPlan) -> Watched<'a> {
    let version = row.model_version.as_deref().unwrap_or_default();
    let url = row.endpoint_url.as_deref().unwrap_or_default().trim_end_matches('/');
    let planned = Watched::planned(&row.deployment_id, version, url, plan);
    // A rollback's plan is that of the release it went back to; it keeps nothing warm itself.
    Watched { keeps_standby: planned.keeps_standby && row.kind == ReleaseKind::Deploy, ..planned }
}

fn engineer(row: &ReleaseRow, plan: &DeploymentPlan, output: &ModelDeployerOutput) -> DeploymentEngineerOutput {
    let facts = ReleaseFacts {
        deployment_id: row.deployment_id.clone(),
        model_version: row.model_version.clone().unwrap_or_default(),
        endpoint_url: output.endpoint_url.clone(),
        finished_at: output.deployment_timestamp.to_utc(),
        health_check_passed: output.health_check_passed,
        metrics_baseline: output.metrics_baseline.clone(),
        artifact: row.content_digest.clone(),
    };
    DeploymentEngineerOutput::of(&watched(row, plan), &facts)
}
