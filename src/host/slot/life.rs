//! The life of a slot as a pure state machine; running and recovering use the same function.

use serde::{Deserialize, Serialize};

use crate::ports::SlotState;

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub(crate) enum Life {
    /// The process runs, readiness not seen yet since it was started.
    Starting {
        /// Whether an earlier process of this slot was ready: then its end is an accident and not a verdict.
        proven: bool,
    },
    /// It answered ready lately.
    Ready,
    /// It was ready and is not now.
    Unready,
    /// The process ended and will be started again.
    Restarting,
    /// The process ended before it was ever ready; terminal.
    Exited,
    /// It was stopped on request; only [`Event::Revived`] leaves this state.
    Stopped {
        /// As in `Starting`.
        proven: bool,
    },
}

/// What can happen to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process was started again.
    Spawned,
    /// Starting a process failed.
    SpawnFailed,
    /// The readiness path answered 200.
    ReadyOk,
    /// The readiness path did not.
    ReadyFailed,
    /// The process ended by itself.
    Ended,
    /// The process ended while it started, as an address that it wanted was taken: that says nothing about the service.
    AddressTaken,
    /// The process was found dead, or the machine had been restarted, and whether it ended by itself cannot be known.
    Lost,
    /// A stop was asked for.
    StopAsked,
    /// `up` wants it back.
    Revived,
}

impl Life {
    /// The next state. Total: an event that means nothing in a state leaves it as it is, because events may come late.
    pub(crate) fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Exited, _) => Self::Exited,
            (Self::Stopped { .. }, Event::Revived) => Self::Restarting.or_first(self.proven()),
            (Self::Stopped { .. }, _) => self,
            (_, Event::StopAsked) => Self::Stopped { proven: self.proven() },
            (Self::Starting { .. } | Self::Ready | Self::Unready, Event::ReadyOk) => Self::Ready,
            (Self::Ready | Self::Unready, Event::ReadyFailed) => Self::Unready,
            (Self::Restarting, Event::Spawned) => Self::Starting { proven: true },
            (_, Event::Ended | Event::SpawnFailed) => {
                if self.proven() {
                    Self::Restarting
                } else {
                    Self::Exited
                }
            }
            (_, Event::Lost | Event::AddressTaken) => Self::Restarting.or_first(self.proven()),
            (Self::Starting { .. }, Event::ReadyFailed | Event::Spawned)
            | (Self::Ready | Self::Unready, Event::Spawned)
            | (Self::Restarting, Event::ReadyOk | Event::ReadyFailed)
            | (_, Event::Revived) => self,
        }
    }

    /// A slot that was never ready is started as for the first time.
    fn or_first(self, proven: bool) -> Self {
        if proven { self } else { Self::Starting { proven: false } }
    }

    /// Whether it was ever ready.
    pub(crate) fn proven(self) -> bool {
        match self {
            Self::Starting { proven } | Self::Stopped { proven } => proven,
            Self::Ready | Self::Unready | Self::Restarting => true,
            Self::Exited => false,
        }
    }

    /// Whether traffic may be sent there. An unready slot still gets it when it is the live one: it may answer, a queue does not.
    pub(crate) fn routable(self) -> bool {
        matches!(self, Self::Ready | Self::Unready)
    }

    /// Whether no process will run again without anybody asking for it.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Exited | Self::Stopped { .. })
    }

    /// As callers see it.
    pub(crate) fn shown(self) -> SlotState {
        match self {
            Self::Starting { .. } => SlotState::Starting,
            Self::Ready => SlotState::Ready,
            Self::Unready => SlotState::Unready,
            Self::Restarting => SlotState::Restarting,
            Self::Exited => SlotState::Exited,
            Self::Stopped { .. } => SlotState::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Life = Life::Starting { proven: false };

    fn run(events: &[Event]) -> Life {
        events.iter().fold(NEW, |life, event| life.after(*event))
    }

    #[test]
    fn an_end_before_readiness_is_final_and_one_after_it_is_not() {
        assert_eq!(run(&[Event::ReadyFailed, Event::Ended]), Life::Exited);
        assert_eq!(run(&[Event::ReadyOk, Event::Ended]), Life::Restarting);
        assert_eq!(run(&[Event::ReadyOk, Event::Ended, Event::Spawned]), Life::Starting { proven: true });
        assert_eq!(run(&[Event::ReadyOk, Event::Ended, Event::Spawned, Event::Ended]), Life::Restarting);
        assert_eq!(run(&[Event::ReadyOk, Event::Ended, Event::SpawnFailed]), Life::Restarting);
        assert_eq!(run(&[Event::AddressTaken, Event::Spawned]), NEW);
        assert_eq!(run(&[Event::AddressTaken, Event::Ended]), Life::Exited);
    }

    #[test]
    fn readiness_comes_and_goes() {
        assert_eq!(run(&[Event::ReadyOk, Event::ReadyFailed]), Life::Unready);
        assert_eq!(run(&[Event::ReadyOk, Event::ReadyFailed, Event::ReadyOk]), Life::Ready);
    }

    #[test]
    fn a_stopped_slot_comes_back_only_when_revived() {
        let stopped = run(&[Event::ReadyOk, Event::StopAsked]);
        for late in [Event::Ended, Event::ReadyOk, Event::Spawned, Event::Lost, Event::ReadyFailed, Event::SpawnFailed]
        {
            assert_eq!(stopped.after(late), stopped);
        }
        assert_eq!(stopped.after(Event::Revived), Life::Restarting);
        assert_eq!(run(&[Event::StopAsked, Event::Revived]), NEW);
        assert_eq!(run(&[Event::Ended, Event::Revived]), Life::Exited);
    }

    #[test]
    fn over_means_over_until_revived_and_exited_for_good() {
        use Event::{AddressTaken, Ended, Lost, ReadyFailed, ReadyOk, Revived, SpawnFailed, Spawned, StopAsked};
        let events = [Spawned, SpawnFailed, ReadyOk, ReadyFailed, Ended, AddressTaken, Lost, StopAsked, Revived];
        for event in events {
            assert_eq!(Life::Exited.after(event), Life::Exited);
            let stopped = Life::Stopped { proven: true }.after(event);
            assert_eq!(stopped.is_over(), event != Revived);
        }
    }
}
