//! Waiting for a slot: until it is ready for the first time, and until it is so again after the host was down or the machine restarted.

use std::time::Duration;

use tokio::time::Instant;

use super::world::port_err;
use super::{LiveSlot, World};
use crate::graph::{Failure, NodeError};
use crate::ports::{ADDRESS_TAKEN, Packager, STARTED_ANEW, Slot, SlotState, Target};

/// Pause between two looks at a slot that starts.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the log of a slot that is not ready is searched for a failed start.
const READ_LOG_EVERY: Duration = Duration::from_millis(500);
/// Lines of the log that are searched.
const LOG_LINES: usize = 400;

/// The service's own last traceback, where its log can be read and has one.
pub(super) async fn traceback(world: &World, token: &str) -> Option<String> {
    world.packager.explain(&world.target.slot_log(token, LOG_LINES).await.ok()?)
}

/// Waits until the slot is ready; fails with the service's own last traceback where there is one.
pub(super) async fn until_ready(world: &World, token: &str, timeout_ms: u64) -> Result<LiveSlot, NodeError> {
    let began = Instant::now();
    let slot = Wait::new(world, token, timeout_ms).until(|slot| slot.state == SlotState::Ready).await?;
    let ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(LiveSlot { token: slot.token, address: format!("http://127.0.0.1:{}", slot.port), port: slot.port, ready_ms })
}

/// Waits until all replicas are ready; returns the first one, and how long all of them took.
pub(super) async fn all_ready(world: &World, first: &str, timeout_ms: u64) -> Result<LiveSlot, NodeError> {
    let began = Instant::now();
    let slot = until_ready(world, first, timeout_ms).await?;
    for replica in world.pool(first).await.map_err(port_err)?.iter().skip(1) {
        until_ready(world, &replica.token, timeout_ms).await?;
    }
    let ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(LiveSlot { ready_ms, ..slot })
}

/// Waits while the slot comes up that was started anew. One that is ready or was so since, and one whose process ended by itself, is
/// not waited for: what that means the caller says.
pub(super) async fn until_up_again(world: &World, token: &str, timeout_ms: u64) -> Result<Slot, NodeError> {
    Wait::new(world, token, timeout_ms).until(|slot| !comes_up(slot)).await
}

/// Whether nothing is wrong with it but that it has not had the time to be ready.
fn comes_up(slot: &Slot) -> bool {
    slot.restarts == 0 && matches!(slot.state, SlotState::Starting | SlotState::Restarting)
}

/// A slot that is waited for.
struct Wait<'a> {
    target: &'a dyn Target,
    packager: &'a dyn Packager,
    token: &'a str,
    limit: Duration,
}

impl<'a> Wait<'a> {
    fn new(world: &'a World, token: &'a str, timeout_ms: u64) -> Self {
        let limit = Duration::from_millis(timeout_ms);
        Self { target: &*world.target, packager: &*world.packager, token, limit }
    }

