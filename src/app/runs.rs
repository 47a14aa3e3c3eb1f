//! Starting, advancing, deciding, stopping, exporting threads.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Map, Value, json};

use super::App;
use super::workflows::{MODEL_DEPLOYER, ROLLBACK};
use crate::graph::{
    Advance, Answer, EngineError, Export, Failure, Interrupt, InterruptId, Liveness, RunEnd, StoreError, Thread,
    ThreadFilter, ThreadId, ThreadStatus, replay,
};
use crate::nodes::{ApprovalQuestion, RollbackRequest};
use crate::release::{
    Decision, DeployRequest, DeploymentPlan, Format, PlanInput, PlanState, ReleaseChange, ReleaseRow, Verdict, plan,
};
use crate::store::ProcLiveness;

/// How long the one who decided waits for the process that attends the thread to take it.
const HANDOVER: Duration = Duration::from_secs(5);
/// Pause between two looks while waiting for somebody else.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An open question with its thread.
#[derive(Debug, Clone)]
pub struct OpenQuestion {
    /// The question.
    pub interrupt: Interrupt,
    /// What it asks, if it is an approval.
    pub approval: Option<ApprovalQuestion>,
}

/// A decision on a question.
#[derive(Debug, Clone)]
pub struct Decide {
    /// Yes or no.
    pub verdict: Verdict,
    /// Who.
    pub by: String,
    /// Through what.
    pub via: String,
    /// Why.
    pub reason: Option<String>,
    /// Digest of what was shown; `None`: as it is now.
    pub digest: Option<String>,
}

/// What came of a decision.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The thread.
    pub thread: ThreadId,
    /// A living process that waits for the answer and goes on by itself.
    pub attended_by: Option<String>,
}

impl App {
    /// The plan for a request; changes nothing.
    pub async fn plan(&self, request: DeployRequest) -> Result<DeploymentPlan, Failure> {
        let live = self.ledger().live(request.model.as_str()).await;
        let live = live.map_err(|e| Failure::new(e.code(), e.to_string()))?.and_then(|row| row.as_live());
        let machine = self.world.machine.facts().await.map_err(|e| Failure::new(&e.code, e.message))?;
        let input = PlanInput { request, live, machine, policy: self.world.policy.clone() };
        plan(&input).map_err(|e| Failure::new(e.code(), e.to_string()).hint(e.hint()))
    }

    /// Makes the ledger follow the traffic: after the gateway fell back by itself, the row that answers is the live one. Returns the
    /// version that it found to be live, if it had to change anything.
    pub async fn reconcile(&self, model: &str) -> Result<Option<String>, Failure> {
        let of = |e: crate::release::LedgerError| Failure::new(e.code(), e.to_string());
        let history = self.ledger().history(model).await.map_err(of)?;
        let Some(live) = history.iter().find(|row| row.live) else { return Ok(None) };
        let route = self.world.router.route(model).await.map_err(|e| Failure::new(&e.code, e.message))?;
        let Some(answers) = route.and_then(|route| route.live) else { return Ok(None) };
        if live.slot_token.as_deref() == Some(&answers) {
            return Ok(None);
        }
        let owns =
            |row: &&ReleaseRow| row.slot_token.as_deref() == Some(&answers) && row.status == PlanState::Completed;
        let Some(row) = history.iter().find(owns) else { return Ok(None) };
        self.ledger().set_live(model, Some(&row.deployment_id), Utc::now()).await.map_err(of)?;
        Ok(row.model_version.clone())
    }

    /// Accepts a release; its thread's id is the `deployment_id`.
    pub async fn start_deploy(&self, request: &DeployRequest) -> Result<ThreadId, Failure> {
        self.start_deploy_as(None, request).await
    }

    /// The same under an id of the caller's.
    pub async fn start_deploy_as(&self, id: Option<ThreadId>, request: &DeployRequest) -> Result<ThreadId, Failure> {
        if self.ledger().live(request.model.as_str()).await.is_ok_and(|live| live.is_some()) {
            self.reconcile(request.model.as_str()).await?;
        }
        let mut labels = BTreeMap::from([("kind".to_owned(), "deploy".to_owned())]);
        labels.insert("model".to_owned(), request.model.to_string());
        labels.extend(request.environment.clone().map(|e| ("environment".to_owned(), e)));
        let input = Map::from_iter([("request".to_owned(), to_value(request)?)]);
        self.accept(id, &self.workflow(MODEL_DEPLOYER)?, input, labels).await
    }

