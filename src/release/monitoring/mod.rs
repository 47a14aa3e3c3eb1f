//! What is to be watched after a release: alerts and a dashboard, made of the release's own plan and the gateway's metrics. Whoever runs
//! Prometheus and Grafana takes both as they are.

mod alerts;
mod dashboard;
mod promql;
mod rules;

use super::plan::DeploymentPlan;
use super::strategy::Strategy;

pub use alerts::{Alert, Severity, alerts};
pub use dashboard::{dashboard, dashboard_uid};
pub use promql::LATENCY_BOUNDS_S;
pub use rules::rules;

/// A release that serves, as it is watched.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// The release.
    pub deployment_id: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The model's public URL.
    pub endpoint_url: &'a str,
    /// What was planned: the limits are its limits.
    pub plan: &'a DeploymentPlan,
    /// Whether the version before was kept warm. A rollback keeps none.
    pub keeps_standby: bool,
}

impl<'a> Watched<'a> {
    /// A release that went by its plan.
    pub fn planned(deployment_id: &'a str, version: &'a str, endpoint_url: &'a str, plan: &'a DeploymentPlan) -> Self {
        // Where one takes the other's place there is nothing left to fall back to.
        let keeps_standby = match plan.strategy {
            Strategy::BlueGreen | Strategy::Canary | Strategy::Shadow | Strategy::AbTest => plan.previous.is_some(),
            Strategy::Rolling | Strategy::Recreate => false,
        };
        Self { deployment_id, version, endpoint_url, plan, keeps_standby }
    }

    fn model(&self) -> &'a str {
        self.plan.model.as_str()
    }

    /// The version that stands by.
    fn standby(&self) -> Option<&'a str> {
        self.plan.previous_version().filter(|before| self.keeps_standby && *before != self.version)
    }
}

#[cfg(test)]
mod tests;
