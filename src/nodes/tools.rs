//! What the generic nodes `command` and `http` may touch.

use std::sync::Arc;

use super::effects::{HttpWorld, RunCommand, SendHttp};
use crate::graph::Effects;
use crate::ports::CommandRunner;

/// The ports behind the generic nodes.
#[derive(Clone)]
pub struct Tools {
    /// Programs.
    pub commands: Arc<dyn CommandRunner>,
    /// HTTP requests.
    pub http: Arc<HttpWorld>,
}

impl Tools {
    /// Adds their effects.
    #[must_use]
    pub fn effects(&self, effects: Effects) -> Effects {
        effects.with::<RunCommand>(self.commands.clone()).with::<SendHttp>(self.http.clone())
    }
}
