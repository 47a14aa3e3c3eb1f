//! Takes a thread through a terminal: signals, questions, the end.

use std::io::IsTerminal;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinError;

use super::out::Out;
use super::{Exit, Failed, prompt};
use crate::app::{App, Decide, Decided, OpenQuestion, is_refusal, missing_words, spawn_detached};
use crate::graph::{Advance, Failure, RunEnd, Stop, ThreadId, ThreadStatus};
use crate::release::{Person, Verdict};

/// How long after a first ctrl-C a second one still undoes.
const SECOND_CTRL_C: Duration = Duration::from_millis(1500);
/// Pause between two looks for a decision made elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How questions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// A human at this terminal, if there is one.
    Ask,
    /// Yes, recorded as `--yes`.
    Yes,
}

/// How a drive ended.
pub enum Drove {
    /// The thread ended well.
    Succeeded,
    /// It waits for answers that nobody here gives.
    Waiting(Vec<OpenQuestion>),
    /// It was stopped; said already.
    Ended(Exit),
    /// It ended badly.
    Failed(Failure, Exit),
}

/// Advances a thread until it ends or waits for somebody else.
///
/// `how`: its recursion limit and durability count; signals stop it.
pub async fn drive(app: &Arc<App>, id: &ThreadId, answers: Answers, how: Advance, out: &Out) -> Result<Drove, Failed> {
    let of = |failure: Failure| (failure, Some(id.clone()));
    loop {
        let Stretch { end, hung_up } = advance(app, id, how.clone(), out).await?;
        match end.status {
            ThreadStatus::Succeeded => return Ok(Drove::Succeeded),
            ThreadStatus::Interrupted => {}
            // Unless somebody has asked it to stop, too.
            ThreadStatus::Running | ThreadStatus::Sleeping if hung_up && end.failure.is_none() => {
                return leave(app, id, out).await.map_err(of);
            }
            ThreadStatus::Running => return Ok(Drove::Ended(stopped(id, end.failure, out))),
            ThreadStatus::Failed
            | ThreadStatus::Cancelled
            | ThreadStatus::Stuck
            | ThreadStatus::Pending
            | ThreadStatus::Sleeping => {
                let failure = end
                    .failure
                    .unwrap_or_else(|| Failure::new("not_finished", format!("the run is {}", end.status.word())));
                let exit = Exit::of_end(end.status, &failure);
                return Ok(Drove::Failed(failure, exit));
            }
        }
        let open = app.questions(Some(id)).await.map_err(of)?;
        let asked = if open.is_empty() || hung_up && answers == Answers::Ask {
            Asked::Nobody
        } else {
            answer(app, &open, answers, out).await.map_err(of)?
        };
        match asked {
            Asked::Answered => {}
            Asked::Nobody => {
                app.leave(id).await.map_err(of)?;
                return Ok(Drove::Waiting(open));
            }
            Asked::Stopped => return Ok(Drove::Ended(stopped(id, None, out))),
        }
    }
}

/// Says that the run was stopped: by a signal here, or because somebody elsewhere asked for it (`why`).
fn stopped(id: &ThreadId, why: Option<Failure>, out: &Out) -> Exit {
    let signal = || {
        Failure::new("stopped", "the run was stopped and can be resumed")
            .hint(format!("go on with `tidegate run resume {id}`, or undo with `tidegate run cancel {id}`"))
    };
    let failure = why.unwrap_or_else(signal);
    if out.is_json() {
        return out.failed_as(&failure, Some(id), Exit::Stopped);
    }
    out.note(&format!("\n{}; {}", failure.message, failure.hint.as_deref().unwrap_or_default()));
    Exit::Stopped
}

