//! The judge on simulated traffic, beside Kayenta's rule on the same data: the tables of `docs/judge.md`.
//!
//! `cargo bench --bench judge` for the tables, `cargo bench --bench judge -- 100` for a glance with 100 runs a row, `-- 100 canary` for the
//! tables with that word. The seeds are fixed, so the figures are the same on every machine.

use std::collections::BTreeMap;

use tidegate::judge::kayenta::{Direction, KayentaConfig, MetricConfig, Series, judge_metrics};
use tidegate::judge::simulate::{Behaviour, Simulation, Traffic};
use tidegate::judge::{Arm, Check, ErrorRatio, LatencyRatio, Monitor, Rule, Sample, Verdict};

const HOUR_S: u64 = 3600;
/// How long Kayenta's points are, in seconds: for errors, and for latencies.
const POINTS_S: [[u64; 2]; 2] = [[60, 300], [1, 60]];

/// A row of a table.
struct Row {
    name: &'static str,
    rule: Rule,
    traffic: Traffic,
    baseline: Behaviour,
    candidate: Behaviour,
    /// What Kayenta looks at: errors or the p99.
    latency: bool,
}

/// What came of one watch.
struct Run {
    verdict: Verdict,
    at_s: u64,
    /// Whether Kayenta failed it at the end, on short points and on long ones.
    kayenta: [bool; 2],
}

fn main() {
    let runs = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1000);
    let errors = |traffic, baseline, candidate, name| Row {
        name,
        rule: rule(Check::ErrorRatio(ErrorRatio::default()), HOUR_S),
        traffic,
        baseline: failing(baseline),
        candidate: failing(candidate),
        latency: false,
    };
    let one = Traffic::default();
    let random = Traffic { random_arrivals: true, ..one };
    let hundred = Traffic { rps: 100.0, ..one };
    let bursts = Traffic { bursts_per_hour: 12.0, ..one };
    let canary = Traffic { rps: 19.0, candidate_weight: 1.0 / 19.0, random_arrivals: true, ..one };
    let canary_bursts = Traffic { bursts_per_hour: 60.0, ..canary };
    let many = Traffic { bursts_per_hour: 60.0, ..one };
    table(
        "Errors, 1 request per second to each version, one hour",
        runs,
        [
            errors(one, 0.001, 0.001, "no difference, 0.1 %"),
            errors(one, 0.01, 0.01, "no difference, 1 %"),
            errors(one, 0.1, 0.1, "no difference, 10 %"),
            errors(one, 0.5, 0.5, "no difference, 50 %"),
            errors(bursts, 0.001, 0.001, "no difference, 12 bursts of 20 errors"),
            errors(many, 0.001, 0.001, "no difference, 60 bursts of 20 errors"),
            errors(one, 0.001, 0.01, "0.1 → 1 %"),
            errors(random, 0.001, 0.01, "0.1 → 1 %, random arrivals"),
            errors(one, 0.01, 0.05, "1 → 5 %"),
            errors(hundred, 0.001, 0.01, "0.1 → 1 %, 100 requests per second"),
            errors(one, 0.001, 1.0, "dead"),
            errors(random, 0.001, 1.0, "dead, random arrivals"),
        ],
    );
    table(
        "Errors, a canary with 1 of 20 requests per second, one hour",
        runs,
        [
            errors(canary, 0.001, 0.001, "no difference, 0.1 %"),
            errors(canary, 0.01, 0.01, "no difference, 1 %"),
            errors(canary, 0.1, 0.1, "no difference, 10 %"),
            errors(canary_bursts, 0.001, 0.001, "no difference, 60 bursts of 20 errors"),
            errors(canary, 0.001, 0.01, "0.1 → 1 %"),
            errors(canary, 0.001, 1.0, "dead"),
        ],
    );
    tolerances(runs, one);
    latencies(runs);
}

fn tolerances(runs: u64, traffic: Traffic) {
    let row = |tolerated, name| Row {
        name,
        rule: rule(Check::ErrorRatio(ErrorRatio { tolerated, ..ErrorRatio::default() }), HOUR_S),
        traffic,
        baseline: failing(0.001),
        candidate: failing(0.01),
        latency: false,
    };
    let rows =
        [row(1.0, "tolerated 1"), row(1.25, "tolerated 1.25"), row(1.5, "tolerated 1.5"), row(2.0, "tolerated 2")];
    table("What tolerance costs: 0.1 → 1 % errors, 1 request per second", runs, rows);
}

