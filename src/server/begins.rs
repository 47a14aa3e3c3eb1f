//! How runs begin whose thread begins with them: in one transaction with their acceptance where nothing needs a second step.

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::execute::Executor;
use super::run_body;
use crate::app::{BornServed, Entry, NewRun, RunBody, ServedRun};
use crate::graph::{Advance, Failure, RunEnd, Stop};

/// How it stands with a run whose turn it is.
pub(super) enum Begins {
    /// It was found in the queue, or as a crash left it.
    Found,
    /// It was accepted a moment ago, by this process.
    New,
    /// The same, and its thread was kept with it.
    Born(Box<BornServed>),
}

impl Executor {
    /// Takes on a thread that begins with its run, where that needs no second step.
    pub(super) async fn at_once(
        &self,
        run: &ServedRun,
        begun: bool,
        begins: Begins,
        stop: &watch::Receiver<Stop>,
    ) -> Option<Result<RunEnd, Failure>> {
        let how = || Advance { stop: stop.clone(), ..run_body::advance(&run.body) };
        match begins {
            Begins::Born(born) => {
                let _place = self.places.acquire().await;
                Some(self.app.take_on_served(*born, how()).await)
            }
            Begins::Found | Begins::New if !begun => {
                let (entry, input) = self.goes_at_once(&run.body)?;
                let _place = self.places.acquire().await;
                Some(self.app.invoke_served(&run.thread, entry, input, how()).await)
            }
            Begins::Found | Begins::New => None,
        }
    }

    /// The input of a run whose thread, where it begins with it, can be accepted and taken on in one.
    fn goes_at_once(&self, body: &RunBody) -> Option<(&Entry, Map<String, Value>)> {
        let kwargs = &body.kwargs;
        let plain = kwargs["command"].is_null() && kwargs["checkpoint"].is_null();
        let entry = self.graphs.get(&body.graph).filter(|entry| plain && self.app.goes_at_once(entry))?;
        Some((entry, kwargs["input"].as_object()?.clone()))
    }

    /// The thread of a run that has it for itself, to be kept with the run's acceptance, where it can be.
    pub(super) fn born(&self, new: &NewRun) -> Option<BornServed> {
        // It goes with its run: should that not begin after all, nobody needs to give the lease back.
        let alone = new.body.kwargs["temporary"] == Value::Bool(true) && new.due_at <= new.at;
        let (entry, input) = self.goes_at_once(&new.body).filter(|_| alone)?;
        self.app.born_served(&new.thread, entry, input)
    }
}

/// Whether a run releases, or goes back.
pub(super) fn is_release_graph(run: &ServedRun) -> bool {
    ["model_deployer", "rollback"].contains(&run.body.graph.as_str())
}
