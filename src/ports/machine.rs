//! What the machine that will run a slot has to give.

use async_trait::async_trait;

use super::PortError;
use crate::release::Machine;

/// Tells what a machine has.
#[async_trait]
pub trait MachineFacts: Send + Sync {
    /// Free memory and processors, as the planner counts them.
    async fn facts(&self) -> Result<Machine, PortError>;
}
