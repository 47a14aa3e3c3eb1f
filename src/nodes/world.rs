//! Everything that release nodes may touch, and how its errors become theirs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::graph::{Failure, FailureDetails, NodeError};
use crate::ports::{
    CommandRunner, EnvBackend, Expressions, HttpCaller, MachineFacts, ModelRegistry, Packager, PortError, Progress,
    SecretFiles, ServiceClient, Slot, SlotState, Target, TrafficRouter, first_of, number_of,
};
use crate::release::{LedgerError, Policy, ReleaseLedger};

/// Where the operator's rules stand.
pub trait PolicySource: Send + Sync {
    /// The rules of this moment.
    ///
    /// # Errors
    /// When what is written there makes no sense.
    fn policy(&self) -> Result<Policy, Failure>;
}

/// The ports of one home. Building it touches nothing.
pub struct World {
    /// Python environments.
    pub envs: Arc<dyn EnvBackend>,
    /// Builds.
    pub packager: Arc<dyn Packager>,
    /// Slots.
    pub target: Arc<dyn Target>,
    /// Traffic.
    pub router: Arc<dyn TrafficRouter>,
    /// The model registry.
    pub registry: Arc<dyn ModelRegistry>,
    /// The table of releases.
    pub ledger: Arc<dyn ReleaseLedger>,
    /// Calls to services.
    pub services: Arc<dyn ServiceClient>,
    /// Secrets of services, to keep them out of what is written down.
    pub secrets: Arc<dyn SecretFiles>,
    /// Programs that measure.
    pub commands: Arc<dyn CommandRunner>,
    /// Requests to whoever measures.
    pub calls: Arc<dyn HttpCaller>,
    /// The language of conditions.
    pub expressions: Arc<dyn Expressions>,
    /// What the machine has.
    pub machine: Arc<dyn MachineFacts>,
    /// The operator's rules, as they are whenever they are asked for.
    pub policy: Arc<dyn PolicySource>,
    /// Folder under which slots have theirs, absolute.
    pub slots_dir: PathBuf,
}

impl World {
    /// The replicas of a version by the token of the first one, in the order of their numbers; those that are there.
    pub(super) async fn pool(&self, first: &str) -> Result<Vec<Slot>, PortError> {
        let mut slots = self.target.slots().await?;
        slots.retain(|slot| first_of(&slot.token) == first);
        slots.sort_by_key(|slot| number_of(&slot.token));
        Ok(slots)
    }

    /// The numbers of a version's replicas that are not there, up to `count`.
    pub(super) async fn missing(&self, first: &str, count: u32) -> Result<Vec<u32>, PortError> {
        let pool = self.pool(first).await?;
        let there: Vec<u32> = pool.iter().map(|slot| number_of(&slot.token)).collect();
        Ok((1..=count).filter(|nth| !there.contains(nth)).collect())
    }
}

/// Whether traffic may go to a slot: it has a process, or will have one again.
pub(super) fn runs(slot: &Slot) -> bool {
    !matches!(slot.state, SlotState::Stopped | SlotState::Exited)
}

/// A port's error as a node's failure.
pub(super) fn port(error: PortError) -> Failure {
    let PortError { code, message, cause, hint, retryable } = error;
    FailureDetails { code, message, cause, hint, retryable, node: None }.into()
}

/// The ledger's error as a node's failure.
pub(super) fn ledger(error: &LedgerError) -> Failure {
    Failure::new(error.code(), error.to_string())
}

/// Shorthand for `?` inside a reading.
pub(super) fn port_err(error: PortError) -> NodeError {
    NodeError::Failed(port(error))
}

/// Shorthand for `?` inside a reading.
pub(super) fn ledger_err(error: LedgerError) -> NodeError {
    NodeError::Failed(ledger(&error))
}

/// An effect's progress as a port's.
pub(super) struct Lines(pub Arc<dyn Fn(&str) + Send + Sync>);

impl Progress for Lines {
    fn line(&self, text: &str) {
        (self.0)(text);
    }
}