    async fn until(&self, enough: fn(&Slot) -> bool) -> Result<Slot, NodeError> {
        let began = Instant::now();
        let mut log_read = Instant::now();
        loop {
            let Some(slot) = self.target.slot(self.token).await.map_err(port_err)? else {
                return Err(self.gone().into());
            };
            if matches!(slot.state, SlotState::Exited | SlotState::Stopped) {
                let how = slot.last_exit.as_deref().unwrap_or("no exit status");
                let failure = Failure::new("service_exited", format!("the service ended while it started ({how})"));
                return Err(self.explained(failure).await?.into());
            }
            if enough(&slot) {
                return Ok(slot);
            }
            if began.elapsed() > self.limit {
                let message = format!("the service was not ready within {:.0} s", self.limit.as_secs_f64());
                let failure = Failure::new("not_ready_in_time", message)
                    .hint("look at its log, mend `__is_ready__` or `__init__`, or raise `ready_timeout`");
                return Err(self.explained(failure).await?.into());
            }
            // A service whose `__init__` raises never ends: BentoML tries again for ever. Its log is the only witness.
            if log_read.elapsed() > READ_LOG_EVERY {
                log_read = Instant::now();
                // One that was ready may have said anything since, and one without a process has said nothing: only a start is judged.
                let starts = slot.state == SlotState::Starting && slot.pid.is_some();
                // A taken address ends the process, and the host starts it again.
                let judged = |traceback: &String| starts && !traceback.to_lowercase().contains(ADDRESS_TAKEN);
                if let Some(traceback) = self.packager.explain(&self.log().await?).filter(judged) {
                    let failure = Failure::new("service_start_failed", "the service raised an error while it started");
                    return Err(failure.because(traceback).hint("mend the service and release again").into());
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What the current process has said: those before it are no witnesses of its start.
    async fn log(&self) -> Result<Vec<String>, NodeError> {
        let mut log = self.target.slot_log(self.token, LOG_LINES).await.map_err(port_err)?;
        let begins = log.iter().rposition(|line| line == STARTED_ANEW).map_or(0, |at| at + 1);
        Ok(log.split_off(begins))
    }

    fn gone(&self) -> Failure {
        Failure::new("slot_gone", format!("slot {} is gone", self.token)).hint("somebody removed it; release again")
    }

    async fn explained(&self, failure: Failure) -> Result<Failure, NodeError> {
        let log = self.log().await?;
        let tail = || log.iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n");
        let cause = self.packager.explain(&log).unwrap_or_else(tail);
        let hint = failure.hint.clone().unwrap_or_else(|| "mend the service and release again".into());
        Ok(if cause.trim().is_empty() { failure.hint(hint) } else { failure.because(cause).hint(hint) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::ports::{
        GeneratedProject, ModelArtifact, PackageRequest, PackagedModel, PortError, Progress, ServeCommand, SlotRequest,
        SourceCopy,
    };

    /// A slot whose states come one after the other; the last one stays.
    struct Fake {
        slots: Mutex<Vec<Slot>>,
        log: Vec<String>,
    }

    impl Fake {
        fn new(slots: impl IntoIterator<Item = Slot>, log: &[&str]) -> Self {
            let mut slots: Vec<Slot> = slots.into_iter().collect();
            slots.reverse();
            Self { slots: Mutex::new(slots), log: log.iter().map(|line| (*line).to_owned()).collect() }
        }

        fn wait(&self, limit_ms: u64) -> Wait<'_> {
            Wait { target: self, packager: self, token: "green", limit: Duration::from_millis(limit_ms) }
        }

        async fn ready(&self, limit_ms: u64) -> Result<Slot, NodeError> {
            self.wait(limit_ms).until(|slot| slot.state == SlotState::Ready).await
        }

        async fn up_again(&self) -> Result<Slot, NodeError> {
            self.wait(60_000).until(|slot| !comes_up(slot)).await
        }
    }

    fn slot(state: SlotState, restarts: u32) -> Slot {
        Slot {
            token: "green".into(),
            model: "iris".into(),
            version: "v2".into(),
            state,
            pid: Some(1),
            port: 1,
            log: "/log".into(),
            restarts,
            last_exit: None,
            started_at: None,
            ready_at: None,
        }
    }

    fn never<T>() -> Result<T, PortError> {
        Err(PortError::new("never", "a wait changes nothing"))
    }

    fn failure(ended: Result<Slot, NodeError>) -> Failure {
        match ended {
            Err(NodeError::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[async_trait]
    impl Target for Fake {
        async fn start_slot(&self, _request: &SlotRequest) -> Result<Slot, PortError> {
            never()
        }
        async fn slot(&self, _token: &str) -> Result<Option<Slot>, PortError> {
            let mut slots = self.slots.lock().unwrap();
            Ok(if slots.len() > 1 { slots.pop() } else { slots.first().cloned() })
        }
        async fn slots(&self) -> Result<Vec<Slot>, PortError> {
            Ok(Vec::new())
        }
        async fn remove_slot(&self, _token: &str, _grace_ms: u64) -> Result<(), PortError> {
            never()
        }
        async fn slot_log(&self, _token: &str, _lines: usize) -> Result<Vec<String>, PortError> {
            Ok(self.log.clone())
        }
    }

    #[async_trait]
    impl Packager for Fake {
        async fn package(&self, _: &PackageRequest, _: &dyn Progress) -> Result<PackagedModel, PortError> {
            never()
        }
        async fn find(&self, _token: &str) -> Result<Option<PackagedModel>, PortError> {
            never()
        }
        async fn discard(&self, _token: &str) -> Result<(), PortError> {
            never()
        }
        fn serve_command(&self, _model: &PackagedModel, slot_dir: &Path, _workers: Option<u32>) -> ServeCommand {
            ServeCommand { argv: Vec::new(), cwd: slot_dir.to_owned(), env: BTreeMap::new() }
        }
        fn explain(&self, log: &[String]) -> Option<String> {
            log.iter().rfind(|line| line.starts_with("Traceback")).cloned()
        }
        async fn digest_of_source(&self, _source: &Path) -> Result<String, PortError> {
            never()
        }
        async fn copy_source(&self, _source: &Path, _of: &str) -> Result<SourceCopy, PortError> {
            never()
        }
        async fn drop_copy(&self, _of: &str) -> Result<(), PortError> {
            never()
        }
        async fn generate(&self, _artifact: &ModelArtifact) -> Result<GeneratedProject, PortError> {
            never()
        }
    }

    #[tokio::test]
    async fn a_slot_that_was_started_anew_is_waited_for_and_one_that_ended_by_itself_is_not() {
        use SlotState::{Ready, Restarting, Starting, Unready};
        let anew = [Restarting, Starting, Starting, Ready].map(|state| slot(state, 0));
        assert_eq!(Fake::new(anew, &[]).up_again().await.unwrap().state, Ready);
        // While it is waited for, too.
        let ended = [slot(Starting, 0), slot(Restarting, 0), slot(Starting, 1)];
        assert_eq!(Fake::new(ended, &[]).up_again().await.unwrap().restarts, 1);
        assert_eq!(Fake::new([slot(Unready, 0)], &[]).up_again().await.unwrap().state, Unready);
        let until_ready = [slot(Unready, 0), slot(Starting, 1), slot(Ready, 1)];
        assert_eq!(Fake::new(until_ready, &[]).ready(60_000).await.unwrap().state, Ready);
    }

    #[tokio::test]
    async fn a_wait_ends_with_what_went_wrong() {
        let starts = || [slot(SlotState::Starting, 0)];
        assert_eq!(failure(Fake::new([], &[]).ready(1).await).code, "slot_gone");
        let late = failure(Fake::new(starts(), &["it waits"]).ready(1).await);
        assert_eq!((late.code.as_str(), late.cause.as_deref()), ("not_ready_in_time", Some("it waits")));
        let raised = failure(Fake::new(starts(), &["Traceback"]).ready(60_000).await);
        assert_eq!((raised.code.as_str(), raised.cause.as_deref()), ("service_start_failed", Some("Traceback")));
        let ended = failure(Fake::new([slot(SlotState::Exited, 0)], &[]).ready(60_000).await);
        assert_eq!(ended.code, "service_exited");
    }

    #[tokio::test]
    async fn an_error_from_before_the_start_is_none_of_it() {
        let log = ["Traceback of a request, long ago", STARTED_ANEW, "starting"];
        let late = failure(Fake::new([slot(SlotState::Starting, 0)], &log).ready(1_500).await);
        assert_eq!((late.code.as_str(), late.cause.as_deref()), ("not_ready_in_time", Some("starting")));
        let without_process = Slot { pid: None, ..slot(SlotState::Starting, 0) };
        let late = failure(Fake::new([without_process], &log[..1]).ready(1_500).await);
        assert_eq!(late.code, "not_ready_in_time");
    }
}
