//! The saga: after a failure or a cancel, everything since the commit point is undone, newest first. Each undo is journaled, so a
//! crash in the middle goes on where it was; an undo that fails leaves the thread stuck.

use std::time::Duration;

use super::driver::{RunEnd, after};
use super::journal::{Entry, EntryEvent, EntryStatus};
use super::scope::{Scope, unless_panicked};
use super::{Event, Failure, Name, NodeError, Record, StoreError, ThreadEvent, ThreadStatus, Unwinding};

/// Attempts of one undo whose failure says that repeating may help.
const UNDO_ATTEMPTS: u32 = 3;

/// Notes that undoing begins, then undoes.
pub(super) async fn begin(scope: &Scope, unwinding: Unwinding, committed: u64) -> Result<RunEnd, StoreError> {
    let undoing = Event::UndoStarted { failure: unwinding.failure.clone() };
    let status = Record::Status { status: ThreadStatus::Running, failure: None, unwinding: Some(unwinding.clone()) };
    scope
        .commit(vec![Record::Withdraw { ns: Name::default() }, Record::Uncache, status, Record::Event(undoing)])
        .await?;
    unwind(scope, unwinding, committed).await
}

/// Undoes every effect numbered above `committed` that has not been undone.
pub(super) async fn unwind(scope: &Scope, unwinding: Unwinding, committed: u64) -> Result<RunEnd, StoreError> {
    // A replay undoes nothing: the world is not there.
    if scope.recorded.is_none() {
        match undo_all(scope, committed, &unwinding.failure).await {
            Ok(()) => {}
            Err(NodeError::Store(error)) => return Err(error),
            Err(error) => return stuck(scope, unwinding, error).await,
        }
    }
    let (status, failure) = (unwinding.becomes, unwinding.failure);
    let records = vec![
        Record::Status { status, failure: Some(failure.clone()), unwinding: None },
        Record::Event(Event::StatusChanged { status, failure: Some(failure.clone()) }),
    ];
    scope.end(records).await?;
    Ok(RunEnd { status, failure: Some(failure) })
}

/// Accepts what the thread is stuck at, and undoes the rest.
pub(super) async fn accept(
    scope: &Scope,
    unwinding: Unwinding,
    committed: u64,
    by: &str,
) -> Result<RunEnd, StoreError> {
    for mut entry in scope.undoable(committed) {
        let stuck = match entry.status {
            EntryStatus::UndoFailed => true,
            EntryStatus::Intent | EntryStatus::Failed => {
                match scope.settle(entry.clone(), Some(&unwinding.failure)).await {
                    Ok(_) => false,
                    Err(NodeError::Store(error)) => return Err(error),
                    Err(_) => true,
                }
            }
            EntryStatus::Done | EntryStatus::Undoing | EntryStatus::Undone | EntryStatus::Accepted => false,
        };
        if !stuck {
            continue;
        }
        let (place, effect) = (entry.key.place(), entry.effect.clone());
        let accepted = Event::UndoAccepted { place, effect, by: by.to_owned() };
        match scope.step(&mut entry, EntryEvent::Accept, Some(accepted)).await {
            Ok(()) => {}
            Err(NodeError::Store(error)) => return Err(error),
            Err(error) => return self::stuck(scope, unwinding, error).await,
        }
    }
    unwind(scope, unwinding, committed).await
}

async fn stuck(scope: &Scope, unwinding: Unwinding, error: NodeError) -> Result<RunEnd, StoreError> {
    let failure = match error {
        NodeError::Failed(failure) | NodeError::Stuck(failure) | NodeError::Diverged(failure) => failure,
        other => Failure::new("undo_failed", other.to_string()),
    };
    let status = after(ThreadStatus::Running, ThreadEvent::Stick)?;
    let records = vec![
        Record::Status { status, failure: Some(failure.clone()), unwinding: Some(unwinding) },
        Record::Event(Event::StatusChanged { status, failure: Some(failure.clone()) }),
    ];
    scope.end(records).await?;
    Ok(RunEnd { status, failure: Some(failure) })
}

/// Newest first. What has no receipt may have happened all the same, so everything is settled before anything is undone.
async fn undo_all(scope: &Scope, committed: u64, reason: &Failure) -> Result<(), NodeError> {
    for entry in scope.undoable(committed) {
        if matches!(entry.status, EntryStatus::Intent | EntryStatus::Failed) {
            scope.settle(entry, Some(reason)).await?;
        }
    }
    for entry in scope.undoable(committed) {
        match entry.status {
            EntryStatus::Done | EntryStatus::Undoing | EntryStatus::UndoFailed => {
                undo_one(scope, entry, reason).await?;
            }
            EntryStatus::Intent | EntryStatus::Failed | EntryStatus::Undone | EntryStatus::Accepted => {}
        }
    }
    Ok(())
}

async fn undo_one(scope: &Scope, mut entry: Entry, reason: &Failure) -> Result<(), NodeError> {
    scope.step(&mut entry, EntryEvent::Undo, None).await?;
    let (place, effect) = (entry.key.place(), entry.effect.clone());
    match perform_undo(scope, &entry, reason).await {
        Ok(()) => {
            scope.commit(vec![Record::Undone(true)]).await?;
            scope.step(&mut entry, EntryEvent::Undone, Some(Event::EffectUndone { place, effect })).await
        }
        Err(failure) => {
            let failure = Failure::new("undo_failed", format!("{effect} at {place} could not be undone"))
                .because(
                    failure.cause.as_ref().map_or(failure.message.clone(), |c| format!("{}: {c}", failure.message)),
                )
                .hint(
                    "mend what stands in the way, then `tidegate run undo retry`; `run undo accept` leaves it as it is",
                );
            entry.failure = Some(failure.clone());
            let event = Event::UndoFailed { place, effect, failure: failure.clone() };
            scope.step(&mut entry, EntryEvent::UndoFail, Some(event)).await?;
            Err(NodeError::Failed(failure))
        }
    }
}

async fn perform_undo(scope: &Scope, entry: &Entry, reason: &Failure) -> Result<(), Failure> {
    let world = scope.effects.get(&entry.effect)?;
    let receipt = entry.receipt.clone().unwrap_or_default();
    let mut attempt = 1;
    loop {
        let cx = scope.effect_cx(&entry.key, Some(reason.clone()));
        let undo = world.undo(entry.input.clone(), receipt.clone(), &cx);
        match unless_panicked("the undo", undo).await {
            Err(failure) if failure.retryable && attempt < UNDO_ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
                attempt += 1;
            }
            end => return end,
        }
    }
}
