//! All slots of a home: what the admin API asks for, and recovery.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::life::Event;
use super::process::{self, Running};
use super::task::{StopSign, Watch};
use super::{log, log_path, request, scratch, stop};
use crate::host::core::Core;
use crate::host::identity::{self, Mark, ProcessId};
use crate::host::state::SlotRecord;
use crate::host::{HostError, routes};
use crate::ports::{Slot, SlotRequest};

/// Starts, shows and stops slots.
#[derive(Debug)]
pub(crate) struct Supervisor {
    core: Arc<Core>,
    tasks: Mutex<HashMap<String, Task>>,
    /// One operation at a time per token.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug)]
struct Task {
    stop: StopSign,
    done: JoinHandle<()>,
}

impl Supervisor {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, tasks: Mutex::default(), turns: Mutex::default() }
    }

    fn turn(&self, token: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are of tokens past.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(token.to_owned()).or_default())
    }

    fn mark(&self, token: &str) -> Mark {
        Mark::new(token, &self.core.paths.home)
    }

    /// Where its temporary files are.
    fn scratch(&self, token: &str) -> PathBuf {
        scratch::folder(&self.core.paths.home, token)
    }

    /// Puts the folders for temporary files of all running slots back where somebody has cleared them away.
    pub(crate) async fn keep_scratch(&self) {
        let state = self.core.state();
        let running = state.slots.iter().filter(|(_, slot)| slot.process.is_some() && !slot.life.is_over());
        let folders: Vec<PathBuf> = running.map(|(token, _)| self.scratch(token)).collect();
        // A panic in it would be its own end, and the next tick tries again.
        let _ = tokio::task::spawn_blocking(move || folders.iter().for_each(|folder| scratch::keep(folder))).await;
    }

    fn watch(&self, token: &str) -> Watch {
        Watch {
            core: Arc::clone(&self.core),
            token: token.to_owned(),
            mark: self.mark(token),
            stop: StopSign::default(),
        }
    }

    fn run(&self, watch: Watch, running: Option<Running>) {
        let (token, stop) = (watch.token.clone(), watch.stop.clone());
        let done = tokio::spawn(watch.run(running));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(token, Task { stop, done });
    }

    /// Starts a slot, or returns the one that the token already has.
    pub(crate) async fn start(&self, request: SlotRequest) -> Result<Slot, HostError> {
        let token = request.token.clone();
        let turn = self.turn(&token);
        let _turn = turn.lock().await;
        let state = self.core.state();
        request::check(&request, &state, &self.core.paths)?;
        match state.slots.get(&token) {
            Some(slot) if slot.request == request => return Ok(slot.shown()),
            Some(_) => return Err(HostError::TokenConflict { token }),
            None if state.down => return Err(HostError::Down),
            None => {}
        }
        let dir = request.slot_dir.clone();
        let made = !dir.exists();
        std::fs::create_dir_all(&dir).map_err(HostError::io(format!("creating {}", dir.display())))?;
        self.core
            .update(move |state| {
                if state.down {
                    return Err(HostError::Down);
                }
                // Chosen here, where no other slot can be promised the same one.
                let port = process::free_port(state)?;
                state.slots.insert(request.token.clone(), SlotRecord::intent(request, port));
                Ok(())
            })
            .await?;
        let watch = self.watch(&token);
        match watch.spawn().await {
            Ok(running) => self.run(watch, Some(running)),
            Err(error) => {
                let gone = token.clone();
                self.core.update_anyway(move |state| state.slots.remove(&gone)).await?;
                self.core.secrets.forget(&token);
                scratch::remove(&self.scratch(&token)).await;
                if made {
                    // Only what we have just made; the error that matters is the first.
                    let _ = std::fs::remove_dir_all(&dir);
                }
                return Err(error);
            }
        }
        self.slot(&token).ok_or(HostError::NoSuchSlot { token })
    }

    /// The slot of a token.
    pub(crate) fn slot(&self, token: &str) -> Option<Slot> {
        self.core.state().slots.get(token).map(SlotRecord::shown)
    }

    /// All slots.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.core.state().slots.values().map(SlotRecord::shown).collect()
    }

    /// The end of a slot's log.
    pub(crate) async fn log(&self, token: &str, lines: usize) -> Result<Vec<String>, HostError> {
        let state = self.core.state();
        let slot = state.slots.get(token).ok_or_else(|| HostError::NoSuchSlot { token: token.to_owned() })?;
        let path = log_path(&slot.request);
        let doing = format!("reading {}", path.display());
        let (core, request) = (Arc::clone(&self.core), slot.request.clone());
        let tail = move || log::tail(&path, lines).map(|read| core.secrets.cleaned(&request, read));
        let read = tokio::task::spawn_blocking(tail).await;
        read.map_err(std::io::Error::other).flatten().map_err(HostError::io(doing))
    }

    /// Looks, while it can be read, into what the slots of an earlier daemon were given. Beside everything else: a disk that does not
    /// answer must not keep anybody waiting.
    pub(crate) fn recall_secrets(&self) {
        let core = Arc::clone(&self.core);
        let recall = move || core.state().slots.values().for_each(|slot| core.secrets.recall(&slot.request));
        tokio::task::spawn_blocking(recall);
    }

    /// Ends a slot, forgets it and removes its folder. Fine when it is gone.
    pub(crate) async fn remove(&self, token: &str, grace_ms: u64) -> Result<(), HostError> {
        let turn = self.turn(token);
        let _turn = turn.lock().await;
        let of = token.to_owned();
        // Stopped before it is stopped: from here on no switch may choose it.
        let stopped = self.core.update_anyway(move |state| {
            if let Some((model, role)) = routes::role_of(state, &of) {
                return Err(HostError::SlotRouted { token: of, model, role });
            }
            let Some(slot) = state.slots.get_mut(&of) else { return Ok(None) };
            slot.life = slot.life.after(Event::StopAsked);
            Ok(Some(slot.request.clone()))
        });
        let Some(request) = stopped.await?? else { return Ok(()) };
        self.stop(token, grace_ms).await;
        // Checked again: a link may have been put in its place since.
        request::check(&request, &self.core.state(), &self.core.paths)?;
        let dir = request.slot_dir;
        let doing = format!("removing {}", dir.display());
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&dir)).await;
        match removed.map_err(std::io::Error::other).flatten() {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(HostError::io(doing)(error)),
            _ => {}
        }
        let of = token.to_owned();
        self.core.update_anyway(move |state| state.slots.remove(&of)).await?;
        self.core.secrets.forget(token);
        Ok(())
    }

    /// Ends the slot's processes and its task.
    async fn stop(&self, token: &str, grace_ms: u64) {
        let task = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
        if let Some(task) = task {
            task.stop.ask(grace_ms);
            // It ends by itself, within the grace and the time for SIGKILL.
            let _ = task.done.await;
        }
        stop::kill_leftovers(&self.mark(token), &[]).await;
        scratch::remove(&self.scratch(token)).await;
    }

    /// Ends all slots' processes, at the same time; they stay on record for [`Supervisor::revive`].
    pub(crate) async fn stop_all(&self, grace_ms: u64) {
        let tokens: Vec<String> = self.core.state().slots.keys().cloned().collect();
        futures_util::future::join_all(tokens.iter().map(|token| async move {
            let turn = self.turn(token);
            let _turn = turn.lock().await;
            self.stop(token, grace_ms).await;
        }))
        .await;
    }

    /// Ends the time in which the home is down: wants back what [`Supervisor::stop_all`] has stopped. At once with being up, so that
    /// nobody who looks finds a home that is up with slots that are stopped.
    pub(crate) async fn revive(&self) -> Result<(), HostError> {
        let revive = self.core.update(|state| {
            state.down = false;
            let stopped = state.slots.values_mut().filter(|slot| slot.life.is_over());
            for slot in stopped {
                slot.life = slot.life.after(Event::Revived);
                // Started anew rather than again: this is not one of its restarts.
                slot.started_at = None;
            }
            Ok(())
        });
        revive.await
    }

    /// Finds the processes of all slots that should run, and starts those that are gone.
    pub(crate) async fn recover(&self) -> Result<(), HostError> {
        let state = self.core.state();
        for (token, slot) in state.slots.iter().filter(|(_, slot)| !slot.life.is_over()) {
            if self
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(token)
                .is_some_and(|t| !t.done.is_finished())
            {
                continue;
            }
            let found = find(slot, &self.mark(token));
            let event = match (&found, &slot.process) {
                (Some(_), _) => Event::Spawned,
                (None, Some(process)) if process.boot_id == identity::boot_id() => Event::Ended,
                // Nobody saw it end: it was never started, or the machine went down under it.
                (None, _) => Event::Lost,
            };
            tracing::info!(token, ?found, ?event, "recovered");
            let (of, process) = (token.clone(), found.clone());
            let over = self.core.update_anyway(move |state| {
                let Some(slot) = state.slots.get_mut(&of) else { return true };
                slot.life = slot.life.after(event);
                if event == Event::Lost && slot.process.is_some() {
                    // The machine went down under it: as after `up`, not one of its restarts.
                    slot.started_at = None;
                }
                slot.process = process;
                if event == Event::Ended {
                    slot.last_exit = Some("ended while no host daemon was there to see it".to_owned());
                }
                slot.life.is_over()
            });
            if !over.await? {
                self.run(self.watch(token), found.map(Running::adopted));
            }
        }
        self.fall_back_from_dead().await
    }

    /// Live slots that died while nobody watched: their standby takes over, if it lives.
    async fn fall_back_from_dead(&self) -> Result<(), HostError> {
        let fall_back = self.core.update_anyway(|state| {
            let dead = |slot: &&SlotRecord| slot.process.is_none() && !slot.life.routable();
            let dead: Vec<String> = state.slots.values().filter(dead).map(|slot| slot.request.token.clone()).collect();
            for token in dead {
                routes::fall_back(state, &token, "ended while no host daemon was there to see it");
            }
        });
        fall_back.await
    }

    /// Ends what an interrupted `down` has left, at the same time and with the time to end that `down` gives.
    pub(crate) async fn finish_down(&self, grace_ms: u64) -> Result<(), HostError> {
        let state = self.core.state();
        let grace = Duration::from_millis(grace_ms);
        futures_util::future::join_all(state.slots.iter().map(|(token, slot)| self.end_left(token, slot, grace))).await;
        let stopped = self.core.update_anyway(|state| {
            for slot in state.slots.values_mut() {
                slot.life = slot.life.after(Event::StopAsked);
                slot.process = None;
            }
        });
        stopped.await
    }

    async fn end_left(&self, token: &str, slot: &SlotRecord, grace: Duration) {
        let turn = self.turn(token);
        let _turn = turn.lock().await;
        let mark = self.mark(token);
        match find(slot, &mark) {
            Some(process) => {
                tracing::info!(token, ?process, "still runs, though the home is down; ending it");
                stop::end(&mut Running::adopted(process), &mark, grace).await;
            }
            None => stop::kill_leftovers(&mark, &[]).await,
        }
        scratch::remove(&self.scratch(token)).await;
    }
}

/// The living process of a slot: the one on record, if all that is known of it agrees, or one that was started without having got on
/// record.
fn find(slot: &SlotRecord, mark: &Mark) -> Option<ProcessId> {
    let recorded = slot.process.clone().filter(|process| process.is_slot(mark));
    if recorded.is_none()
        && let Some(process) = slot.process.as_ref().filter(|process| process.lives())
    {
        // It carries the mark of another slot or home, or is not as we start them: neither adopted nor killed.
        tracing::error!(
            token = slot.request.token,
            ?process,
            "the process on record does not look like this slot's and is left alone; end it by hand if it is"
        );
    }
    recorded.or_else(|| identity::marked_leader(mark))
}
