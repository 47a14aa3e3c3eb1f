//! One request under way at one slot: counted in when made, counted out and measured when dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::Upstream;
use super::health;
use super::meter::Outcome;

/// Holds a slot's count of requests under way.
#[derive(Debug)]
pub(crate) struct Ticket {
    upstream: Arc<Upstream>,
    started: Instant,
    outcome: Option<Outcome>,
    /// Measured at the head: a stream lasts as long as its client likes.
    streaming: bool,
    measured: Option<Duration>,
}

impl Ticket {
    /// For a request that [`super::board::Board::enter`] has counted in.
    pub(crate) fn new(upstream: Arc<Upstream>, started: Instant) -> Self {
        Self { upstream, started, outcome: Some(Outcome::Abandoned), streaming: false, measured: None }
    }

    /// The slot answered; its body may still come.
    pub(crate) fn answered(&mut self, status: u16, streaming: bool) {
        self.outcome = Some(Outcome::Answered(status));
        self.streaming = streaming;
        if streaming {
            self.measured = Some(self.started.elapsed());
        }
    }

    /// Where the request is.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// How long it took, or takes.
    pub(super) fn latency(&self) -> Duration {
        self.measured.unwrap_or_else(|| self.started.elapsed())
    }

    /// The answer's body is complete.
    pub(crate) fn complete(&mut self) {
        self.measured = self.measured.or_else(|| Some(self.started.elapsed()));
    }

    /// The slot broke off in the middle of its answer, or gave none.
    pub(crate) fn broke_off(&mut self) {
        self.outcome = Some(Outcome::Failed);
    }

    /// What the outcome says of the slot's health.
    fn judge(&self, outcome: Outcome) {
        let health = &self.upstream.health;
        match outcome {
            Outcome::Answered(..500) => health.well(),
            Outcome::Answered(_) | Outcome::Failed => {
                if health.ill(health::now()) {
                    self.upstream.meter.ejected();
                    tracing::warn!(slot = self.upstream.token, "fails again and again; other replicas take its part");
                }
            }
            Outcome::Abandoned => {}
        }
    }

    /// Nothing was sent: this request is not this slot's.
    pub(crate) fn never_sent(mut self) {
        self.outcome = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            if matches!(outcome, Outcome::Answered(_)) {
                // A body with a known length ends without being asked for its end.
                self.complete();
            }
            self.upstream.meter.count(outcome, self.measured);
            self.judge(outcome);
        }
        self.upstream.meter.leave();
    }
}
