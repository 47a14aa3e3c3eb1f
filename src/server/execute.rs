//! Runs: each thread's queue, one run at a time, taken on by the engine. What this holds is only what is under way; everything else is rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, watch};

use super::apply::Found;
use super::begins::{Begins, is_release_graph};
use super::bell::Bell;
use super::clearing::Spent;
use super::shapes;
use super::{run_body, run_webhook};
use crate::app::{App, Catalogue, RunRestsOn, RunStatus, ServedRun};
use crate::graph::{Advance, Failure, RunEnd, Stop, ThreadId, ThreadStatus};

/// Runs that are advanced at once: enough for those that wait for programs and services, few enough for the memory that each takes. Runs
/// that sleep or wait for a person hold no place.
const MOST_AT_ONCE: usize = 256;
/// How often a run looks that waits for another process: nobody tells it when that dies.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often somebody looks who is told by a bell: should one be lost, nobody waits for ever.
const LOOK_SELDOM: Duration = Duration::from_secs(5);

struct Hand {
    /// What the engine looks at.
    stop: watch::Sender<Stop>,
    /// The run that is under way.
    current: Option<String>,
    /// Somebody has changed the queue.
    again: Arc<Notify>,
}

/// Takes runs from their threads' queues.
pub(super) struct Executor {
    pub(super) app: Arc<App>,
    pub(super) graphs: Arc<Catalogue>,
    pub(super) bell: Arc<Bell>,
    hands: Mutex<HashMap<ThreadId, Hand>>,
    turns: Mutex<HashMap<ThreadId, Arc<tokio::sync::Mutex<()>>>>,
    pub(super) places: Arc<Semaphore>,
    /// Threads that go when nobody reads of them any more.
    pub(super) spent: Mutex<Vec<Spent>>,
    /// Set when the server ends.
    draining: watch::Sender<bool>,
    user: String,
}

