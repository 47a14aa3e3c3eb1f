//! The points of a watch: what both versions did in each step, for a rule that looks once, at the end.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::rule::{RuleError, holds, inside};
use super::super::sample::{Arm, Sample};
use super::{KayentaConfig, KayentaReport, MetricConfig, Series, judge_metrics};

/// Most points of a watch, and most metrics of a rule: a watch under way is stored again and again.
const MOST_POINTS: u64 = 1000;
const MOST_METRICS: usize = 20;
/// What a metric may be called, in an error.
const METRICS: &str = "error_rate, throughput, latency_p with a number such as latency_p99, or with `own: true` one of the release's `metrics`";

/// What can be measured of a version's traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    /// Share of the requests that failed, 0 to 1; missing without requests.
    ErrorRate,
    /// Requests answered without error, per second.
    Throughput,
    /// A quantile of the latencies (0 to 1), in milliseconds; missing without any.
    Latency(f64),
}

impl Measure {
    fn named(name: &str) -> Option<Self> {
        match name {
            "error_rate" => Some(Self::ErrorRate),
            "throughput" => Some(Self::Throughput),
            _ => {
                let number = name.strip_prefix("latency_p")?;
                let per_cent: f64 = number.parse().ok()?;
                // Each quantile has one name.
                (number == per_cent.to_string() && per_cent > 0.0 && per_cent < 100.0)
                    .then_some(Self::Latency(per_cent / 100.0))
            }
        }
    }

    fn of(self, arm: &Arm, step_ms: u64) -> Option<f64> {
        match self {
            Self::ErrorRate => arm.error_share(),
            Self::Throughput => Some(arm.requests.saturating_sub(arm.errors) as f64 * 1000.0 / step_ms.max(1) as f64),
            Self::Latency(quantile) => arm.latencies.quantile_us(quantile).map(|us| us as f64 / 1000.0),
        }
    }
}

impl KayentaConfig {
    /// Refuses settings that could judge no traffic, or no watch of `window_ms`.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub(in super::super) fn validate(&self, window_ms: u64) -> Result<(), RuleError> {
        let at = |field: &str| format!("kayenta.{field}");
        let number = |field: &str, value: f64, ok: bool, allowed| holds(&at(field), value, ok, allowed);
        let named = self.metrics.len();
        number("metrics", named as f64, (1..=MOST_METRICS).contains(&named), "1 to 20 metrics")?;
        for (n, metric) in self.metrics.iter().enumerate() {
            let again = self.metrics[..n].iter().any(|other| other.name == metric.name);
            let known = metric.own || Measure::named(&metric.name).is_some();
            if again || !known {
                let allowed = if again { "each metric once" } else { METRICS };
                return Err(RuleError::Name { place: at("metrics"), name: metric.name.clone(), allowed });
            }
        }
        number("marginal", self.marginal, (0.0..=100.0).contains(&self.marginal), "0 to 100")?;
        number("pass", self.pass, (self.marginal..=100.0).contains(&self.pass), "`marginal` to 100")?;
        inside(&at("confidence"), self.confidence)?;
        number("tolerance", self.tolerance, self.tolerance >= 0.0 && self.tolerance.is_finite(), "0 or more")?;
        let weights: f64 = self.group_weights.values().sum();
        let fair = self.group_weights.values().all(|weight| *weight >= 0.0) && weights <= 100.0 + 1e-9;
        number("group_weights", weights, fair, "0 or more each, 100 at most in all")?;
        let points = window_ms / self.step_ms.max(1);
        let steps = self.step_ms > 0 && points <= MOST_POINTS;
        number("step_ms", self.step_ms as f64, steps, "a thousandth of window_ms or more")?;
        // One more than needed: a step at the edge may not be whole. How often others measure is theirs to say.
        let enough = self.min_points > 0 && (self.of_traffic().next().is_none() || (self.min_points as u64) < points);
        number(
            "min_points",
            self.min_points as f64,
            enough,
            "at least 1, and fewer than window_ms has steps of step_ms",
        )
    }

    /// The metrics that are measured of the traffic.
    fn of_traffic(&self) -> impl Iterator<Item = &MetricConfig> {
        self.metrics.iter().filter(|metric| !metric.own)
    }
}

