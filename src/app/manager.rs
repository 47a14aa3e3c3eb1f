//! The real parts for the domain's [`DeploymentManager`] and [`DeploymentOrchestrator`]: the workflow deploys, the endpoint's own
//! `/readyz` tells its health.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{App, Start};
use crate::graph::{Advance, Failure, ThreadId, ThreadStatus};
use crate::nodes::RollbackRequest;
use crate::ports::ServiceCall;
use crate::release::{
    DeployCall, DeployFailure, DeployFn, DeployRequest, Deployed, DeploymentManager, DeploymentOrchestrator, Health,
    HealthChecker, ModelName, ReleaseRow, RollbackCall, Surroundings,
};

/// Longest wait for a health answer, in milliseconds.
const HEALTH_TIMEOUT_MS: u64 = 5_000;

/// Finds the request of a service by its name: where its project lies.
pub type FindRequest = Arc<dyn Fn(&str) -> Result<DeployRequest, Failure> + Send + Sync>;

/// Deploys and rolls back by the built-in workflows, each a thread with the release's id.
pub struct WorkflowDeployer {
    app: Arc<App>,
    find: FindRequest,
}

impl WorkflowDeployer {
    /// A deployer over a home; `find` names the project of a service.
    pub fn new(app: Arc<App>, find: FindRequest) -> Self {
        Self { app, find }
    }

    async fn run(&self, id: &ThreadId) -> Result<(), DeployFailure> {
        let end = self.app.advance(id, Advance::default()).await.map_err(|f| failed(&f))?;
        match end.status {
            ThreadStatus::Succeeded => Ok(()),
            ThreadStatus::Interrupted => Err(DeployFailure {
                code: "waiting".to_owned(),
                message: format!("release {id} waits for a decision; the caller does not"),
            }),
            status => {
                let unfinished = Failure::new("not_finished", format!("release {id} is {}", status.word()));
                Err(failed(&end.failure.unwrap_or(unfinished)))
            }
        }
    }
}

fn failed(failure: &Failure) -> DeployFailure {
    DeployFailure { code: failure.code.clone(), message: failure.message.clone() }
}

#[async_trait]
impl DeployFn for WorkflowDeployer {
    async fn deploy(&self, call: &DeployCall) -> Result<Deployed, DeployFailure> {
        let mut request = (self.find)(&call.service).map_err(|f| failed(&f))?;
        request.version = call.version.clone().or(request.version);
        request.strategy = Some(call.strategy);
        let id = ThreadId::from(call.deployment_id.as_str());
        self.app
            .start_deploy_as(Start { id: Some(id.clone()), approved_by: None }, &request)
            .await
            .map_err(|f| failed(&f))?;
        self.run(&id).await?;
        let row = self.app.ledger().get(&call.deployment_id).await.ok().flatten();
        Ok(row.map(deployed).unwrap_or_default())
    }

    async fn roll_back(&self, call: &RollbackCall) -> Result<(), DeployFailure> {
        let model = ModelName::new(&call.live.model_name)
            .map_err(|e| DeployFailure { code: "request_value".to_owned(), message: e.to_string() })?;
        let to = call.target.model_version.clone();
        let request = RollbackRequest { model, to, reason: call.reason.clone(), requested_by: None };
        let id = ThreadId::from(call.deployment_id.as_str());
        self.app.start_rollback_as(Some(id.clone()), &request).await.map_err(|f| failed(&f))?;
        self.run(&id).await
    }

    fn keeps_ledger(&self) -> bool {
        true
    }
}

fn deployed(row: ReleaseRow) -> Deployed {
    let passed = row.output.as_ref().and_then(|o| o.get("health_check_passed")).and_then(Value::as_bool);
    Deployed {
        model_version: row.model_version.unwrap_or_default(),
        endpoint_url: row.endpoint_url.unwrap_or_default(),
        slot: row.slot,
        slot_token: row.slot_token,
        content_digest: row.content_digest,
        release_dir: row.release_dir,
        health_check_passed: passed.unwrap_or(false),
        metrics_baseline: row.metrics_baseline,
    }
}

/// Asks the public endpoint of a release.
pub struct EndpointHealth(pub Arc<App>);

#[async_trait]
impl HealthChecker for EndpointHealth {
    async fn check(&self, release: &ReleaseRow) -> Health {
        let Some(url) = &release.endpoint_url else {
            return Health { healthy: false, detail: "it has no endpoint".to_owned() };
        };
        let call = ServiceCall { url: format!("{url}/readyz"), body: None, timeout_ms: HEALTH_TIMEOUT_MS };
        match self.0.world().services.call(&call).await {
            Ok(answer) => {
                Health { healthy: answer.status == 200, detail: format!("/readyz answered {}", answer.status) }
            }
            Err(error) => Health { healthy: false, detail: error.message },
        }
    }
}

/// The machine's clock and fresh ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealWorld;

impl Surroundings for RealWorld {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn new_id(&self) -> String {
        ThreadId::new().to_string()
    }
}

impl App {
    /// A manager whose deploys are real releases in this home.
    pub fn manager(self: &Arc<Self>, find: FindRequest) -> DeploymentManager {
        let deployer = WorkflowDeployer::new(self.clone(), find);
        DeploymentManager::new(self.ledger().clone(), Arc::new(deployer), Arc::new(RealWorld))
    }

    /// An orchestrator whose deploys are real releases in this home and whose checks ask the endpoint.
    pub fn orchestrator(self: &Arc<Self>, find: FindRequest) -> DeploymentOrchestrator {
        let deployer = WorkflowDeployer::new(self.clone(), find);
        DeploymentOrchestrator::new(self.ledger().clone(), Arc::new(deployer), Arc::new(RealWorld))
            .with_checker(Arc::new(EndpointHealth(self.clone())))
    }
}
