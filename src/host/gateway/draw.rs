//! Chance and hashes for dividing traffic: cheap, without a lock, and of no use for secrets.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use crate::ports::WHOLE;

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
}

/// A number that nobody needs to guess (splitmix64, one state per thread).
pub(super) fn random() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        mix(next)
    })
}

/// A number below `n`, evenly; 0 for 0.
pub(super) fn below(n: usize) -> usize {
    let n = u128::try_from(n).unwrap_or(0);
    usize::try_from((u128::from(random()) * n) >> 64).unwrap_or(0)
}

/// A point of the whole traffic, drawn.
pub(super) fn point() -> u32 {
    point_of(random())
}

/// The point at which a hash lies.
pub(super) fn point_of(hash: u64) -> u32 {
    u32::try_from(((hash >> 32) * u64::from(WHOLE)) >> 32).unwrap_or(0)
}

/// The same for the same parts in every process and every version of this program: callers stay where they are over restarts.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // FNV-1a, with a byte that no UTF-8 has between the parts.
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    mix(hash)
}

/// Spreads every bit over all (the end of splitmix64).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chi-square of counts that should all be the same.
    fn chi_square(counts: &[u32]) -> f64 {
        let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
    }

    /// With 99 degrees of freedom a fair one is above 190 once in ten million runs.
    const LIMIT: f64 = 190.0;

    #[test]
    fn drawn_and_hashed_points_are_even() {
        let (mut drawn, mut hashed, mut small) = ([0; 100], [0; 100], [0; 100]);
        for n in 0..200_000_u32 {
            drawn[point() as usize / 1_000] += 1;
            hashed[point_of(hash(&[b"iris", n.to_string().as_bytes()])) as usize / 1_000] += 1;
            small[below(100)] += 1;
        }
        for counts in [drawn, hashed, small] {
            assert!(chi_square(&counts) < LIMIT, "{counts:?}");
        }
        assert_eq!((below(0), below(1)), (0, 0));
    }

    #[test]
    fn parts_are_apart_and_the_hash_never_changes() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        // Written down: who was a candidate's caller before an update of this program still is.
        assert_eq!(point_of(hash(&[b"v2", b"ada"])), 79_553);
    }
}