impl Executor {
    pub fn new(app: Arc<App>, graphs: Arc<Catalogue>, bell: Arc<Bell>) -> Arc<Self> {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
        let (draining, places) = (watch::channel(false).0, Arc::new(Semaphore::new(MOST_AT_ONCE)));
        let (hands, turns, spent) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { app, graphs, bell, hands, turns, places, spent, draining, user })
    }

    /// The one user of this machine who can ask.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn hands(&self) -> MutexGuard<'_, HashMap<ThreadId, Hand>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with everything that was accepted before.
    pub async fn recover(self: &Arc<Self>) -> Result<(), Failure> {
        for thread in self.app.database().threads_with_open_runs().await.map_err(|e| e.failure())? {
            // Before a runner looks: they are ours to go on with.
            if self.app.store().thread(&thread).await.map_err(|e| e.failure())?.is_some() {
                self.app.attend(&thread).await?;
            }
            self.kick(&thread);
        }
        for thread in self.app.database().left_over_threads().await.map_err(|e| e.failure())? {
            self.remove(&thread).await?;
        }
        Ok(())
    }

    /// Removes a thread with all that there is of it. False: it stays, because it is a release, whose record outlives whoever began it,
    /// or because a run of it is not over.
    pub async fn remove(&self, thread: &ThreadId) -> Result<bool, Failure> {
        let of = |e: crate::graph::StoreError| e.failure();
        if self.app.is_release(thread).await? || self.app.database().has_open_runs(thread).await.map_err(of)? {
            return Ok(false);
        }
        self.app.database().delete_api_thread(thread, self.app.owner()).await.map_err(of)?;
        Ok(true)
    }

    /// One acceptance at a time in a thread: what it rests on is looked at and changed by nobody else meanwhile.
    pub fn turn(&self, thread: &ThreadId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds are of threads past.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(thread.clone()).or_default().clone()
    }

    /// Sees to it that a thread's queue is worked on.
    pub fn kick(self: &Arc<Self>, thread: &ThreadId) {
        self.kick_with(thread, None);
    }

    /// The same for a run that has just begun with its acceptance: it need not be looked for.
    pub fn kick_with(self: &Arc<Self>, thread: &ThreadId, first: Option<(ServedRun, Begins)>) {
        if *self.draining.borrow() {
            return;
        }
        let mut hands = self.hands();
        if let Some(hand) = hands.get(thread) {
            hand.again.notify_one();
            return;
        }
        let again = Arc::new(Notify::new());
        let hand = Hand { stop: watch::channel(Stop::No).0, current: None, again: again.clone() };
        hands.insert(thread.clone(), hand);
        let (this, thread) = (self.clone(), thread.clone());
        tokio::spawn(async move { this.work(thread, again, first).await });
    }

    async fn work(self: Arc<Self>, thread: ThreadId, again: Arc<Notify>, mut first: Option<(ServedRun, Begins)>) {
        loop {
            match self.work_off(&thread, &again, first.take()).await {
                Ok(()) if !*self.draining.borrow() => {
                    // Under the lock nobody can add to the queue unseen: `kick` comes after the row.
                    let mut hands = self.hands();
                    if again.notified().now_or_never().is_some() {
                        continue;
                    }
                    hands.remove(&thread);
                    return;
                }
                Ok(()) => break,
                Err(failure) => {
                    tracing::warn!(thread = %thread, code = failure.code, "a run waits: {failure}");
                    tokio::time::sleep(LOOK_EVERY * 4).await;
                }
            }
            if *self.draining.borrow() {
                break;
            }
        }
        self.hands().remove(&thread);
    }

    /// Works the queue off as far as it is due.
    async fn work_off(
        self: &Arc<Self>,
        thread: &ThreadId,
        again: &Notify,
        first: Option<(ServedRun, Begins)>,
    ) -> Result<(), Failure> {
        if let Some((first, begins)) = first {
            // The queue was empty before it; whoever adds to it says so.
            return self.run(first, begins).await;
        }
        let mut draining = self.draining.subscribe();
        while !*draining.borrow() {
            let next = self.app.database().next_run(thread).await.map_err(|e| e.failure())?;
            let Some(run) = next else { return Ok(()) };
            let ahead = (run.due_at - Utc::now()).to_std().unwrap_or_default();
            if run.status == RunStatus::Pending && !ahead.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(ahead) => {}
                    () = again.notified() => {}
                    _ = draining.changed() => {}
                }
                continue;
            }
            self.run(run, Begins::Found).await?;
        }
        Ok(())
    }

    /// One run from its beginning, or from where a crash left it, to its end.
    async fn run(self: &Arc<Self>, mut run: ServedRun, begins: Begins) -> Result<(), Failure> {
        let of = |e: crate::graph::StoreError| e.failure();
        let database = self.app.database();
        let known = matches!(begins, Begins::Born(_)) || database.has_begun(&run.thread).await.map_err(of)?;
        let found = if run.status == RunStatus::Running {
            let events = match known && matches!(begins, Begins::Found) {
                true => self.app.store().events(&run.thread, run.first.unwrap_or(0), usize::MAX).await.map_err(of)?,
                false => Vec::new(),
            };
            Found::new(events)
        } else {
            let first = if known { self.last_event(&run.thread).await? } else { 0 };
            let at = Utc::now();
            if !database.begin_run(&run.id, first, at).await.map_err(of)? {
                return Ok(());
            }
            (run.first, run.updated_at) = (Some(first), at);
            Found::new(Vec::new())
        };
        let mut stop = self.take_up(&run).await?;
        self.bell.ring(&run.thread);
        if found.has_done_nothing()
            && let Some(failure) = self.refused(&run).await?
        {
            return self.ended(&run, ThreadStatus::Failed, Some(failure)).await;
        }
        let answers = run.body.kwargs["command"].get("resume").is_some();
        if *stop.borrow() == Stop::Hold && (!known || found.is_empty() && !answers) {
            // Stopped before anything was done; an answer was recorded when it was accepted.
            return self.ended(&run, ThreadStatus::Interrupted, None).await;
        }
        let ended = match self.at_once(&run, known, begins, &stop).await {
            Some(end) => match self.rested(&run, &stop, end).await {
                Ok(None) => self.advance(&run, true, &mut stop).await,
                Ok(Some(end)) => Ok(end),
                Err(failure) => Err(failure),
            },
            None => match self.apply(&run, &found, known).await {
                Ok(()) => self.advance(&run, found.was_advanced(), &mut stop).await,
                Err(failure) => Err(failure),
            },
        };
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(end)) => self.ended(&run, end.status, end.failure).await,
            Err(failure) if is_passing(&failure) => Err(failure),
            Err(failure) => self.ended(&run, ThreadStatus::Failed, Some(failure)).await,
        }
    }

    /// The hand's stop, free of what was meant for the run before.
    async fn take_up(&self, run: &ServedRun) -> Result<watch::Receiver<Stop>, Failure> {
        let stop = {
            let mut hands = self.hands();
            let hand = hands.entry(run.thread.clone()).or_insert_with(|| Hand {
                stop: watch::channel(Stop::No).0,
                current: None,
                again: Arc::new(Notify::new()),
            });
            hand.current = Some(run.id.clone());
            hand.stop.send_replace(if *self.draining.borrow() { Stop::Drain } else { Stop::No });
            hand.stop.subscribe()
        };
        // Behind the hand's word: who stops it from now on finds whose turn it is.
        if self.asked_cancel(run).await?.is_some() {
            self.hold(run);
        }
        Ok(stop)
    }

    /// Lets the run that is under way come to the end of its superstep.
    pub(super) fn hold(&self, run: &ServedRun) {
        let mut hands = self.hands();
        let Some(hand) = hands.get_mut(&run.thread) else { return };
        if hand.current.as_ref() == Some(&run.id) {
            hand.stop.send_if_modified(|stop| {
                let holds = *stop == Stop::No;
                *stop = if holds { Stop::Hold } else { *stop };
                holds
            });
        }
        hand.again.notify_one();
    }

    /// Lets the engine take the thread on until it rests. `None`: the server ends, the run goes on with the next one.
    async fn advance(
        &self,
        run: &ServedRun,
        mut rested: bool,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<Option<RunEnd>, Failure> {
        let mut bell = self.bell.listen(&run.thread);
        loop {
            let thread = self.app.thread(&run.thread).await?;
            let asked = *stop.borrow_and_update();
            if asked == Stop::Drain {
                return Ok(None);
            }
            let elsewhere =
                thread.owner.as_ref().is_some_and(|owner| owner != self.app.owner() && self.app.is_alive(owner));
            let rests =
                !matches!(thread.status, ThreadStatus::Pending | ThreadStatus::Running | ThreadStatus::Sleeping);
            if rested && rests && !elsewhere {
                return Ok(Some(RunEnd { status: thread.status, failure: thread.failure }));
            }
            let sleeps = rested && thread.status == ThreadStatus::Sleeping && !self.app.is_due(&thread).await?;
            if elsewhere || sleeps {
                if asked == Stop::Hold && elsewhere {
                    self.app.let_go(&run.thread, true, "runs cancel").await?;
                    rested = true;
                } else if asked == Stop::Hold {
                    self.app.engine().hold(&run.thread).await.map_err(|e| e.failure())?;
                } else {
                    rested = true;
                    let wake = thread.wake.as_ref().and_then(|alarm| (alarm.at - Utc::now()).to_std().ok());
                    let most = if elsewhere { LOOK_EVERY } else { LOOK_SELDOM };
                    let pause = wake.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(1), most);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = bell.changed() => {}
                        _ = stop.changed() => {}
                    }
                }
                continue;
            }
            let place = self.places.acquire().await;
            let how = Advance { stop: stop.clone(), ..run_body::advance(&run.body) };
            let end = self.app.advance_approved(&run.thread, how).await;
            drop(place);
            rested = true;
            if let Some(end) = self.rested(run, stop, end).await? {
                return Ok(end);
            }
        }
    }

    /// What comes of an engine that has let go of the thread. `None`: how it stands is to be looked at; `Some(None)`: the server ends.
    async fn rested(
        &self,
        run: &ServedRun,
        stop: &watch::Receiver<Stop>,
        end: Result<RunEnd, Failure>,
    ) -> Result<Option<Option<RunEnd>>, Failure> {
        match end {
            // Somebody else has just taken it: then it is theirs until it rests.
            Err(failure) if failure.code == "lease_held" => Ok(None),
            Err(failure) => Err(failure),
            Ok(end) if end.status == ThreadStatus::Sleeping => Ok(None),
            Ok(end) if end.status == ThreadStatus::Running => {
                if *stop.borrow() == Stop::Drain {
                    return Ok(Some(None));
                }
                // Held here, or let go because somebody else asked for it; what became of it stands in its row.
                tokio::task::yield_now().await;
                if self.app.thread(&run.thread).await?.status == ThreadStatus::Running {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Ok(None)
            }
            Ok(end) => Ok(Some(Some(end))),
        }
    }

    /// The run's end becomes durable, then whoever waits is told.
    async fn ended(
        self: &Arc<Self>,
        run: &ServedRun,
        status: ThreadStatus,
        failure: Option<Failure>,
    ) -> Result<(), Failure> {
        // Somebody may stop it just then: its end knows of that.
        while !self.settled(run, status, failure.clone()).await? {}
        if let Some(hand) = self.hands().get_mut(&run.thread).filter(|hand| hand.current.as_ref() == Some(&run.id)) {
            hand.current = None;
        }
        self.bell.ring(&run.thread);
        Ok(())
    }

    /// False: somebody has stopped it meanwhile.
    async fn settled(
        self: &Arc<Self>,
        run: &ServedRun,
        mut status: ThreadStatus,
        mut failure: Option<Failure>,
    ) -> Result<bool, Failure> {
        let of = |e: crate::graph::StoreError| e.failure();
        let RunRestsOn { cancel, begun: known, open, last } =
            self.app.database().run_rests_on(&run.id, &run.thread).await.map_err(of)?;
        let stopped = cancel.is_some() && status == ThreadStatus::Interrupted;
        if let Some(cancel) = cancel.as_ref().filter(|cancel| cancel.rollback)
            && status != ThreadStatus::Succeeded
        {
            match self.take_back(run, &cancel.by).await {
                Ok(()) => {
                    self.app.database().delete_run(&run.id).await.map_err(of)?;
                    if run.body.kwargs["temporary"] == Value::Bool(true) && !(known && is_release_graph(run)) {
                        self.clear_later(run.thread.clone());
                    }
                    return Ok(true);
                }
                Err(failure) if is_passing(&failure) => return Err(failure),
                // It stays, with what could not be taken back.
                Err(refused) => (status, failure) = (ThreadStatus::Failed, Some(refused)),
            }
        }
        let (word, error) = match status {
            _ if stopped => (RunStatus::Interrupted, None),
            ThreadStatus::Succeeded | ThreadStatus::Interrupted | ThreadStatus::Sleeping => (RunStatus::Success, None),
            ThreadStatus::Cancelled => (RunStatus::Interrupted, failure),
            ThreadStatus::Pending | ThreadStatus::Running | ThreadStatus::Failed | ThreadStatus::Stuck => {
                let unknown = || Failure::new("not_finished", format!("the run is {}", status.word()));
                (RunStatus::Error, Some(failure.unwrap_or_else(unknown)))
            }
        };
        let outcome = json!({
            "stands": !stopped && status == ThreadStatus::Interrupted,
            "interrupts": if stopped { Vec::new() } else { open },
            "error": error.as_ref().map(shapes::error),
        });
        if status == ThreadStatus::Interrupted && known {
            // An answer from elsewhere, or the end of a question's time, is anybody's to go on with.
            self.app.leave(&run.thread).await?;
        }
        if !run_webhook::end(&self.app, run, (word, last), outcome, cancel).await? {
            return Ok(false);
        }
        // The record of a release outlives whoever began it.
        if run.body.kwargs["temporary"] == Value::Bool(true) && !(known && is_release_graph(run)) {
            self.clear_later(run.thread.clone());
        }
        Ok(true)
    }

    /// Waits until a run has ended or is gone.
    pub async fn over(&self, run: &ServedRun) -> Result<Option<ServedRun>, Failure> {
        let (mut bell, mut was_at_work) = (self.bell.listen(&run.thread), false);
        loop {
            if self.is_under_way(run) {
                // Here, and it rings when it is not any more.
                was_at_work = true;
            } else {
                // What was at work is over, as a rule: its row is read at once. Of one that waits only how it stands.
                let stands = match std::mem::take(&mut was_at_work) {
                    true => None,
                    false => self.app.database().run_stands(&run.id).await.map_err(|e| e.failure())?,
                };
                if stands.is_none_or(|(status, _)| status.is_over()) {
                    let row = self.app.database().api_run(&run.id).await.map_err(|e| e.failure())?;
                    if row.as_ref().is_none_or(|row| row.status.is_over()) {
                        return Ok(row);
                    }
                }
            }
            tokio::select! {
                _ = bell.changed() => {}
                () = tokio::time::sleep(LOOK_SELDOM) => {}
            }
        }
    }

    fn is_under_way(&self, run: &ServedRun) -> bool {
        self.hands().get(&run.thread).is_some_and(|hand| hand.current.as_ref() == Some(&run.id))
    }

    /// The number of a thread's newest event.
    pub(super) async fn last_event(&self, thread: &ThreadId) -> Result<u64, Failure> {
        self.app.database().last_event(thread).await.map_err(|e| e.failure())
    }

    /// Lets every run come to the end of what it is at, within a time. What is not through then goes on with the next server.
    pub async fn drain(&self, within: Duration) {
        self.draining.send_replace(true);
        for hand in self.hands().values() {
            hand.stop.send_replace(Stop::Drain);
            hand.again.notify_one();
        }
        let began = tokio::time::Instant::now();
        while !self.hands().is_empty() && began.elapsed() < within {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What will be otherwise later: the disk is full, another process holds the thread.
fn is_passing(failure: &Failure) -> bool {
    ["store_cannot_write", "disk_full", "store_failed", "lease_lost"].contains(&failure.code.as_str())
}