    /// Accepts a rollback, a thread of its own.
    pub async fn start_rollback(&self, request: &RollbackRequest) -> Result<ThreadId, Failure> {
        self.start_rollback_as(None, request).await
    }

    /// The same under an id of the caller's.
    pub async fn start_rollback_as(
        &self,
        id: Option<ThreadId>,
        request: &RollbackRequest,
    ) -> Result<ThreadId, Failure> {
        self.reconcile(request.model.as_str()).await?;
        let mut labels = BTreeMap::from([("kind".to_owned(), "rollback".to_owned())]);
        labels.insert("model".to_owned(), request.model.to_string());
        let input = Map::from_iter([("rollback".to_owned(), to_value(request)?)]);
        self.accept(id, &self.workflow(ROLLBACK)?, input, labels).await
    }

    /// Takes a thread and goes on until it ends, waits or is asked to stop.
    pub async fn advance(&self, id: &ThreadId, how: Advance) -> Result<RunEnd, Failure> {
        let graph = self.graph_of(&self.thread(id).await?)?;
        self.engine().advance(&graph, id, how).await.map_err(|e| e.failure())
    }

    /// Ends a thread and undoes what it did since its commit point. A living owner is asked to let go first. Without undo everything
    /// stays but the release's row, which is FAILED: the next release of the model must not wait for it.
    pub async fn cancel(&self, id: &ThreadId, undo: bool, why: Failure) -> Result<RunEnd, Failure> {
        let row = self.ledger().get(id.as_str()).await.ok().flatten();
        if let Some(row) = row.filter(|row| undo && row.status == PlanState::Completed) {
            let over = Failure::new(
                "release_over",
                format!("release {} of {} is complete", row.deployment_id, row.model_name),
            );
            return Err(over.hint(format!("`tidegate rollback {}` goes back", row.model_name)));
        }
        let end = self.cancel_thread(id, undo, why.clone()).await?;
        if !undo
            && let Ok(Some(row)) = self.ledger().get(id.as_str()).await
            && !row.status.is_terminal()
        {
            let failed = ReleaseChange::failed(&why.message, Utc::now());
            self.ledger().update(id.as_str(), failed).await.map_err(|e| Failure::new(e.code(), e.to_string()))?;
        }
        Ok(end)
    }

