//! The last pairs of answers of each mirrored model, for whoever compares them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::meter::MirrorOutcome;
use crate::ports::{MirrorAnswer, MirrorPage, MirrorPair};

/// Pairs that are kept for each model: at a hundred mirrored requests a second ten seconds, for a reader that looks every second.
const MOST_PAIRS: usize = 1_000;
/// And at most so many bytes of bodies for each model.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// A page is read as a whole by its client.
const PAGE_PAIRS: usize = 250;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// By model.
#[derive(Debug)]
pub(crate) struct Pairs {
    since: DateTime<Utc>,
    rings: Mutex<HashMap<String, Ring>>,
    counted: Family<MirrorOutcome, Counter>,
}

#[derive(Debug, Default)]
struct Ring {
    pairs: VecDeque<MirrorPair>,
    bytes: usize,
    /// Number of the newest pair.
    last: u64,
    dropped: BTreeMap<String, u64>,
}

/// Roughly what a pair takes.
fn bytes(pair: &MirrorPair) -> usize {
    let body = |answer: &MirrorAnswer| {
        answer.body.text.as_ref().map_or(0, String::len) + answer.body.hex.as_ref().map_or(0, String::len)
    };
    512 + pair.path.len() + body(&pair.live) + body(&pair.candidate)
}

impl Pairs {
    pub(super) fn new(counted: Family<MirrorOutcome, Counter>) -> Self {
        Self { since: Utc::now(), rings: Mutex::default(), counted }
    }

    fn count(&self, model: &str, outcome: &str) {
        let labels = MirrorOutcome { model: model.to_owned(), outcome: outcome.to_owned() };
        self.counted.get_or_create(&labels).inc();
    }

    /// Keeps a pair, with its number given here.
    pub(super) fn push(&self, model: &str, mut pair: MirrorPair) {
        self.count(model, "repeated");
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = rings.entry(model.to_owned()).or_default();
        ring.last += 1;
        pair.number = ring.last;
        ring.bytes += bytes(&pair);
        ring.pairs.push_back(pair);
        while ring.pairs.len() > MOST_PAIRS || ring.bytes > MOST_BYTES {
            let Some(oldest) = ring.pairs.pop_front() else { break };
            ring.bytes -= bytes(&oldest);
        }
    }

    /// Counts a request that was not repeated.
    pub(super) fn dropped(&self, model: &str, reason: &str) {
        self.count(model, reason);
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        *rings.entry(model.to_owned()).or_default().dropped.entry(reason.to_owned()).or_default() += 1;
    }

    /// The pairs after a number, oldest first.
    pub(crate) fn page(&self, model: &str, after: u64) -> MirrorPage {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ring) = rings.get(model) else {
            return MirrorPage { since: self.since, last: 0, missed: 0, dropped: BTreeMap::new(), pairs: vec![] };
        };
        // A number from before the daemon's restart is none of ours.
        let after = if after > ring.last { 0 } else { after };
        let mut size = 0;
        let fits = |pair: &&MirrorPair| {
            let first = size == 0;
            size += bytes(pair);
            first || size <= PAGE_BYTES
        };
        let newer = ring.pairs.iter().filter(|pair| pair.number > after);
        let pairs: Vec<MirrorPair> = newer.take(PAGE_PAIRS).take_while(fits).cloned().collect();
        MirrorPage {
            since: self.since,
            last: pairs.last().map_or(after, |pair| pair.number),
            missed: pairs.first().map_or(0, |pair| pair.number - after - 1),
            dropped: ring.dropped.clone(),
            pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::MirrorBody;

    fn pair(body: usize) -> MirrorPair {
        let answer = |version: &str| MirrorAnswer {
            version: version.to_owned(),
            slot: "a".to_owned(),
            status: Some(200),
            content_type: None,
            body: MirrorBody::new(&vec![b'x'; body], false),
            latency_ms: 1.0,
        };
        let (live, candidate) = (answer("v1"), answer("v2"));
        MirrorPair { number: 0, at: Utc::now(), method: "GET".into(), path: "/".into(), live, candidate }
    }

    #[test]
    fn pages_follow_each_other_and_say_what_they_miss() {
        let pairs = Pairs::new(Family::default());
        assert_eq!(pairs.page("iris", 7).last, 0);
        (0..MOST_PAIRS + 100).for_each(|_| pairs.push("iris", pair(1)));
        pairs.dropped("iris", "busy");
        let first = pairs.page("iris", 10);
        assert_eq!((first.missed, first.pairs[0].number, first.pairs.len()), (90, 101, PAGE_PAIRS));
        assert_eq!(first.dropped["busy"], 1);
        let mut seen = first.pairs.len();
        let mut last = first.last;
        while let page @ MirrorPage { missed: 0, .. } = pairs.page("iris", last)
            && !page.pairs.is_empty()
        {
            (seen, last) = (seen + page.pairs.len(), page.last);
        }
        assert_eq!((seen, last), (MOST_PAIRS, 1_100));
        assert_eq!(pairs.page("iris", 5_000).pairs[0].number, 101, "numbers of an earlier daemon");
    }

    #[test]
    fn large_bodies_make_it_forget_earlier_and_pages_shorter() {
        let pairs = Pairs::new(Family::default());
        (0..40).for_each(|_| pairs.push("iris", pair(512 * 1024)));
        let page = pairs.page("iris", 0);
        assert_eq!((page.missed, page.pairs.len()), (25, 3));
        pairs.push("big", pair(PAGE_BYTES));
        assert_eq!(pairs.page("big", 0).pairs.len(), 1, "one is always handed out");
    }
}
