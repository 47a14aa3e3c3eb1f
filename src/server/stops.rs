//! Runs that end early: because somebody stops them, or because who asked for them may not any more.

use std::sync::Arc;

use chrono::Utc;

use super::authorise::{Action, Caller, Subject, authorise};
use super::execute::Executor;
use super::run_webhook;
use crate::app::{AskedCancel, RunStatus, ServedRun, run_stopped};
use crate::graph::Failure;

/// How a run that is under way is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancel {
    /// It stays as far as it came.
    Interrupt,
    /// It is taken back.
    Rollback,
}

impl Executor {
    /// Asks a run to end early: when this returns it is durable that somebody has. True: its end is to be waited for.
    pub async fn cancel(self: &Arc<Self>, run: &ServedRun, how: Cancel, by: &str) -> Result<bool, Failure> {
        let asked = AskedCancel { rollback: how == Cancel::Rollback, by: by.to_owned(), at: Utc::now() };
        let told = run_webhook::told(&self.app, run, RunStatus::Interrupted, &run_stopped(), asked.at).await?;
        let found = self.app.database().cancel_run(&run.id, asked, told).await.map_err(|e| e.failure())?;
        let Some(found) = found else { return Ok(false) };
        if found.status == RunStatus::Pending && found.body.kwargs["temporary"] == serde_json::Value::Bool(true) {
            // It never begins, so nobody else clears its thread away.
            self.clear_later(found.thread.clone());
        }
        self.hold(run);
        self.bell.ring(&run.thread);
        Ok(true)
    }

    /// Who has stopped a run, and how.
    pub(super) async fn asked_cancel(&self, run: &ServedRun) -> Result<Option<AskedCancel>, Failure> {
        let now = self.app.database().run_stands(&run.id).await.map_err(|e| e.failure())?;
        Ok(now.and_then(|(_, cancel)| cancel))
    }

    /// Why a run must not begin: its caller's key counts no more, or may do less than what was accepted. What a run of an answer is for was
    /// done when it was accepted.
    pub(super) async fn refused(&self, run: &ServedRun) -> Result<Option<Failure>, Failure> {
        let Some(key) = &run.body.key else { return Ok(None) };
        let (command, checkpoint) = (&run.body.kwargs["command"], &run.body.kwargs["checkpoint"]);
        if command.get("resume").is_some() && checkpoint.is_null() {
            return Ok(None);
        }
        let why = match self.app.holder_of_key(key).await? {
            None => format!("key {key} of {} was revoked, or its time is over", run.body.by),
            Some(person) => {
                let (caller, subject) = (Caller::of(person), Subject::Thread(run.thread.to_string()));
                let decides = !command.is_null() || !checkpoint.is_null();
                let mut actions = [Some(Action::Run), decides.then_some(Action::Decide)].into_iter().flatten();
                match actions.find_map(|action| authorise(&caller, action, &subject).err()) {
                    None => return Ok(None),
                    Some(refused) => refused.detail,
                }
            }
        };
        Ok(Some(
            Failure::new("caller_refused", "the run did not begin: who asked for it may not any more")
                .because(why)
                .hint("somebody who may asks for it anew"),
        ))
    }
}
