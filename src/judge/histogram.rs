//! Latencies of an interval, small enough to store every second: log-linear buckets, 64 to each power of two.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Buckets to each power of two, as a power of two itself: a bucket is at most 1/64 wide of its value.
const SUB_BITS: u32 = 6;
/// Values below this have a bucket each.
const EXACT: u64 = 1 << SUB_BITS;
/// Longer ones count as this, 19 hours in microseconds.
const MOST_US: u64 = (1 << 36) - 1;
/// Buckets that there can be.
const BUCKETS: u16 = (64 * (36 - SUB_BITS + 1)) as u16;

/// How many answers took how long. Buckets are fixed, so histograms of several intervals, slots and machines add up without loss. A
/// quantile is at most 1.6 % above the true one and never below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram {
    /// Bucket and count, ascending, no count of zero.
    counts: Vec<(u16, u64)>,
}

impl TryFrom<Vec<(u16, u64)>> for Histogram {
    type Error = String;

    fn try_from(counts: Vec<(u16, u64)>) -> Result<Self, String> {
        let ascending = counts.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let known = counts.iter().all(|(bucket, count)| *bucket < BUCKETS && *count > 0);
        if ascending && known {
            return Ok(Self { counts });
        }
        Err(format!("a histogram is pairs of bucket (below {BUCKETS}, ascending) and count (above 0)"))
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.counts
    }
}

/// The bucket of a value in microseconds.
fn bucket(us: u64) -> u16 {
    let us = us.min(MOST_US);
    if us < EXACT {
        return us as u16;
    }
    let shift = us.ilog2() - SUB_BITS;
    // At most 64 * 30 + 127: the value is below 2^36.
    (u64::from(shift) * EXACT + (us >> shift)) as u16
}

/// The largest value of a bucket, in microseconds.
fn upper_us(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < 2 * EXACT {
        return bucket;
    }
    let shift = bucket / EXACT - 1;
    ((bucket - shift * EXACT + 1) << shift) - 1
}

impl Histogram {
    /// Counts one answer that took `us` microseconds.
    pub fn record(&mut self, us: u64) {
        self.record_n(us, 1);
    }

    /// Counts `n` answers that took `us` microseconds each: how another histogram is taken over, value by value.
    pub fn record_n(&mut self, us: u64, n: u64) {
        self.add(bucket(us), n);
    }

    fn add(&mut self, bucket: u16, n: u64) {
        if n == 0 {
            return;
        }
        match self.counts.binary_search_by_key(&bucket, |(at, _)| *at) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(n),
            Err(at) => self.counts.insert(at, (bucket, n)),
        }
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(bucket, n)| self.add(*bucket, *n));
    }

    /// What has come since `earlier`, where both are counted from the same beginning; `None` when they are not (the counter began anew).
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut rest = self.clone();
        for (bucket, n) in &earlier.counts {
            let at = rest.counts.binary_search_by_key(bucket, |(at, _)| *at).ok()?;
            rest.counts[at].1 = rest.counts[at].1.checked_sub(*n)?;
        }
        rest.counts.retain(|(_, n)| *n > 0);
        Some(rest)
    }

    /// How many answers are counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The value, in microseconds, that a share `q` (0 to 1) of the answers does not exceed; `None` when there are none.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut below = 0_u64;
        let at = self.counts.iter().find(|(_, n)| {
            below = below.saturating_add(*n);
            below >= rank
        });
        at.or(self.counts.last()).map(|(bucket, _)| upper_us(*bucket))
    }

    /// How many answers certainly took longer than `us` microseconds: those of the buckets above the value's own.
    pub fn count_above(&self, us: u64) -> u64 {
        let own = bucket(us);
        self.counts.iter().rev().take_while(|(bucket, _)| *bucket > own).fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// How many answers possibly took at least `us` microseconds: those of the value's own bucket and above.
    pub fn count_reaching(&self, us: u64) -> u64 {
        let own = bucket(us);
        self.counts.iter().rev().take_while(|(bucket, _)| *bucket >= own).fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }
}

impl FromIterator<u64> for Histogram {
    /// Of microseconds.
    fn from_iter<I: IntoIterator<Item = u64>>(values: I) -> Self {
        let mut histogram = Self::default();
        values.into_iter().for_each(|us| histogram.record(us));
        histogram
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        let mut last = None;
        for us in (0..100_000).chain([MOST_US - 1, MOST_US, u64::MAX]) {
            let at = bucket(us);
            assert!(at < BUCKETS && upper_us(at) >= us.min(MOST_US) && last <= Some(at), "{us}: {at}");
            assert!(upper_us(at) as f64 <= us.min(MOST_US) as f64 * (1.0 + 1.0 / 64.0), "{us}: {}", upper_us(at));
            assert_eq!(bucket(upper_us(at)), at);
            last = Some(at);
        }
    }

    #[test]
    fn quantiles_and_tails() {
        let histogram: Histogram = (1..=1000).map(|ms| ms * 1000).collect();
        let p99 = histogram.quantile_us(0.99).expect("there are values");
        assert!((990_000..=1_005_500).contains(&p99), "{p99}");
        assert!(histogram.count_above(p99) <= 10 && histogram.count_reaching(p99) >= 10);
        assert_eq!((histogram.count(), histogram.count_above(u64::MAX)), (1000, 0));
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }

    #[test]
    fn a_later_count_minus_an_earlier_one() {
        let earlier: Histogram = [10, 10, 500].into_iter().collect();
        let mut later = earlier.clone();
        let interval: Histogram = [10, 70_000].into_iter().collect();
        later.merge(&interval);
        assert_eq!(later.since(&earlier), Some(interval));
        assert_eq!(earlier.since(&later), None, "a counter that began anew");
    }

    #[test]
    fn json_is_checked() {
        let histogram: Histogram = [5, 5, 900].into_iter().collect();
        let json = serde_json::to_string(&histogram).expect("json");
        assert_eq!(serde_json::from_str::<Histogram>(&json).expect("read back"), histogram);
        for wrong in ["[[5,1],[5,1]]", "[[9,0]]", "[[9000,1]]"] {
            assert!(serde_json::from_str::<Histogram>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn merging_is_counting_together(a in prop::collection::vec(0..1u64 << 40, 0..50), b in prop::collection::vec(0..1u64 << 40, 0..50)) {
            let mut left: Histogram = a.iter().copied().collect();
            left.merge(&b.iter().copied().collect());
            let both: Histogram = a.into_iter().chain(b).collect();
            prop_assert_eq!(left, both);
        }
    }
}