/// Leaves a run to a runner: nobody wished to stop it, a connection to the machine was lost.
async fn leave(app: &App, id: &ThreadId, out: &Out) -> Result<Drove, Failure> {
    // Should this fail: whoever attends it and is dead counts for nobody.
    let left = app.leave(id).await;
    spawn_detached(app.home())?;
    left?;
    let failure = Failure::new("terminal_closed", "the terminal was closed; the run goes on without it");
    let hint = format!("`tidegate run show {id}` shows it, `tidegate run cancel {id}` undoes it");
    Ok(Drove::Ended(stopped(id, Some(failure.hint(hint)), out)))
}

/// How a stretch of advancing ended.
struct Stretch {
    end: RunEnd,
    /// It was stopped because the terminal was closed.
    hung_up: bool,
}

/// One stretch of advancing under signals. The first ctrl-C (or SIGTERM) stops it resumably, a second one soon after undoes. A terminal that is
/// closed stops it for whoever goes on.
async fn advance(app: &Arc<App>, id: &ThreadId, how: Advance, out: &Out) -> Result<Stretch, Failed> {
    let of = |failure: Failure| (failure, Some(id.clone()));
    let (ask, stop) = watch::channel(Stop::No);
    let runner = app.clone();
    let thread = id.clone();
    let mut run = tokio::spawn(async move { runner.advance_through(&thread, Advance { stop, ..how }).await });
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| of(no_signals(&e)))?;
    let mut terms = signal(SignalKind::terminate()).map_err(|e| of(no_signals(&e)))?;
    let mut hangups = Hangups::new().map_err(|e| of(no_signals(&e)))?;
    let mut hung_up = false;
    let joined = tokio::select! {
        joined = &mut run => joined,
        () = hangups.next() => {
            hung_up = true;
            ask.send_replace(Stop::Drain);
            run.await
        }
        _ = async { tokio::select! { _ = interrupts.recv() => (), _ = terms.recv() => () } } => {
            out.note("\nstopping … (ctrl-C again undoes everything)");
            ask.send_replace(Stop::Hold);
            let again = tokio::time::timeout(SECOND_CTRL_C, interrupts.recv()).await;
            let end = run.await;
            if again.is_ok() {
                let ended = end.as_ref().is_ok_and(|e| e.as_ref().is_ok_and(|e| e.status != ThreadStatus::Running));
                if !ended {
                    let why = Failure::new("cancelled", "stopped by ctrl-C twice");
                    let end = app.cancel(id, true, why).await.map_err(of)?;
                    return Ok(Stretch { end, hung_up });
                }
            }
            end
        }
    };
    if hung_up && !matches!(joined, Ok(Ok(_))) {
        // Whatever went wrong here, somebody else goes on.
        spawn_detached(app.home()).map_err(of)?;
    }
    let panicked = |e: JoinError| of(Failure::new("engine_panicked", "the engine panicked").because(e.to_string()));
    let end = joined.map_err(panicked)?.map_err(of)?;
    Ok(Stretch { end, hung_up })
}

/// The closing of the terminal (SIGHUP). Where it is ignored, as `nohup` asks for, it stays so.
struct Hangups(Option<Signal>);

impl Hangups {
    fn new() -> std::io::Result<Self> {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action it only writes the present one to where the pointer shows, which is large enough; all zeros are one, too.
        let handler = unsafe {
            if libc::sigaction(libc::SIGHUP, std::ptr::null(), now.as_mut_ptr()) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            now.assume_init().sa_sigaction
        };
        Ok(Self(if handler == libc::SIG_IGN { None } else { Some(signal(SignalKind::hangup())?) }))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(hangups) => drop(hangups.recv().await),
            None => std::future::pending().await,
        }
    }
}

pub(super) fn no_signals(error: &std::io::Error) -> Failure {
    Failure::new("no_signals", "signals cannot be caught").because(error.to_string())
}

/// What came of asking.
enum Asked {
    /// There is an answer, from here or from elsewhere, or its time is over: the run goes on.
    Answered,
    /// Nobody here answers.
    Nobody,
    /// Somebody pressed ctrl-C instead.
    Stopped,
}