fn latencies(runs: u64) {
    let row = |traffic, slower: f64, window_s, name| Row {
        name,
        rule: rule(Check::LatencyRatio(LatencyRatio::default()), window_s),
        traffic,
        baseline: taking(20.0),
        candidate: taking(20.0 * slower),
        latency: true,
    };
    let one = Traffic::default();
    let ten = Traffic { rps: 10.0, ..one };
    let lasting = |traffic, lasting| Traffic { autocorrelation: 0.8, lasting, ..traffic };
    table(
        "Latency p99, one hour",
        runs,
        [
            row(one, 1.0, HOUR_S, "no difference, 1 rps"),
            row(lasting(one, 1.0), 1.0, HOUR_S, "no difference, 1 rps, autocorrelation 0.8"),
            row(ten, 1.0, HOUR_S, "no difference, 10 rps"),
            row(lasting(ten, 0.5), 1.0, HOUR_S, "no difference, 10 rps, autocorrelation 0.8 of half"),
            row(lasting(ten, 1.0), 1.0, HOUR_S, "no difference, 10 rps, autocorrelation 0.8 of all"),
            row(ten, 1.25, HOUR_S, "25 % slower, 10 rps"),
            row(lasting(ten, 0.5), 1.25, HOUR_S, "25 % slower, 10 rps, autocorrelation 0.8 of half"),
            row(lasting(ten, 1.0), 1.25, HOUR_S, "25 % slower, 10 rps, autocorrelation 0.8 of all"),
        ],
    );
    table("Latency p99, ten minutes", runs, [row(ten, 1.25, 600, "25 % slower, 10 rps")]);
}

fn rule(check: Check, window_s: u64) -> Rule {
    Rule { window_ms: window_s * 1000, checks: vec![check], ..Rule::default() }
}

fn failing(error_rate: f64) -> Behaviour {
    Behaviour { error_rate, median_ms: 0.0 }
}

fn taking(median_ms: f64) -> Behaviour {
    Behaviour { error_rate: 0.0, median_ms }
}

fn table(title: &str, runs: u64, rows: impl IntoIterator<Item = Row>) {
    let word = std::env::args().skip(1).find(|arg| !arg.starts_with('-') && arg.parse::<u64>().is_err());
    if word.is_some_and(|word| !title.contains(&word)) {
        return;
    }
    println!("\n{title} ({runs} runs a row)\n");
    println!("| | failed | passed | median | last | Kayenta, short points | Kayenta, long points |");
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let outcomes = all(&row, runs);
        let share =
            |is: &dyn Fn(&Run) -> bool| 100.0 * outcomes.iter().filter(|run| is(run)).count() as f64 / runs as f64;
        let mut when: Vec<u64> =
            outcomes.iter().filter(|run| run.verdict == Verdict::Fail).map(|run| run.at_s).collect();
        when.sort_unstable();
        let at = |at: Option<&u64>| {
            at.map_or("–".to_owned(), |s| {
                if *s < 120 { format!("{s} s") } else { format!("{:.1} min", *s as f64 / 60.0) }
            })
        };
        println!(
            "| {} | {:.1} % | {:.1} % | {} | {} | {:.1} % | {:.1} % |",
            row.name,
            share(&|run| run.verdict == Verdict::Fail),
            share(&|run| run.verdict == Verdict::Pass),
            at(when.get(when.len() / 2)),
            at(when.last()),
            share(&|run| run.kayenta[0]),
            share(&|run| run.kayenta[1]),
        );
    }
}

/// Every run of a row, on two threads.
fn all(row: &Row, runs: u64) -> Vec<Run> {
    std::thread::scope(|scope| {
        let halves = [0, 1]
            .map(|half| scope.spawn(move || (half..runs).step_by(2).map(|seed| one(row, seed)).collect::<Vec<_>>()));
        halves.into_iter().flat_map(|half| half.join().expect("no run panics")).collect()
    })
}

fn one(row: &Row, seed: u64) -> Run {
    let mut monitor = Monitor::new(row.rule.clone()).expect("a rule");
    let seconds = row.rule.window_ms as usize / 1000;
    let samples: Vec<Sample> = Simulation::new(row.traffic, row.baseline, row.candidate, seed).take(seconds).collect();
    for sample in &samples {
        monitor.observe(sample).expect("a sample");
    }
    let judgement = monitor.report().judgement;
    let kayenta = POINTS_S[usize::from(row.latency)].map(|seconds| {
        let points: Vec<Sample> = samples.chunks(seconds as usize).map(together).collect();
        kayenta(&points, row.latency) == Verdict::Fail
    });
    Run { verdict: judgement.verdict, at_s: judgement.at_ms / 1000, kayenta }
}

fn together(samples: &[Sample]) -> Sample {
    samples.iter().fold(Sample::default(), |mut sum, sample| {
        sum.baseline.merge(&sample.baseline);
        sum.candidate.merge(&sample.candidate);
        sum
    })
}

/// Kayenta's verdict, at the end of the watch.
fn kayenta(points: &[Sample], latency: bool) -> Verdict {
    let point =
        |arm: &Arm| if latency { arm.latencies.quantile_us(0.99).map(|us| us as f64) } else { arm.error_share() };
    let series = Series {
        baseline: points.iter().map(|sample| point(&sample.baseline)).collect(),
        candidate: points.iter().map(|sample| point(&sample.candidate)).collect(),
    };
    let metric = MetricConfig { name: "metric".to_owned(), direction: Direction::Increase, ..MetricConfig::default() };
    let config = KayentaConfig { metrics: vec![metric], min_points: 1, ..KayentaConfig::default() };
    judge_metrics(&config, &BTreeMap::from([("metric".to_owned(), series)])).verdict
}
