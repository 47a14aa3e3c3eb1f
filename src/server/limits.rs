//! How often somebody may ask: a bucket of tokens each, refilled evenly.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most buckets. When there are more, those that are full again go: they say nothing.
const MOST: usize = 10_000;

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// One bucket for each who asks.
pub(super) struct Buckets<K> {
    /// Tokens a second.
    rate: f64,
    /// What a bucket holds.
    size: f64,
    all: Mutex<HashMap<K, Bucket>>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// `rate` tokens a second, `size` at once.
    pub fn new(rate: f64, size: f64) -> Self {
        Self { rate, size, all: Mutex::default() }
    }

    /// Takes a token. `Err`: there is none until then.
    pub fn take(&self, who: &K) -> Result<(), Duration> {
        self.take_at(who, Instant::now())
    }

    fn take_at(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(who) {
            let (rate, size) = (self.rate, self.size);
            all.retain(|_, bucket| bucket.tokens + since(bucket, now) * rate < size);
            if all.len() >= MOST {
                // Nobody is let through only because so many ask.
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = all.entry(who.clone()).or_insert(Bucket { tokens: self.size, at: now });
        bucket.tokens = (bucket.tokens + since(bucket, now) * self.rate).min(self.size);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64(((1.0 - bucket.tokens) / self.rate).clamp(0.001, 3_600.0)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

fn since(bucket: &Bucket, now: Instant) -> f64 {
    now.saturating_duration_since(bucket.at).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let buckets = Buckets::new(2.0, 3.0);
        let begin = Instant::now();
        for _ in 0..3 {
            assert!(buckets.take_at(&"ann", begin).is_ok());
        }
        let wait = buckets.take_at(&"ann", begin).unwrap_err();
        assert!((wait.as_secs_f64() - 0.5).abs() < 0.01, "{wait:?}");
        assert!(buckets.take_at(&"bob", begin).is_ok(), "each has one");
        assert!(buckets.take_at(&"ann", begin + Duration::from_millis(600)).is_ok());
    }

    #[test]
    fn there_are_never_too_many() {
        let buckets = Buckets::new(1.0, 2.0);
        let begin = Instant::now();
        for who in 0..MOST {
            assert!(buckets.take_at(&who, begin).is_ok());
        }
        assert!(buckets.take_at(&MOST, begin).is_err());
        assert!(buckets.take_at(&MOST, begin + Duration::from_secs(2)).is_ok(), "full ones go");
    }
}
