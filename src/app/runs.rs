//! Starting, advancing, deciding, stopping, exporting threads.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Map, Value, json};

use super::App;
use super::stops::{Listening, needs_host};
use super::workflows::{MODEL_DEPLOYER, ROLLBACK};
use crate::graph::{
    Advance, Answer, Claim, Export, Failure, Interrupt, InterruptId, Liveness, Owner, RunEnd, StoreError, Thread,
    ThreadFilter, ThreadId, ThreadStatus, claim, replay, replay_with,
};
use crate::nodes::{ApprovalQuestion, RollbackRequest};
use crate::release::{DeployRequest, DeploymentPlan, PlanInput, PlanState, ReleaseChange, ReleaseRow, plan};
use crate::store::ProcLiveness;

/// How long the one who decided waits for the process that attends the thread to take it.
const HANDOVER: Duration = Duration::from_secs(5);
/// How often a cancel asks again whoever has taken the thread before it could.
const MOST_TRIES: u32 = 5;
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

/// How a release is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Its thread's id; `None`: a fresh one.
    pub id: Option<ThreadId>,
    /// Who approves it in advance. Kept with the thread: whoever goes on with it does not ask.
    pub approved_by: Option<String>,
}

/// Most supersteps of a release in one run: a version on trial takes one every few minutes, for days.
const RELEASE_STEPS: u32 = 100_000;

/// The label of a thread that was approved in advance: by whom.
pub(super) const APPROVED_BY: &str = "approved_by";

