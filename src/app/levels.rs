//! The library's first level, and the workflow as the deploy function of the domain's managers.

use std::path::Path;

use serde_json::Value;

use super::{App, Home};
use crate::graph::{Advance, Failure, ThreadId, ThreadStatus};
use crate::release::{DeployRequest, ModelDeployerOutput};

/// Releases a model and returns the contract: the whole job in one call, in the home of `TIDEGATE_HOME` or `~/tidegate-home`.
///
/// Fails with code `waiting` when policy wants a human: `tidegate approve` then carries the release on, or use the steps of [`App`].
pub async fn deploy(request: &DeployRequest) -> Result<ModelDeployerOutput, Failure> {
    let home = std::env::var_os("TIDEGATE_HOME");
    let app = App::open(Home::open(home.as_deref().map(Path::new))?, "library", None).await?;
    let id = app.start_deploy(request).await?;
    let end = app.advance(&id, Advance::default()).await?;
    match end.status {
        ThreadStatus::Succeeded => app.output(&id).await,
        ThreadStatus::Interrupted => {
            app.leave(&id).await?;
            Err(Failure::new("waiting", format!("release {id} waits for a decision"))
                .hint(format!("`tidegate approve {id}` or `tidegate reject {id} --reason …`")))
        }
        _ => Err(end
            .failure
            .unwrap_or_else(|| Failure::new("not_finished", format!("release {id} is {}", end.status.word())))),
    }
}

impl App {
    /// The contract of a finished release or rollback.
    pub async fn output(&self, id: &ThreadId) -> Result<ModelDeployerOutput, Failure> {
        let value = self.channel(id, "output").await?;
        let missing = || {
            Failure::new("no_output", format!("thread {id} has no output"))
                .hint("`tidegate run show` tells how it ended")
        };
        serde_json::from_value(value.ok_or_else(missing)?)
            .map_err(|e| Failure::new("output_invalid", "the output cannot be read").because(e.to_string()))
    }

    /// What a channel of a thread's root holds.
    pub async fn channel(&self, id: &ThreadId, name: &str) -> Result<Option<Value>, Failure> {
        let latest = self.store.latest(id, "").await.map_err(|e| e.failure())?;
        Ok(latest.and_then(|c| c.values.get(name).cloned()))
    }
}
