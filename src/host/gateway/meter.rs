//! What the gateway measures of each slot: counters for people and Prometheus, a precise histogram for the judge.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram as Precise;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::series::{self, Series};
use crate::ports::{LatencySummary, SlotSeries, VersionTraffic};

/// Whose figures these are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    model: String,
    version: String,
    slot: String,
}

/// Why the gateway answered itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

/// What came of a request that was to be repeated at a candidate: `repeated`, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MirrorOutcome {
    pub(super) model: String,
    pub(super) outcome: String,
}

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// From a fast small model to a slow large one, in seconds.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

fn durations() -> Histogram {
    Histogram::new(BUCKETS)
}

/// All families, as `/metrics` shows them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    errors: Family<Labels, Counter>,
    client_errors: Family<Labels, Counter>,
    in_flight: Family<Labels, Gauge>,
    ready: Family<Labels, Gauge>,
    durations: Durations,
    refused: Family<Reason, Counter>,
    ejections: Family<Labels, Counter>,
    pub(super) mirrored: Family<MirrorOutcome, Counter>,
    /// Requests that wait for a healthy slot.
    pub(crate) held: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        let metrics = Self {
            requests: Family::default(),
            errors: Family::default(),
            client_errors: Family::default(),
            in_flight: Family::default(),
            ready: Family::default(),
            durations: Family::new_with_constructor(durations),
            refused: Family::default(),
            ejections: Family::default(),
            mirrored: Family::default(),
            held: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered or failed", metrics.requests.clone());
        registry.register("errors", "Answers with status 5xx and requests without an answer", metrics.errors.clone());
        registry.register("client_errors", "Answers with status 4xx", metrics.client_errors.clone());
        registry.register("in_flight", "Requests under way", metrics.in_flight.clone());
        registry.register("slot_ready", "1: the slot answers that it is ready; 0: it does not", metrics.ready.clone());
        registry.register("request_duration_seconds", "Time until the answer was complete", metrics.durations.clone());
        registry.register("refused", "Requests and connections beyond a limit", metrics.refused.clone());
        registry.register("ejections", "Times that a replica was put out for failing", metrics.ejections.clone());
        registry.register("mirrored", "Requests to be repeated at a candidate", metrics.mirrored.clone());
        registry.register("held", "Requests waiting for a healthy slot", metrics.held.clone());
        Self { registry, ..metrics }
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail; should an encoder, half the figures are better than none.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// Counts what is beyond a limit.
    pub(super) fn refused(&self, reason: &str) {
        self.refused.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// The meter of a slot.
    pub(crate) fn meter(&self, model: &str, version: &str, slot: &str) -> Meter {
        let labels = Labels { model: model.to_owned(), version: version.to_owned(), slot: slot.to_owned() };
        Meter {
            requests: self.requests.get_or_create(&labels).clone(),
            errors: self.errors.get_or_create(&labels).clone(),
            client_errors: self.client_errors.get_or_create(&labels).clone(),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            ready: self.ready.get_or_create(&labels).clone(),
            ejections: self.ejections.get_or_create(&labels).clone(),
            durations: self.durations.get_or_create(&labels).clone(),
            figures: Mutex::new(Figures { precise: precise(), series: Series::default() }),
            labels,
        }
    }

    /// Forgets a slot that is gone, so that the number of series stays bounded.
    pub(crate) fn forget(&self, meter: &Meter) {
        self.requests.remove(&meter.labels);
        self.errors.remove(&meter.labels);
        self.client_errors.remove(&meter.labels);
        self.in_flight.remove(&meter.labels);
        self.ready.remove(&meter.labels);
        self.ejections.remove(&meter.labels);
        self.durations.remove(&meter.labels);
    }
}

/// Microseconds up to an hour, three significant digits. `None` is for the types only: hdrhistogram accepts these bounds (low >= 1,
/// high >= 2 * low, at most 5 digits).
fn precise() -> Option<Precise<u64>> {
    Precise::new_with_bounds(1, 3_600_000_000, 3).ok()
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The slot answered with this status, completely.
    Answered(u16),
    /// The slot gave no answer, or broke off in the middle of one.
    Failed,
    /// The client went away before the answer.
    Abandoned,
}

/// What has to be counted together; the lock is held for some ten nanoseconds.
#[derive(Debug)]
struct Figures {
    precise: Option<Precise<u64>>,
    series: Series,
}

/// The figures of one slot.
#[derive(Debug)]
pub(crate) struct Meter {
    labels: Labels,
    requests: Counter,
    errors: Counter,
    client_errors: Counter,
    in_flight: Gauge,
    ready: Gauge,
    ejections: Counter,
    durations: Histogram,
    figures: Mutex<Figures>,
}

impl Meter {
    pub(crate) fn enter(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn leave(&self) {
        self.in_flight.dec();
    }

    pub(crate) fn in_flight(&self) -> u64 {
        u64::try_from(self.in_flight.get()).unwrap_or(0)
    }

    /// Whether it answers that it is ready.
    pub(super) fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Counts that it was put out.
    pub(super) fn ejected(&self) {
        self.ejections.inc();
    }

    /// Counts a request that ended; `latency` where one was measured.
    pub(crate) fn count(&self, outcome: Outcome, latency: Option<Duration>) {
        self.requests.inc();
        match outcome {
            Outcome::Answered(500..) | Outcome::Failed => self.errors.inc(),
            Outcome::Answered(400..=499) => self.client_errors.inc(),
            Outcome::Answered(_) | Outcome::Abandoned => 0,
        };
        if let Some(latency) = latency {
            self.durations.observe(latency.as_secs_f64());
        }
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.series.count(series::now(), outcome, latency);
        if let (Some(precise), Some(latency)) = (figures.precise.as_mut(), latency) {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            precise.saturating_record(micros.max(1));
        }
    }

    /// What it did in the complete seconds after one and before another.
    pub(super) fn seconds(&self, after: u64, before: u64) -> SlotSeries {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        SlotSeries {
            token: self.labels.slot.clone(),
            version: self.labels.version.clone(),
            seconds: figures.series.between(after, before),
        }
    }

    /// The figures now.
    pub(crate) fn traffic(&self) -> VersionTraffic {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let precise = figures.precise.as_ref().filter(|precise| !precise.is_empty());
        let ms = |micros: u64| micros as f64 / 1000.0;
        VersionTraffic {
            token: self.labels.slot.clone(),
            version: self.labels.version.clone(),
            requests: self.requests.get(),
            errors: self.errors.get(),
            client_errors: self.client_errors.get(),
            in_flight: self.in_flight(),
            latency: precise.map(|precise| LatencySummary {
                p50_ms: ms(precise.value_at_quantile(0.5)),
                p95_ms: ms(precise.value_at_quantile(0.95)),
                p99_ms: ms(precise.value_at_quantile(0.99)),
                max_ms: ms(precise.max()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_outcome_and_shows_it() {
        let metrics = Metrics::new();
        let meter = metrics.meter("iris", "v1", "slot-1");
        for outcome in [Outcome::Answered(200), Outcome::Answered(404), Outcome::Answered(503), Outcome::Failed] {
            meter.count(outcome, Some(Duration::from_millis(10)));
        }
        meter.count(Outcome::Abandoned, None);
        let traffic = meter.traffic();
        assert_eq!((traffic.requests, traffic.errors, traffic.client_errors), (5, 2, 1));
        assert!((traffic.latency.unwrap().p50_ms - 10.0).abs() < 0.1);
        let text = metrics.text();
        assert!(text.contains(r#"tidegate_requests_total{model="iris",version="v1",slot="slot-1"} 5"#), "{text}");
        meter.ready(true);
        assert!(metrics.text().contains(r#"tidegate_slot_ready{model="iris",version="v1",slot="slot-1"} 1"#));
        metrics.forget(&meter);
        assert!(!metrics.text().contains("slot-1"));
    }
}
