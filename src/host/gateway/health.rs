//! Passive ejection: a replica that fails again and again gets nothing for a while, as long as others can take its part.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many failures in a row (5xx, or no answer) put a replica out; as Envoy does.
const FAILURES: u32 = 5;
/// The first time out; doubled each time up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Who has been well for so long begins with the first time again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since this process began to look, for atomics.
pub(super) fn now() -> Duration {
    BEGAN.elapsed()
}

/// What a slot's answers say of it. All of it is approximate under races, which cost a request more or less in the count.
#[derive(Debug, Default)]
pub(crate) struct Health {
    in_a_row: AtomicU32,
    times: AtomicU32,
    /// Milliseconds; 0: never.
    out_until: AtomicU64,
}

impl Health {
    /// It answered.
    pub(super) fn well(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// It answered 5xx or not at all. Whether it is out by that.
    pub(super) fn ill(&self, now: Duration) -> bool {
        self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES && self.put_out(now)
    }

    /// Nobody listens there: out at once.
    pub(super) fn refused(&self, now: Duration) -> bool {
        self.put_out(now)
    }

    fn put_out(&self, now: Duration) -> bool {
        if self.is_out(now) {
            return false;
        }
        let until = Duration::from_millis(self.out_until.load(Ordering::Relaxed));
        if now > until + FORGIVEN_AFTER {
            self.times.store(0, Ordering::Relaxed);
        }
        let times = self.times.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        self.in_a_row.store(0, Ordering::Relaxed);
        let until = u64::try_from((now + pause).as_millis()).unwrap_or(u64::MAX);
        self.out_until.store(until, Ordering::Relaxed);
        true
    }

    /// Whether it is out now.
    pub(super) fn is_out(&self, now: Duration) -> bool {
        Duration::from_millis(self.out_until.load(Ordering::Relaxed)) > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn five_in_a_row_and_each_time_longer() {
        let health = Health::default();
        for _ in 0..4 {
            assert!(!health.ill(S));
        }
        health.well();
        for _ in 0..4 {
            assert!(!health.ill(S));
        }
        assert!(!health.is_out(S) && health.ill(S) && health.is_out(S));
        assert!(!health.refused(S), "it is out already");
        assert!(!health.is_out(2 * S));
        assert!(health.refused(2 * S) && health.is_out(3 * S) && !health.is_out(4 * S));
        let mut now = 4 * S;
        for _ in 0..20 {
            assert!(health.refused(now));
            now += LONGEST;
            assert!(!health.is_out(now));
        }
        // Well for long enough.
        now += FORGIVEN_AFTER + LONGEST;
        assert!(health.refused(now) && health.is_out(now) && !health.is_out(now + S));
    }
}