impl App {
    /// The plan for a request; changes nothing.
    pub async fn plan(&self, request: DeployRequest) -> Result<DeploymentPlan, Failure> {
        let live = self.ledger().live(request.model.as_str()).await;
        let live = live.map_err(|e| Failure::new(e.code(), e.to_string()))?.and_then(|row| row.as_live());
        let machine = crate::nodes::machine(&self.world, request.model.as_str()).await;
        let machine = machine.map_err(|e| Failure::new(&e.code, e.message))?;
        let seen = crate::nodes::seen(&self.world, request.model.as_str()).await?;
        let input = PlanInput { request, live, machine, seen, policy: self.world.policy.policy()? };
        let plan = plan(&input).map_err(|e| Failure::new(e.code(), e.to_string()).hint(e.hint()))?;
        crate::nodes::check_metrics(&*self.world.expressions, &plan.metrics)?;
        Ok(plan)
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

    /// Accepts a release; its thread's id is the `deployment_id`. As every accepted thread it is the caller's to advance, or to
    /// [`App::leave`].
    pub async fn start_deploy(&self, request: &DeployRequest) -> Result<ThreadId, Failure> {
        self.start_deploy_as(Start::default(), request).await
    }

    /// The same under an id of the caller's, or approved in advance.
    pub async fn start_deploy_as(&self, start: Start, request: &DeployRequest) -> Result<ThreadId, Failure> {
        self.refuse_while_down()?;
        if self.ledger().live(request.model.as_str()).await.is_ok_and(|live| live.is_some()) {
            self.reconcile(request.model.as_str()).await?;
        }
        let mut labels = BTreeMap::from([("kind".to_owned(), "deploy".to_owned())]);
        labels.insert("model".to_owned(), request.model.to_string());
        labels.extend(request.environment.clone().map(|e| ("environment".to_owned(), e)));
        labels.extend(start.approved_by.map(|who| (APPROVED_BY.to_owned(), who)));
        let input = Map::from_iter([("request".to_owned(), to_value(request)?)]);
        self.accept(start.id, &self.workflow(MODEL_DEPLOYER)?, input, labels).await
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
        self.refuse_while_down()?;
        let of = |e: crate::release::LedgerError| Failure::new(e.code(), e.to_string());
        if self.ledger().history(request.model.as_str()).await.map_err(of)?.is_empty() {
            return Err(Failure::new("model_unknown", format!("there is no model {}", request.model))
                .hint("`tidegate list` shows all releases"));
        }
        self.reconcile(request.model.as_str()).await?;
        let mut labels = BTreeMap::from([("kind".to_owned(), "rollback".to_owned())]);
        labels.insert("model".to_owned(), request.model.to_string());
        let input = Map::from_iter([("rollback".to_owned(), to_value(request)?)]);
        self.accept(id, &self.workflow(ROLLBACK)?, input, labels).await
    }

    /// Leaves a thread to whoever comes: the next runner, or who answers its question.
    pub async fn leave(&self, id: &ThreadId) -> Result<(), Failure> {
        self.store.attend(id, None).await.map_err(|e| e.failure())
    }

    /// Says that this process goes on with a thread, so that no runner takes it in between. False: another living process does.
    pub async fn attend(&self, id: &ThreadId) -> Result<bool, Failure> {
        if self.other_attendant(&self.thread(id).await?).is_some() {
            return Ok(false);
        }
        self.store.attend(id, Some(&self.owner)).await.map_err(|e| e.failure())?;
        Ok(true)
    }

    pub(super) fn other_attendant<'t>(&self, thread: &'t Thread) -> Option<&'t Owner> {
        thread.attendant.as_ref().filter(|owner| **owner != self.owner && ProcLiveness.alive(owner))
    }

    /// Takes a thread and goes on until it ends, waits, or is asked to stop: by the caller, or through the thread's inbox.
    pub async fn advance(&self, id: &ThreadId, how: Advance) -> Result<RunEnd, Failure> {
        let thread = self.thread(id).await?;
        if needs_host(&thread) {
            self.refuse_while_down()?;
        }
        let graph = self.graph_of(&thread)?;
        let listening = Listening::begin(self, &thread, how.stop).await?;
        let most = if needs_host(&thread) { how.recursion_limit.max(RELEASE_STEPS) } else { how.recursion_limit };
        let how = Advance { stop: listening.stop.clone(), recursion_limit: most, ..how };
        let (engine, traced) = self.tracing_engine(&thread);
        let end = engine.advance(&graph, id, how).await.map_err(|e| e.failure());
        self.traced(traced, end.as_ref()).await;
        let end = end?;
        self.forget_ended(id, end.status).await;
        self.retain(&thread).await;
        Ok(listening.heard_by(end))
    }

    /// The same, and gives the approval that whoever began the thread has given in advance, as often as it is asked for.
    pub async fn advance_approved(&self, id: &ThreadId, how: Advance) -> Result<RunEnd, Failure> {
        loop {
            let end = self.advance(id, how.clone()).await?;
            if end.status != ThreadStatus::Interrupted || !self.approve_in_advance(id).await? {
                return Ok(end);
            }
        }
    }

    /// Ends a thread and undoes what it did since its commit point. Whoever advances it is asked to let go first. Without undo everything
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

    /// Tries an undo again that is stuck.
    pub async fn retry_undo(&self, id: &ThreadId) -> Result<RunEnd, Failure> {
        let thread = self.thread(id).await?;
        if thread.status != ThreadStatus::Stuck {
            let message = format!("run {id} is not stuck: it is {}", thread.status.word());
            return Err(Failure::new("not_stuck", message).hint("`tidegate run show` tells how it stands"));
        }
        self.advance(id, Advance::default()).await
    }

    /// Accepts what an undo is stuck at as it is, and undoes the rest.
    pub async fn accept_undo(&self, id: &ThreadId, by: &str) -> Result<RunEnd, Failure> {
        let thread = self.thread(id).await?;
        if needs_host(&thread) {
            self.refuse_while_down()?;
        }
        let graph = self.graph_of(&thread)?;
        self.engine().accept_undo(&graph, id, by).await.map_err(|e| e.failure())
    }

    async fn cancel_thread(&self, id: &ThreadId, undo: bool, why: Failure) -> Result<RunEnd, Failure> {
        let thread = self.thread(id).await?;
        if needs_host(&thread) {
            self.refuse_while_down()?;
        }
        let graph = self.graph_of(&thread)?;
        let mut tries = 0;
        let end = loop {
            // Held, not drained: the runner must not take it again before we do.
            if !self.let_go(id, true, "run cancel").await? {
                return Err(not_let_go(id));
            }
            if needs_host(&thread) {
                // It may have gone down meanwhile; from here on our lease is what `down` waits for.
                self.refuse_while_down()?;
            }
            let (engine, traced) = self.tracing_engine(&thread);
            let ended = engine.cancel(&graph, id, undo, why.clone()).await.map_err(|e| e.failure());
            self.traced(traced, ended.as_ref()).await;
            match ended {
                // A thread that was just accepted is nobody's; a runner has taken it in this very moment.
                Err(failure) if failure.code == "lease_held" && tries < MOST_TRIES => tries += 1,
                end => break end?,
            }
        };
        self.forget_ended(id, end.status).await;
        self.retain(&thread).await;
        Ok(end)
    }

    /// What is remembered of a thread's programs is needed only while it may go on.
    pub(super) async fn forget_ended(&self, id: &ThreadId, status: ThreadStatus) {
        if status.is_terminal()
            && let Err(error) = self.tools.commands.forget(id.as_str()).await
        {
            tracing::warn!(thread = %id, code = error.code, "records of programs stay: {error}");
        }
    }

    /// A thread's row.
    pub async fn thread(&self, id: &ThreadId) -> Result<Thread, Failure> {
        let found = self.store.thread(id).await.map_err(|e| e.failure())?;
        found.ok_or_else(|| StoreError::NoThread(id.clone()).failure())
    }

    /// The thread that a person means: an id, the beginning of one (six characters at least), or a model's name for
    /// the newest one under way, else the newest.
    pub async fn find_thread(&self, meant: &str) -> Result<Thread, Failure> {
        let exact = ThreadId::from(meant);
        if let Some(thread) = self.store.thread(&exact).await.map_err(|e| e.failure())? {
            return Ok(thread);
        }
        let threads = self.store.threads(&ThreadFilter::default()).await.map_err(|e| e.failure())?;
        // A model's name means what is done here; a record from elsewhere only where there is nothing else.
        let of = |t: &Thread| t.labels.get("model").is_some_and(|model| model == meant);
        let here = threads.iter().any(|t| of(t) && t.imported.is_none());
        let of_model = |t: &&Thread| of(t) && (t.imported.is_none() || !here);
        let under_way = |t: &&Thread| !t.status.is_terminal();
        let of_model: Vec<&Thread> = threads.iter().filter(of_model).collect();
        if let Some(meant) = of_model.iter().copied().find(under_way).or(of_model.first().copied()) {
            return Ok(meant.clone());
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

    /// Answers to questions of one thread, looked at but not recorded: each question is open, and each value is one that the asking node
    /// can take. What approves a release is no such answer: it goes through [`App::decide`], which asks who may.
    pub async fn claims(&self, answers: Vec<(Interrupt, Value)>, by: &str, via: &str) -> Result<Vec<Claim>, Failure> {
        let approval =
            |asked: &Interrupt| asked.answer.is_none() && OpenQuestion::from(asked.clone()).approval.is_some();
        if let Some((asked, _)) = answers.iter().find(|(asked, _)| approval(asked)) {
            let id = &asked.id;
            let failure = Failure::new("is_an_approval", format!("question {id} asks for an approval"));
            return Err(failure.hint(format!("`tidegate approve {id}`, or `tidegate reject {id} --reason TEXT`")));
        }
        self.admitted(answers, by, via).await
    }

    pub(super) async fn admitted(
        &self,
        answers: Vec<(Interrupt, Value)>,
        by: &str,
        via: &str,
    ) -> Result<Vec<Claim>, Failure> {
        let mut claims = Vec::with_capacity(answers.len());
        let mut graph = None;
        for (asked, value) in answers {
            if graph.is_none() {
                graph = Some(self.graph_of(&self.thread(&asked.thread).await?)?);
            }
            let answer = Answer { value, by: by.to_owned(), via: via.to_owned(), at: Utc::now() };
            // What is over is told before what is wrong: no other answer would help.
            claim(&asked, &answer, None).map_err(|e| e.failure())?;
            if let Some(graph) = &graph {
                graph.admits_answer(&asked.key.ns, &asked.key.node, &answer.value).transpose()?;
            }
            claims.push(Claim { id: asked.id, answer, digest: Some(asked.digest) });
        }
        Ok(claims)
    }

    /// Records answers, all or none: each question must still be what it was when it was read.
    pub async fn answer_all(&self, claims: Vec<Claim>) -> Result<(), Failure> {
        if claims.is_empty() {
            return Ok(());
        }
        self.store.answer_all(claims).await.map(drop).map_err(|e| e.failure())
    }

    /// Whether a living process advances it.
    pub fn is_advanced(&self, thread: &Thread) -> bool {
        thread.owner.as_ref().is_some_and(|owner| self.is_alive(owner))
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

    /// Replays an export without touching the world: by the workflow that it carries, or by another one (a name or a file), which
    /// tells whether that would have gone the same way.
    pub async fn replay(&self, export: &Export, workflow: Option<&str>) -> Result<RunEnd, Failure> {
        let end = match workflow {
            None => replay(&self.graph_of(&export.thread)?, export).await,
            Some(other) => replay_with(&self.build(&self.workflow(other)?)?, export).await,
        };
        end.map_err(|e| e.failure())
    }
}

/// An export as it is written to a file: indented, with a new line at its end.
pub fn export_text(export: &Export) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(export);
    let text = text.map_err(|e| {
        Failure::new("not_json", format!("the record of {} cannot be written as JSON", export.thread.id))
            .because(e.to_string())
    })?;
    Ok(text + "\n")
}

impl From<Interrupt> for OpenQuestion {
    fn from(interrupt: Interrupt) -> Self {
        let approval = serde_json::from_value(interrupt.value.clone()).ok();
        Self { interrupt, approval }
    }
}

fn not_let_go(id: &ThreadId) -> Failure {
    Failure::new("lease_held", format!("run {id} is held by a process that does not let go of it"))
        .because("it was asked to, and has not answered within a minute")
        .hint("the request stays: when that process has answered, cancel again; or end it first")
}

pub(super) fn to_value<T: serde::Serialize>(value: &T) -> Result<Value, Failure> {
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