/// What is remembered between two samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Points {
    config: KayentaConfig,
    /// When the open step began, in the samples' milliseconds.
    since_ms: Option<u64>,
    /// What baseline and candidate did in it.
    open: [Arm; 2],
    /// The metrics' points, in the configuration's order.
    series: Vec<Series>,
}

impl Points {
    pub(in super::super) fn new(config: &KayentaConfig) -> Self {
        let series = vec![Series::default(); config.metrics.len()];
        Self { config: config.clone(), since_ms: None, open: [Arm::default(), Arm::default()], series }
    }

    /// Steps that are over.
    fn steps(&self) -> usize {
        let mut of_traffic = self.config.metrics.iter().zip(&self.series).filter(|(metric, _)| !metric.own);
        of_traffic.next().map_or(0, |(_, series)| series.baseline.len())
    }

    /// Points of the metric that has most.
    pub(in super::super) fn most(&self) -> usize {
        self.series.iter().map(|series| series.baseline.len()).max().unwrap_or(0)
    }

    /// Takes a measurement of both versions that somebody else has made, if a metric of this name is wanted.
    pub(in super::super) fn measured(&mut self, name: &str, baseline: Option<f64>, candidate: Option<f64>) {
        let mut all = self.config.metrics.iter().zip(&mut self.series);
        let wanted = all
            .find(|(metric, series)| metric.own && metric.name == name && series.baseline.len() < MOST_POINTS as usize);
        if let Some((_, series)) = wanted {
            series.baseline.push(baseline);
            series.candidate.push(candidate);
        }
    }

    /// Takes a sample; a step in which none came has no points.
    pub(in super::super) fn look(&mut self, sample: &Sample) {
        if self.config.of_traffic().next().is_none() {
            return;
        }
        let (at_ms, step_ms) = (sample.at_ms, self.config.step_ms.max(1));
        // How long the first interval was is not known: at most a second, as a rule.
        let mut since_ms = self.since_ms.unwrap_or_else(|| at_ms.saturating_sub(step_ms.min(1000)));
        while at_ms > since_ms.saturating_add(step_ms) && self.steps() < MOST_POINTS as usize {
            self.close();
            since_ms += step_ms;
        }
        self.open[0].merge(&sample.baseline);
        self.open[1].merge(&sample.candidate);
        if at_ms >= since_ms.saturating_add(step_ms) {
            self.close();
            since_ms = at_ms;
        }
        self.since_ms = Some(since_ms);
    }

    fn close(&mut self) {
        let [baseline, candidate] = std::mem::take(&mut self.open);
        if self.steps() >= MOST_POINTS as usize {
            return;
        }
        // Without a request on either side nothing was measured, no throughput either.
        let silent = baseline.requests == 0 && candidate.requests == 0;
        for (metric, series) in self.config.metrics.iter().zip(&mut self.series).filter(|(metric, _)| !metric.own) {
            let of = |arm| Measure::named(&metric.name).filter(|_| !silent)?.of(arm, self.config.step_ms);
            series.baseline.push(of(&baseline));
            series.candidate.push(of(&candidate));
        }
    }

