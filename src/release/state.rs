//! The five states of a plan and the one function that moves between them.
//!
//! A row of `ml_deployments` has these five as its `status` and no others. That a release serves now is not a state but the
//! column `live`; that another took its place is the column `superseded_by`. So a release that was rolled back stays COMPLETED (it did
//! complete) and points at the rollback that took its place, and no state has to be rewritten long after its release ended.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a plan, and the release that follows it, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PlanState {
    /// Initial: it is prepared (package, slot, validation); users see nothing of it.
    Draft,
    /// A human, or policy where none is needed, agreed.
    Approved,
    /// Traffic moves, or the new version bakes.
    Executing,
    /// Terminal: it was released.
    Completed,
    /// Terminal: it was not; the reason is recorded.
    Failed,
}

/// What can happen to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanEvent {
    /// The gate, or policy, let it pass.
    Approve,
    /// The gate refused it.
    Reject,
    /// Execution began.
    Start,
    /// Execution ended well.
    Complete,
    /// Something failed or it was cancelled.
    Fail,
}

/// An event that has no place in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("a release that is {state} cannot {event}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: PlanState,
    /// What was asked for.
    pub event: PlanEvent,
}

/// The state after `event`; live code and recovery both use this function.
///
/// DRAFT may start without APPROVED: [`DeploymentOrchestrator`](super::DeploymentOrchestrator) executes drafts, its deploy function
/// holding the gate.
///
/// # Errors
/// When the event has no place in the state; nothing leaves COMPLETED or FAILED.
pub fn transition(state: PlanState, event: PlanEvent) -> Result<PlanState, IllegalTransition> {
    use PlanEvent::{Approve, Complete, Fail, Reject, Start};
    use PlanState::{Approved, Completed, Draft, Executing, Failed};
    match (state, event) {
        (Draft, Approve) => Ok(Approved),
        (Draft | Approved, Start) => Ok(Executing),
        (Executing, Complete) => Ok(Completed),
        (Draft, Reject) | (Draft | Approved | Executing, Fail) => Ok(Failed),
        (Draft, Complete)
        | (Approved, Approve | Reject | Complete)
        | (Executing, Approve | Reject | Start)
        | (Completed | Failed, Approve | Reject | Start | Complete | Fail) => Err(IllegalTransition { state, event }),
    }
}

impl PlanState {
    /// All states, in the order of a release's life.
    pub const ALL: [Self; 5] = [Self::Draft, Self::Approved, Self::Executing, Self::Completed, Self::Failed];

    /// Whether nothing can happen any more.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Failed => true,
            Self::Draft | Self::Approved | Self::Executing => false,
        }
    }

    /// Whether `next` is this state again (a repeated write after a crash) or one event away.
    pub fn may_become(self, next: Self) -> bool {
        self == next || PlanEvent::ALL.into_iter().any(|event| transition(self, event) == Ok(next))
    }

    /// The word stored and shown, upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Approved => "APPROVED",
            Self::Executing => "EXECUTING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }

    /// The state of a stored word; `None` for any other word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl PlanEvent {
    /// All events.
    pub const ALL: [Self; 5] = [Self::Approve, Self::Reject, Self::Start, Self::Complete, Self::Fail];
}

impl fmt::Display for PlanState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PlanEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Approve => "be approved",
            Self::Reject => "be rejected",
            Self::Start => "start",
            Self::Complete => "complete",
            Self::Fail => "fail",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_normal_life() {
        let mut state = PlanState::Draft;
        for (event, next) in [
            (PlanEvent::Approve, PlanState::Approved),
            (PlanEvent::Start, PlanState::Executing),
            (PlanEvent::Complete, PlanState::Completed),
        ] {
            state = transition(state, event).expect("legal");
            assert_eq!(state, next);
        }
    }

    #[test]
    fn words_are_the_serde_words() {
        for state in PlanState::ALL {
            assert_eq!(serde_json::to_value(state).expect("json"), state.as_str());
            assert_eq!(PlanState::parse(state.as_str()), Some(state));
        }
        assert_eq!(PlanState::parse("draft"), None);
    }

    #[test]
    fn only_draft_and_approved_may_start() {
        let startable: Vec<_> =
            PlanState::ALL.into_iter().filter(|state| transition(*state, PlanEvent::Start).is_ok()).collect();
        assert_eq!(startable, [PlanState::Draft, PlanState::Approved]);
    }

    #[test]
    fn an_illegal_one_says_what_it_was() {
        let error = transition(PlanState::Completed, PlanEvent::Start).expect_err("illegal");
        assert_eq!(error.to_string(), "a release that is COMPLETED cannot start");
    }

    proptest! {
        #[test]
        fn any_life_ends_in_terminal_states_and_never_leaves_them(events in proptest::collection::vec(0..5_usize, 0..20)) {
            let mut state = PlanState::Draft;
            for index in events {
                match transition(state, PlanEvent::ALL[index]) {
                    Ok(next) => {
                        prop_assert!(!state.is_terminal());
                        prop_assert!(next > state);
                        prop_assert!(state.may_become(next));
                        state = next;
                    }
                    Err(error) => prop_assert_eq!(error.state, state),
                }
            }
        }
    }
}