/// Answers what can be answered here.
async fn answer(app: &Arc<App>, open: &[OpenQuestion], answers: Answers, out: &Out) -> Result<Asked, Failure> {
    let approvals: Vec<&OpenQuestion> = open.iter().filter(|q| q.approval.is_some()).collect();
    let Some(first) = approvals.first() else { return Ok(Asked::Nobody) };
    let at_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && !out.is_json();
    match answers {
        Answers::Yes => {
            let decided = app.decide(first, Decide::in_advance(prompt::user())).await;
            counted(decided, out)
        }
        Answers::Ask if at_terminal => ask_here(app, first, out).await,
        Answers::Ask => Ok(Asked::Nobody),
    }
}

async fn decide(
    app: &App,
    question: &OpenQuestion,
    verdict: Verdict,
    via: &str,
    reason: Option<String>,
) -> Result<Decided, Failure> {
    let (who, via) = (Person::local(prompt::user()), via.to_owned());
    app.decide(question, Decide { verdict, who, via, reason, digest: None, overrides: false }).await
}

/// What a decision that was given here comes to. Where it does not count, or is not enough, the question stands for others.
fn counted(decided: Result<Decided, Failure>, out: &Out) -> Result<Asked, Failure> {
    match decided {
        Ok(decided) if decided.missing.is_empty() => Ok(Asked::Answered),
        Ok(decided) => {
            out.note(&format!("counted; still missing: {}", missing_words(&decided.missing)));
            Ok(Asked::Nobody)
        }
        // Somebody decided in this very moment; that counts.
        Err(failure) if failure.code == "already_decided" => {
            out.note(&failure.message);
            Ok(Asked::Answered)
        }
        Err(failure) if is_refusal(&failure) => {
            out.note(&format!("{}\n{}", failure.message, failure.hint.as_deref().unwrap_or_default()));
            Ok(Asked::Nobody)
        }
        Err(failure) => Err(failure),
    }
}

/// Shows the evidence and asks; a decision made in another terminal ends the wait.
async fn ask_here(app: &Arc<App>, question: &OpenQuestion, out: &Out) -> Result<Asked, Failure> {
    let thread = question.interrupt.thread.clone();
    app.attend(&thread).await?;
    let Some(approval) = &question.approval else { return Ok(Asked::Nobody) };
    prompt::show(approval, question);
    let mut line = prompt::verdict();
    // The handlers of the runs before keep these signals from ending the process by themselves.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| no_signals(&e))?;
    let mut terms = signal(SignalKind::terminate()).map_err(|e| no_signals(&e))?;
    let mut hangups = Hangups::new().map_err(|e| no_signals(&e))?;
    let went_on = loop {
        tokio::select! {
            // The question stays open for others.
            () = hangups.next() => break Asked::Nobody,
            _ = interrupts.recv() => break Asked::Stopped,
            _ = terms.recv() => break Asked::Stopped,
            said = &mut line => match said {
                Ok(Some((verdict, reason))) => {
                    break counted(decide(app, question, verdict, "terminal", reason).await, out)?;
                }
                // The terminal is gone: the question stays open.
                Ok(None) | Err(_) => break Asked::Nobody,
            },
            () = tokio::time::sleep(LOOK_EVERY) => {
                let now = app.store().interrupt(&question.interrupt.id).await.map_err(|e| e.failure())?;
                if let Some(answer) = now.as_ref().and_then(|i| i.answer.as_ref()) {
                    out.note(&format!("\ndecided by {} through {}", answer.by, answer.via));
                    break Asked::Answered;
                }
                if now.as_ref().is_some_and(|i| i.is_over(chrono::Utc::now())) {
                    out.note("\nnobody decided in time");
                    break Asked::Answered;
                }
                if now.is_none_or(|i| i.withdrawn) {
                    out.note("\nthe question was withdrawn");
                    break Asked::Answered;
                }
            }
        }
    };
    Ok(went_on)
}