    async fn cancel_thread(&self, id: &ThreadId, undo: bool, why: Failure) -> Result<RunEnd, Failure> {
        let thread = self.thread(id).await?;
        let graph = self.graph_of(&thread)?;
        let mut asked = false;
        let began = std::time::Instant::now();
        loop {
            match self.engine().cancel(&graph, id, undo, why.clone()).await {
                Err(EngineError::Store(StoreError::Held { owner, .. })) if began.elapsed() < HANDOVER * 6 => {
                    if !asked && owner.pid != std::process::id() {
                        // The first interrupt stops it resumably, as ctrl-C in its terminal would.
                        ask_to_stop(owner.pid);
                        asked = true;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                end => return end.map_err(|e| e.failure()),
            }
        }
    }

    /// A thread's row.
    pub async fn thread(&self, id: &ThreadId) -> Result<Thread, Failure> {
        let found = self.store.thread(id).await.map_err(|e| e.failure())?;
        found.ok_or_else(|| StoreError::NoThread(id.clone()).failure())
    }

    /// The thread that a person means: an id, the beginning of one (six characters at least), or a model's name for its newest one.
    pub async fn find_thread(&self, meant: &str) -> Result<Thread, Failure> {
        let exact = ThreadId::from(meant);
        if let Some(thread) = self.store.thread(&exact).await.map_err(|e| e.failure())? {
            return Ok(thread);
        }
        let threads = self.store.threads(&ThreadFilter::default()).await.map_err(|e| e.failure())?;
        let of_model = |t: &&Thread| t.labels.get("model").is_some_and(|model| model == meant);
        if let Some(newest) = threads.iter().find(of_model) {
            return Ok(newest.clone());
        }
        let begins: Vec<&Thread> =
            threads.iter().filter(|t| meant.len() >= 6 && t.id.as_str().starts_with(meant)).collect();
        match begins.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(StoreError::NoThread(exact).failure()),
            more => Err(Failure::new("thread_ambiguous", format!("{} threads begin with `{meant}`", more.len()))
                .hint("write more of the id")),
        }
    }

    /// Open questions, of one thread or of all.
    pub async fn questions(&self, thread: Option<&ThreadId>) -> Result<Vec<OpenQuestion>, Failure> {
        let open = self.store.interrupts(thread, true).await.map_err(|e| e.failure())?;
        Ok(open.into_iter().map(OpenQuestion::from).collect())
    }

    /// The open question that a person means by its id, the beginning of it, or its thread's.
    pub async fn find_question(&self, meant: &str) -> Result<OpenQuestion, Failure> {
        let id = InterruptId::from(meant);
        if let Some(asked) = self.store.interrupt(&id).await.map_err(|e| e.failure())? {
            return Ok(asked.into());
        }
        let mut open = self.questions(None).await?;
        let fits = |q: &OpenQuestion| {
            let asked = &q.interrupt;
            asked.thread.as_str() == meant
                || q.approval.as_ref().is_some_and(|a| a.model == meant)
                || meant.len() >= 6
                    && (asked.id.as_str().starts_with(meant) || asked.thread.as_str().starts_with(meant))
        };
        open.retain(fits);
        match open.len() {
            1 => Ok(open.remove(0)),
            0 => Err(StoreError::NoInterrupt(id).failure()),
            n => Err(Failure::new("question_ambiguous", format!("{n} open questions fit `{meant}`"))
                .hint("write the question's whole id")),
        }
    }

    /// Answers a question with any value.
    pub async fn answer(
        &self,
        asked: &Interrupt,
        value: Value,
        by: &str,
        via: &str,
        digest: Option<&str>,
    ) -> Result<(), Failure> {
        let answer = Answer { value, by: by.to_owned(), via: via.to_owned(), at: Utc::now() };
        self.store.answer(&asked.id, &answer, digest).await.map(drop).map_err(|e| e.failure())
    }

    /// Decides an approval. The first decision wins; a later one is told who decided.
    pub async fn decide(&self, question: &OpenQuestion, decide: Decide) -> Result<Decided, Failure> {
        let asked = &question.interrupt;
        let Some(approval) = &question.approval else {
            return Err(Failure::new("not_an_approval", format!("question {} asks for something else", asked.id))
                .hint(format!("answer it with `tidegate run resume {} --value JSON`", asked.thread)));
        };
        let decision = Decision {
            format: Format,
            verdict: decide.verdict,
            by: decide.by.clone(),
            at: Utc::now(),
            reason: decide.reason,
            digest: decide.digest.unwrap_or_else(|| approval.digest.clone()),
        };
        decision.check(&approval.digest).map_err(|e| Failure::new(e.code(), e.to_string()))?;
        self.answer(asked, to_value(&decision)?, &decide.by, &decide.via, Some(&asked.digest)).await?;
        let thread = self.thread(&asked.thread).await?;
        let attendant = thread.attendant.filter(|owner| ProcLiveness.alive(owner) && *owner != self.owner);
        Ok(Decided { thread: thread.id, attended_by: attendant.map(|owner| owner.to_string()) })
    }

    /// Waits until whoever attends the thread has taken it. False: nobody did in time.
    pub async fn taken_over(&self, id: &ThreadId) -> Result<bool, Failure> {
        let began = std::time::Instant::now();
        while began.elapsed() < HANDOVER {
            let thread = self.thread(id).await?;
            if thread.owner.is_some() || thread.status != ThreadStatus::Interrupted {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// A thread with its whole record.
    pub async fn export(&self, id: &ThreadId) -> Result<Export, Failure> {
        Export::of(&*self.store, id).await.map_err(|e| e.failure())
    }

    /// Replays an export without touching the world.
    pub async fn replay(&self, export: &Export) -> Result<RunEnd, Failure> {
        let graph = self.graph_of(&export.thread)?;
        replay(&graph, export).await.map_err(|e| e.failure())
    }
}

impl From<Interrupt> for OpenQuestion {
    fn from(interrupt: Interrupt) -> Self {
        let approval = serde_json::from_value(interrupt.value.clone()).ok();
        Self { interrupt, approval }
    }
}

/// Sends SIGINT to a process that has been shown to be a living owner.
fn ask_to_stop(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended by itself meanwhile; then its lease is free.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT);
    }
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|e| Failure::new("not_json", "a request cannot be written as JSON").because(e.to_string()))
}

/// The error document of the surface: `{error: {code, message, cause, hint}, thread}`.
pub fn error_document(failure: &Failure, thread: Option<&ThreadId>) -> Value {
    json!({
        "error": {"code": failure.code, "message": failure.message, "cause": failure.cause, "hint": failure.hint},
        "thread": thread,
    })
}
