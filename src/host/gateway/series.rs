//! What a slot did in each second of the last quarter of an hour.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::meter::Outcome;
use crate::ports::TrafficSecond;

/// How long seconds are kept: a judge that was away for a quarter of an hour misses nothing.
const KEPT: u64 = 16 * 60;

/// The clock of all series: that of the machine when this process first looked, and from then on one that never goes back.
static BEGAN: LazyLock<(u64, Instant)> =
    LazyLock::new(|| (u64::try_from(Utc::now().timestamp()).unwrap_or(0), Instant::now()));

/// The second that is now, since 1970.
pub(crate) fn now() -> u64 {
    BEGAN.0 + BEGAN.1.elapsed().as_secs()
}

/// The first second of this daemon's series.
pub(crate) fn began() -> u64 {
    BEGAN.0
}

/// Seconds in which something happened, in order. Each holds a handful of numbers and at most as many latencies as it had answers (and
/// never more than the histogram has buckets).
#[derive(Debug, Default)]
pub(super) struct Series(VecDeque<TrafficSecond>);

impl Series {
    /// Counts a request that ended in `second`.
    pub(super) fn count(&mut self, second: u64, outcome: Outcome, latency: Option<Duration>) {
        if self.0.back().is_none_or(|last| last.second < second) {
            self.0.push_back(TrafficSecond { second, ..TrafficSecond::default() });
            while self.0.front().is_some_and(|first| first.second + KEPT < second) {
                self.0.pop_front();
            }
        }
        // A thread that looked at the clock a moment before the others counts into the second that is open.
        let Some(open) = self.0.back_mut() else { return };
        open.requests += 1;
        match outcome {
            Outcome::Answered(500..) | Outcome::Failed => open.errors += 1,
            Outcome::Answered(400..=499) => open.client_errors += 1,
            Outcome::Answered(_) | Outcome::Abandoned => {}
        }
        if let Some(latency) = latency {
            open.latencies.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// The seconds after one and before another, oldest first.
    pub(super) fn between(&self, after: u64, before: u64) -> Vec<TrafficSecond> {
        let begins = self.0.partition_point(|second| second.second <= after);
        self.0.range(begins..).take_while(|second| second.second < before).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_second_and_forgets_what_is_old() {
        let mut series = Series::default();
        let ms = |n| Some(Duration::from_millis(n));
        series.count(100, Outcome::Answered(200), ms(5));
        series.count(100, Outcome::Answered(503), ms(7));
        series.count(101, Outcome::Failed, None);
        series.count(100, Outcome::Answered(404), ms(1));
        series.count(105, Outcome::Abandoned, None);
        let seconds = series.between(0, 105);
        let figures = seconds.iter().map(|s| (s.second, s.requests, s.errors, s.client_errors, s.latencies.count()));
        assert_eq!(figures.collect::<Vec<_>>(), [(100, 2, 1, 0, 2), (101, 2, 1, 1, 1)]);
        assert_eq!(series.between(100, 200).iter().map(|s| s.second).collect::<Vec<_>>(), [101, 105]);
        assert!(series.between(105, 200).is_empty());

        series.count(105 + KEPT, Outcome::Answered(200), None);
        assert_eq!(series.between(0, u64::MAX).len(), 2);
        for second in 0..10 * KEPT {
            series.count(10_000 + second, Outcome::Answered(200), ms(second % 50));
        }
        assert!(series.0.len() as u64 <= KEPT + 1);
    }

    #[test]
    fn the_clock_goes_on() {
        let first = now();
        assert!(first >= began() && now() >= first && began() > 1_700_000_000);
    }
}
