//! What the machine that will run a slot has to give.

use async_trait::async_trait;

use super::PortError;
use crate::release::Machine;

/// Tells what a machine has.
#[async_trait]
pub trait MachineFacts: Send + Sync {
    /// Free memory and processors, as the planner counts them.
    async fn facts(&self) -> Result<Machine, PortError>;
    /// Memory that a process takes with all that it has started, in MB; `None` where it is gone or the machine does not say.
    async fn memory_of(&self, pid: u32) -> Result<Option<u64>, PortError>;
}