    /// What Kayenta's rule says of the steps that are over.
    pub(in super::super) fn report(&self) -> KayentaReport {
        let names = self.config.metrics.iter().map(|metric| metric.name.clone());
        let series: BTreeMap<String, Series> = names.zip(self.series.iter().cloned()).collect();
        judge_metrics(&self.config, &series)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::{Check, ErrorRatio, Histogram, Judgement, Monitor, Rule, Verdict, judge};
    use super::*;

    /// Ten minutes, a point each ten seconds.
    fn rule(kayenta: &Value) -> Rule {
        serde_json::from_value(json!({"window_ms": 600_000, "checks": [{"kayenta": kayenta}]})).expect("a rule")
    }

    fn asked() -> Value {
        json!({"step_ms": 10_000, "metrics": [
            {"name": "error_rate", "direction": "increase", "critical": true},
            {"name": "latency_p90", "direction": "increase"}
        ]})
    }

    /// Five requests a second to each side, the candidate's slower by `more_us`; of its requests every `nth` second has a failed one.
    fn second(s: u64, more_us: u64, nth: u64) -> Sample {
        let arm = |more_us: u64, errors: u64| {
            let latencies: Histogram = (0..5).map(|n| 10_000 + 37 * (s % 41) + 500 * n + more_us).collect();
            Arm { requests: 5, errors, latencies }
        };
        let failed = u64::from(nth > 0 && s.is_multiple_of(nth));
        Sample { at_ms: s * 1000, baseline: arm(0, 0), candidate: arm(more_us, failed) }
    }

    fn judged(rule: &Rule, more_us: u64, nth: u64) -> Judgement {
        let samples: Vec<Sample> = (1..=600).map(|s| second(s, more_us, nth)).collect();
        judge(rule, &samples).expect("it can be judged").judgement
    }

    #[test]
    fn it_looks_once_at_the_end() {
        let well = judged(&rule(&asked()), 0, 0);
        assert_eq!((well.verdict, well.findings[0].candidate), (Verdict::Pass, Some(100.0)), "{}", well.reason);
        assert!(well.reason.contains("score 100") && well.reason.contains("60 and 60 points"), "{}", well.reason);
        let slow = judged(&rule(&asked()), 3_000, 0);
        assert_eq!((slow.verdict, slow.at_ms), (Verdict::Fail, 600_000), "{}", slow.reason);
        assert!(slow.reason.contains("latency_p90 is higher"), "{}", slow.reason);
        let failing = judged(&rule(&asked()), 0, 3);
        assert!(failing.reason.contains("a critical metric failed: error_rate is higher"), "{}", failing.reason);
        // One of two groups is bad: half the score, which a lower bar calls marginal.
        let lenient = json!({"step_ms": 10_000, "marginal": 40, "metrics": asked()["metrics"]});
        assert_eq!(judged(&rule(&lenient), 3_000, 0).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn a_stored_watch_goes_on_and_one_cut_short_does_not_pass() {
        let rule = rule(&asked());
        let mut monitor = Monitor::new(rule.clone()).expect("a rule");
        for s in 1..=300 {
            let judgement = monitor.look(&second(s, 0, 0)).expect("a sample");
            assert_eq!((judgement.verdict, judgement.decided), (Verdict::Inconclusive, false));
        }
        let kept = serde_json::to_string(&monitor).expect("JSON");
        let mut again: Monitor = serde_json::from_str(&kept).expect("a monitor");
        for s in 301..=600 {
            again.look(&second(s, 0, 0)).expect("a sample");
        }
        assert_eq!(again.report().judgement, judged(&rule, 0, 0));
        let short = monitor.end(300_000);
        assert_eq!(short.verdict, Verdict::Inconclusive, "{}", short.reason);
        // Neither does it fail: by a few points any two differ.
        let mut stub = Monitor::new(rule).expect("a rule");
        for s in 1..=25 {
            stub.look(&second(s, 5_000, 2)).expect("a sample");
        }
        let said = stub.end(25_000);
        assert_eq!(said.verdict, Verdict::Inconclusive, "{}", said.reason);
    }

    #[test]
    fn what_was_not_measured_says_nothing() {
        // One second of traffic, then silence but for the last one: replaced points are none.
        let replaced = json!({"step_ms": 10_000, "metrics": [{"name": "error_rate", "nan": "replace"}]});
        let arm = |s: u64| if s == 1 || s > 595 { Arm::of(200, 0) } else { Arm::default() };
        let sample = |s: u64| Sample { at_ms: s * 1000, baseline: arm(s), candidate: arm(s) };
        for metrics in [replaced, json!({"step_ms": 10_000, "metrics": [{"name": "throughput"}]})] {
            let said = judge(&rule(&metrics), &(1..=600).map(sample).collect::<Vec<_>>()).expect("judged").judgement;
            assert_eq!(said.verdict, Verdict::Inconclusive, "{}", said.reason);
        }
        // No latencies on either side: that is no bad score.
        let bare = |s: u64| Sample { at_ms: s * 1000, baseline: Arm::of(5, 0), candidate: Arm::of(5, 0) };
        let said = judge(&rule(&asked()), &(1..=600).map(bare).collect::<Vec<_>>()).expect("judged").judgement;
        assert_eq!(said.verdict, Verdict::Inconclusive, "{}", said.reason);
    }

    #[test]
    fn a_step_without_traffic_has_no_points() {
        let Check::Kayenta(config) = &rule(&asked()).checks[0] else { panic!("it is one") };
        let mut points = Points::new(config);
        // Ten seconds, thirty of silence, ten more.
        (1..=10).chain(41..=50).for_each(|s| points.look(&second(s, 0, 0)));
        let had: Vec<bool> = points.series[0].baseline.iter().map(Option::is_some).collect();
        assert_eq!(had, [true, false, false, false, true]);
        // A clock that jumps a year does not fill the memory.
        points.look(&second(31_536_000, 0, 0));
        assert!(points.steps() <= MOST_POINTS as usize);
    }

    #[test]
    fn what_others_measure_is_judged_beside_the_traffic() {
        let kayenta = json!({"step_ms": 10_000, "metrics": [
            {"name": "error_rate"}, {"name": "memory_mb", "own": true, "direction": "increase", "critical": true}
        ]});
        let judged = |more: f64, every_s: u64| {
            let mut monitor = Monitor::new(rule(&kayenta)).expect("a rule");
            for s in 1..=600_u64 {
                if s.is_multiple_of(every_s) {
                    let noise = (s * 31 % 17) as f64;
                    monitor.measured("memory_mb", Some(500.0 + noise), Some(500.0 + more + noise));
                    monitor.measured("another", Some(0.0), Some(9.0));
                }
                monitor.look(&second(s, 0, 0)).expect("a sample");
            }
            monitor.report().judgement
        };
        let well = judged(0.0, 10);
        assert_eq!(well.verdict, Verdict::Pass, "{}", well.reason);
        let bad = judged(80.0, 10);
        assert_eq!(bad.verdict, Verdict::Fail, "{}", bad.reason);
        assert!(bad.reason.contains("a critical metric failed: memory_mb is higher"), "{}", bad.reason);
        let few = judged(80.0, 60);
        assert_eq!(few.verdict, Verdict::Inconclusive, "{}", few.reason);
        // On its own: how long a step is does not matter then, and its points are bounded.
        let alone = json!({"metrics": [{"name": "memory_mb", "own": true}]});
        let Check::Kayenta(config) = &rule(&alone).checks[0] else { panic!("it is one") };
        assert_eq!(rule(&alone).validate(), Ok(()));
        let mut points = Points::new(config);
        (1..=2_000_u64).for_each(|s| points.look(&second(s * 3_600, 0, 0)));
        assert_eq!(points.most(), 0);
        (0..2_000).for_each(|_| points.measured("memory_mb", Some(1.0), None));
        assert_eq!(points.most(), 1000);
    }

    #[test]
    fn it_takes_nothing_from_the_other_checks() {
        let mut both = rule(&asked());
        both.checks.push(Check::ErrorRatio(ErrorRatio::default()));
        assert_eq!((both.needed(), both.validate()), (100.0, Ok(())));
        // A dead candidate is seen at once by the one that looks every second.
        let dead = |s: u64| Sample { at_ms: s * 1000, baseline: Arm::of(5, 0), candidate: Arm::of(5, 5) };
        let report = judge(&both, &(1..=600).map(dead).collect::<Vec<_>>()).expect("judged");
        assert!(report.judgement.verdict == Verdict::Fail && report.judgement.at_ms < 20_000, "{report:?}");
    }

    #[test]
    fn settings_that_could_judge_nothing_are_refused() {
        let with = |more: Value| {
            let mut kayenta = asked();
            for (key, value) in more.as_object().expect("an object") {
                kayenta[key] = value.clone();
            }
            rule(&kayenta).validate().expect_err("refused").to_string()
        };
        let named = |name: &str| json!({"metrics": [{"name": name}]});
        for (more, part) in [
            (json!({"metrics": []}), "1 to 20 metrics"),
            (named("latency"), "kayenta.metrics has latency, allowed is error_rate, throughput"),
            (named("latency_p100"), "latency_p100"),
            (json!({"metrics": [{"name": "error_rate"}, {"name": "error_rate"}]}), "each metric once"),
            (json!({"pass": 70}), "kayenta.pass is 70"),
            (json!({"confidence": 1}), "kayenta.confidence is 1"),
            (json!({"group_weights": {"error_rate": 120}}), "kayenta.group_weights is 120"),
            (json!({"step_ms": 12_000}), "kayenta.min_points is 50, allowed is at least 1, and fewer than"),
            (named("latency_p90.0"), "latency_p90.0"),
            (json!({"step_ms": 1}), "kayenta.step_ms is 1"),
        ] {
            let said = with(more);
            assert!(said.contains(part), "{said}");
        }
    }
}
