//! What judges said in a run: new version beside live version, the user's own figures over time.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::chart::{self, Bars, Points};
use super::words::{When, measured, number};
use crate::graph::{Event, EventRow};

/// Most verdicts that are shown, the newest.
const MOST: usize = 5;

/// One verdict.
pub(super) struct VerdictCard {
    pub of: String,
    pub word: String,
    pub class: &'static str,
    pub mark: &'static str,
    pub reason: String,
    pub at: When,
    pub findings: Vec<FindingLine>,
    pub metrics: Vec<MetricLine>,
}

/// A check of a judge.
pub(super) struct FindingLine {
    pub check: String,
    pub word: String,
    pub reason: String,
    pub candidate: String,
    pub baseline: String,
    pub bars: Option<Bars>,
}

/// A figure of the user's own.
pub(super) struct MetricLine {
    pub name: String,
    pub newest: String,
    pub points: Points,
}

/// The newest verdicts of a run, newest first.
pub(super) fn of(events: &[EventRow], now: DateTime<Utc>) -> Vec<VerdictCard> {
    let said = events.iter().rev().filter_map(|row| match &row.event {
        Event::Custom { name, data, .. } if name == "verdict" => Some((row.at, data)),
        _ => None,
    });
    said.take(MOST).map(|(at, data)| card(data, When::at(at, now))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn card(said: &Value, at: When) -> VerdictCard {
    let word = text(&said["verdict"]);
    let (class, mark) = match word.as_str() {
        "pass" => ("good", "✓"),
        "fail" => ("bad", "✗"),
        _ => ("waits", "?"),
    };
    let judgement = &said["report"]["judgement"];
    let reason = [&said["reason"], &judgement["reason"]].into_iter().map(text).find(|reason| !reason.is_empty());
    VerdictCard {
        of: text(&said["of"]),
        word,
        class,
        mark,
        reason: reason.unwrap_or_default(),
        at,
        findings: list(&judgement["findings"]).map(finding).collect(),
        metrics: list(&said["metrics"]).map(metric).collect(),
    }
}

fn finding(said: &Value) -> FindingLine {
    let (check, word, unit) = (text(&said["check"]), text(&said["verdict"]), text(&said["unit"]));
    let (candidate, baseline) = (said["candidate"].as_f64(), said["baseline"].as_f64());
    let told = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| measured(value, &unit));
    let both = candidate.zip(baseline);
    FindingLine {
        reason: text(&said["reason"]),
        candidate: told(candidate),
        baseline: told(baseline),
        bars: both.map(|(new, live)| chart::pair(&check, &unit, new, live, word != "fail")),
        check,
        word,
    }
}

fn metric(said: &Value) -> MetricLine {
    let name = text(&said["plan"]["threshold"]["name"]);
    let measured: Vec<(Option<f64>, bool)> =
        list(&said["points"]).map(|point| (point["value"].as_f64(), point["outcome"] == "success")).collect();
    let newest = measured.iter().rev().find_map(|(value, _)| *value);
    let newest = newest.map_or_else(|| "never measured".to_owned(), number);
    let title = format!("{name}: {} measurements, newest {newest}", measured.len());
    MetricLine { points: chart::points(title, &measured), name, newest }
}
