//! What watches over one slot: a task per slot, from its first process to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::life::Event;
use super::process::{self, Running};
use super::{log, log_path, readiness, stop};
use crate::host::core::Core;
use crate::host::identity::{Mark, ProcessId};
use crate::host::{HostError, routes};

/// The first pause before a slot is started again, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A process that lived this long has recovered: the next pause is the shortest again.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// Starts that may find an address taken before that counts as the service's own fault. BentoML takes ports for itself, lets them go and binds them a
/// moment later: another program can come in between, seldom twice.
const MOST_TAKEN: u32 = 3;

/// A request to end a slot's processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopSign {
    asked: CancellationToken,
    grace_ms: Arc<AtomicU64>,
}

impl StopSign {
    /// Asks for it.
    pub(crate) fn ask(&self, grace_ms: u64) {
        self.grace_ms.store(grace_ms, Ordering::Relaxed);
        self.asked.cancel();
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.load(Ordering::Relaxed))
    }
}

/// The task's own view of its slot.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) core: Arc<Core>,
    pub(crate) token: String,
    pub(crate) mark: Mark,
    pub(crate) stop: StopSign,
}

impl Watch {
    /// Watches until the slot is over. `running` is `None` when a process has to be started first.
    pub(crate) async fn run(self, mut running: Option<Running>) {
        let mut pause = if running.is_some() { BACKOFF_MIN } else { Duration::ZERO };
        let mut taken = 0;
        loop {
            let Some(mut process) = running.take() else {
                match self.start_again(&mut pause).await {
                    Some(started) => running = Some(started),
                    None => return,
                }
                continue;
            };
            let began = Instant::now();
            let mut left = Vec::new();
            let exit = tokio::select! {
                exit = self.ended(&mut process, &mut left) => exit,
                () = self.stop.asked.cancelled() => {
                    let exit = stop::end(&mut process, &self.mark, self.stop.grace()).await;
                    self.note_end(Event::StopAsked, exit).await;
                    return;
                }
                () = self.follow() => return,
            };
            if began.elapsed() > RECOVERED_AFTER {
                pause = BACKOFF_MIN;
            }
            let event = self.kind_of_end(&mut taken).await;
            let over = self.note_end(event, Some(exit)).await;
            stop::kill_leftovers(&self.mark, &left).await;
            if over {
                return;
            }
        }
    }

    /// What it means that the process ended by itself; `taken`: how many starts before found an address taken.
    async fn kind_of_end(&self, taken: &mut u32) -> Event {
        let state = self.core.state();
        let starting = state.slots.get(&self.token).filter(|slot| !slot.life.proven());
        let Some(log) = starting.map(|slot| log_path(&slot.request)) else { return Event::Ended };
        let told = tokio::task::spawn_blocking(move || log::tells_of_taken_address(&log)).await;
        let told = told.is_ok_and(|told| told.unwrap_or(false));
        if !told || *taken >= MOST_TAKEN {
            return Event::Ended;
        }
        *taken += 1;
        Event::AddressTaken
    }

    /// Waits until the process has ended; says how. Notes who is `left` of its session while its pid is still its own.
    async fn ended(&self, process: &mut Running, left: &mut Vec<ProcessId>) -> String {
        process.gone().await;
        *left = stop::family(process, &self.mark).await;
        process.ended().await
    }

    /// Ends only when the slot is no longer on record.
    async fn follow(&self) {
        readiness::follow(&self.core, &self.token).await;
    }

    /// Waits `pause`, clears what is left of the process before, and starts the program. `None` when the slot is over.
    async fn start_again(&self, pause: &mut Duration) -> Option<Running> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = self.stop.asked.cancelled() => {
                    stop::kill_leftovers(&self.mark, &[]).await;
                    self.note_end(Event::StopAsked, None).await;
                    return None;
                }
            }
            *pause = (*pause * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
            stop::kill_leftovers(&self.mark, &[]).await;
            match self.spawn().await {
                Ok(running) => return Some(running),
                Err(error) => {
                    let cause = error.to_port().cause.unwrap_or_default();
                    tracing::warn!(token = self.token, %error, cause, "cannot start the slot again");
                    if self.note_end(Event::SpawnFailed, Some(format!("{error}: {cause}"))).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Starts the program, at another port where the old one was taken meanwhile, and puts it on record.
    pub(crate) async fn spawn(&self) -> Result<Running, HostError> {
        let token = self.token.clone();
        let gone = || HostError::NoSuchSlot { token: self.token.clone() };
        let state = self.core.state();
        let mut record = state.slots.get(&self.token).cloned().ok_or_else(gone)?;
        if !process::is_free(record.port) {
            record.port = process::free_port(&state)?;
        }
        let running = process::spawn(&self.core, &record).await?;
        let (id, port) = (running.id.clone(), record.port);
        tracing::info!(token, pid = id.pid, port, "started");
        let noted = self.core.update_anyway(move |state| {
            if let Some(slot) = state.slots.get_mut(&token) {
                slot.restarts += u32::from(slot.started_at.is_some());
                slot.life = slot.life.after(Event::Spawned);
                slot.process = Some(id);
                slot.port = port;
                slot.started_at = Some(Utc::now());
                slot.ready_at = None;
            }
        });
        noted.await?;
        Ok(running)
    }

    /// Records an end, and gives the slot's traffic to its standby. Whether the slot is over.
    async fn note_end(&self, event: Event, exit: Option<String>) -> bool {
        let token = self.token.clone();
        tracing::info!(token, ?event, exit, "process ended");
        let noted = self.core.update_anyway(move |state| {
            let slot = state.slots.get_mut(&token)?;
            slot.life = slot.life.after(event);
            slot.process = None;
            if event == Event::AddressTaken {
                // Its first start still, and not one of its restarts, which are held against it.
                slot.started_at = None;
            } else {
                slot.last_exit = exit.or(slot.last_exit.take());
            }
            let (life, why) = (slot.life, slot.last_exit.clone().unwrap_or_default());
            if event == Event::Ended {
                routes::fall_back(state, &token, &format!("ended ({why})"));
            }
            Some(life)
        });
        noted.await.ok().flatten().is_none_or(super::Life::is_over)
    }
}
