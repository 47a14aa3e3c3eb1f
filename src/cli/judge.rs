//! `judge`: a verdict on recorded traffic.

use std::path::Path;

use super::args::JudgeArgs;
use super::out::Out;
use super::runs::{parse, read_named};
use super::show::table;
use super::{Exit, Failed, plain};
use crate::graph::Failure;
use crate::judge::recording::{self, Recording, RecordingError};
use crate::judge::{Finding, Report, Rule, Sample, Verdict, judge};

/// Largest recording: a week of seconds with their histograms, or some million requests.
const MOST_BYTES: u64 = 512 << 20;
/// Width of a plot, in characters.
const PLOT: usize = 60;

/// Judges, and ends with a code that says the verdict.
pub fn run(args: &JudgeArgs, out: &Out) -> Result<Exit, Failed> {
    let (mut baseline, mut candidate) =
        (args.baseline.as_deref().map(recorded).transpose()?, recorded(&args.candidate)?);
    if args.align {
        (baseline, candidate) = (baseline.as_ref().map(recording::from_zero), recording::from_zero(&candidate));
    }
    let samples =
        recording::side_by_side(baseline.as_ref(), &candidate).map_err(|e| plain(unusable("the recordings", &e)))?;
    let rule = rule(args.rule.as_deref(), &samples)?;
    if let Some(check) = rule.checks.iter().find(|check| check.compares()).filter(|_| baseline.is_none()) {
        let message = format!("`{}` compares, and there is no baseline", check.name());
        let failure = Failure::new("rule_invalid", message);
        return Err(plain(
            failure.hint("add --baseline FILE, or a --rule with limits only: error_limit, latency_limit"),
        ));
    }
    if let Some((own, _)) = rule.own_metrics().next() {
        let failure = Failure::new("rule_invalid", format!("a recording has no `{own}`"));
        return Err(plain(failure.hint("what is not of the traffic is compared in a release only (docs/metrics.md)")));
    }
    let report = judge(&rule, &samples).map_err(|e| {
        let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        plain(Failure::new("rule_invalid", e.to_string()).because(why).hint("docs/judge.md has the settings of a rule"))
    })?;
    out.data(&report, || report_text(&report))?;
    Ok(match report.judgement.verdict {
        Verdict::Pass => Exit::Done,
        Verdict::Fail => Exit::Failed,
        Verdict::Inconclusive => Exit::Waiting,
    })
}

fn recorded(file: &Path) -> Result<Recording, Failed> {
    let name = file.display().to_string();
    recording::read(&read_named(&name, MOST_BYTES)?).map_err(|e| plain(unusable(&name, &e)))
}

fn unusable(what: &str, error: &RecordingError) -> Failure {
    let failure = Failure::new("recording_invalid", format!("{what} cannot be judged")).because(error.to_string());
    failure.hint(match error {
        RecordingError::Apart { .. } => "--align lays their beginnings side by side; what is compared must not depend on the hour then",
        RecordingError::Empty | RecordingError::Entry { .. } => {
            "one JSON object per line, of a request: {\"at_ms\", \"status\", \"latency_ms\"}, or of an interval: {\"at_ms\", \
             \"requests\", \"errors\", \"latencies_ms\"}"
        }
    })
}

/// The rule as given; without one the default over the time that was recorded.
fn rule(text: Option<&str>, samples: &[Sample]) -> Result<Rule, Failed> {
    let Some(text) = text else {
        let span = samples.first().zip(samples.last()).map_or(1, |(first, last)| last.at_ms - first.at_ms);
        return Ok(Rule { window_ms: span.max(1), ..Rule::default() });
    };
    serde_json::from_value(parse(text, "--rule")?).map_err(|e| {
        let failure = Failure::new("rule_invalid", "the rule cannot be read").because(e.to_string());
        plain(failure.hint("docs/judge.md has the settings of a rule"))
    })
}

/// A verdict in one word.
pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
    }
}

/// A report as a table, with the evidence over time.
pub(super) fn report_text(report: &Report) -> String {
    let mut shown = table(["CHECK", "VERDICT", "CANDIDATE", "BASELINE", "EVIDENCE", "NEEDED"]);
    for finding in &report.judgement.findings {
        let number = |value: Option<f64>| value.map(|value| measured(value, finding)).unwrap_or_default();
        shown.add_row([
            finding.check.clone(),
            word(finding.verdict).to_owned(),
            number(finding.candidate),
            number(finding.baseline),
            format!("1:{:.1}", finding.evidence),
            format!("1:{:.0}", finding.needed),
        ]);
    }
    let plots: Vec<String> =
        (0..).zip(&report.judgement.findings).map(|(n, finding)| plot(report, n, finding)).collect();
    let [requests, errors] = report.candidate;
    let heard = format!(
        "candidate: {requests} requests, {errors} errors; baseline: {} requests, {} errors",
        report.baseline[0], report.baseline[1]
    );
    format!(
        "{}: {}\n\n{shown}\n\n{}\n\n{heard}",
        word(report.judgement.verdict),
        report.judgement.reason,
        plots.join("\n")
    )
}

fn measured(value: f64, finding: &Finding) -> String {
    match finding.unit.as_str() {
        "share" => format!("{:.3} %", value * 100.0),
        unit => format!("{value:.1} {unit}"),
    }
}

/// The evidence of harm over time: full height is an alarm.
fn plot(report: &Report, check: usize, finding: &Finding) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let needed = finding.needed.log10().max(f64::MIN_POSITIVE);
    let (points, width) = (&report.history, PLOT.min(report.history.len()));
    let bar = |column: usize| {
        let within = &points[column * points.len() / width..((column + 1) * points.len() / width).max(1)];
        let most = within.iter().filter_map(|point| point.evidence.get(check)).fold(0.0_f64, |a, b| a.max(*b));
        LEVELS[((most / needed).clamp(0.0, 1.0) * 7.0).round() as usize]
    };
    format!("{:<18} {}", finding.check, (0..width).map(bar).collect::<String>())
}
