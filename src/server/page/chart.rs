//! Plots, as SVG. They hold shapes only: what is written stands beside them, so that it is read by everybody and does not shrink.

use askama::Template;

use super::words::{measured, percent};
use crate::app::{RecentTraffic, TrafficPoint};
use crate::release::{Bound, CheckResult};

/// How wide a plot's own world is.
const WIDE: f64 = 300.0;
/// How high one over time is.
const HIGH: f64 = 60.0;

/// A quantity over time, as an area; what went wrong of it in front.
#[derive(Template)]
#[template(path = "chart/area.html")]
pub(super) struct Area {
    title: String,
    area: String,
    line: String,
    bad: String,
}

/// Parts of a whole.
#[derive(Template)]
#[template(path = "chart/parts.html")]
pub(super) struct Parts {
    title: String,
    parts: Vec<Part>,
}

struct Part {
    class: &'static str,
    from: f64,
    wide: f64,
}

/// A measured value beside its limit and beside what the live version had.
#[derive(Template)]
#[template(path = "chart/bars.html")]
pub(super) struct Bars {
    title: String,
    /// Lengths, 0 to 100.
    value: f64,
    live: Option<f64>,
    limit: Option<f64>,
    good: bool,
}

/// Single measurements over time.
#[derive(Template)]
#[template(path = "chart/points.html")]
pub(super) struct Points {
    title: String,
    line: String,
    points: Vec<Point>,
}

struct Point {
    x: f64,
    y: f64,
    class: &'static str,
}

// They escape what they are given.
impl askama::filters::HtmlSafe for Area {}
impl askama::filters::HtmlSafe for Parts {}
impl askama::filters::HtmlSafe for Bars {}
impl askama::filters::HtmlSafe for Points {}

impl Bars {
    /// Whether the live version is beside it.
    pub fn has_live(&self) -> bool {
        self.live.is_some()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a plot has a few hundred points")]
fn across(at: usize, count: usize) -> f64 {
    WIDE * at as f64 / (count.max(2) - 1) as f64
}

/// How high a value lies, seen from above.
fn down(value: f64, most: f64) -> f64 {
    let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    // A stroke at the very edge would be cut.
    1.0 + (HIGH - 2.0) * (1.0 - share)
}

fn path(values: &[f64], most: f64) -> String {
    let place = |(at, value): (usize, &f64)| format!("{:.1} {:.1}", across(at, values.len()), down(*value, most));
    let places: Vec<String> = values.iter().enumerate().map(place).collect();
    format!("M{}", places.join("L"))
}

fn area(title: String, values: &[f64], bad: &[f64], most: f64) -> Area {
    let filled = |values: &[f64]| format!("{}L{WIDE} {HIGH}L0 {HIGH}Z", path(values, most));
    let went_wrong = bad.iter().any(|value| *value > 0.0);
    Area {
        title,
        area: filled(values),
        line: path(values, most),
        bad: if went_wrong { filled(bad) } else { String::new() },
    }
}

/// The most of a figure among versions that are shown side by side: they must have one scale.
pub(super) fn most(all: &[&RecentTraffic], of: impl Fn(&TrafficPoint) -> f64) -> f64 {
    all.iter().flat_map(|traffic| &traffic.points).map(of).fold(0.0, f64::max)
}

/// Requests per second, with those that failed.
pub(super) fn requests(version: &str, traffic: &RecentTraffic, most: f64) -> Area {
    let (all, bad): (Vec<f64>, Vec<f64>) = traffic.points.iter().map(|point| (point.rps, point.errors)).unzip();
    let now = all.last().copied().unwrap_or(0.0);
    let title = format!(
        "Requests per second to {version} in the last {} minutes: now {}, {} failed of {}",
        traffic.over_seconds / 60,
        measured(now, ""),
        traffic.errors,
        traffic.requests,
    );
    area(title, &all, &bad, most)
}

/// The 99th percentile of latency.
pub(super) fn latency(version: &str, traffic: &RecentTraffic, most: f64) -> Area {
    let values: Vec<f64> = traffic.points.iter().map(|point| point.p99_ms.unwrap_or(0.0)).collect();
    let all = super::words::ms(traffic.p99_ms);
    let title =
        format!("99th percentile of latency of {version} in the last {} minutes: {all}", traffic.over_seconds / 60);
    area(title, &values, &[], most)
}

/// Versions by their part of the requests.
pub(super) fn weights(model: &str, shares: &[(String, f64)]) -> Parts {
    const CLASSES: [&str; 4] = ["part-1", "part-2", "part-3", "part-4"];
    let told: Vec<String> = shares.iter().map(|(version, share)| format!("{version} {}", percent(*share))).collect();
    let mut from = 0.0;
    let mut parts = Vec::new();
    for (nth, (_, share)) in shares.iter().enumerate() {
        let wide = WIDE * share.clamp(0.0, 1.0);
        parts.push(Part { class: CLASSES[nth.min(CLASSES.len() - 1)], from, wide });
        from += wide;
    }
    Parts { title: format!("Traffic of {model}: {}", told.join(", ")), parts }
}

/// A check's value; `live`: what the live version had.
pub(super) fn check(check: &CheckResult, live: Option<f64>) -> Option<Bars> {
    let (value, limit) = (check.value?, check.limit.as_ref()?);
    let bound = if limit.bound == Bound::AtMost { "at most" } else { "at least" };
    let beside = live.map(|live| format!("; the live version had {}", measured(live, &limit.unit))).unwrap_or_default();
    let title = format!(
        "{}: {}, allowed is {bound} {}{beside}",
        check.name,
        measured(value, &limit.unit),
        measured(limit.value, &limit.unit)
    );
    Some(bars(title, value, live, Some(limit.value), check.passed))
}

/// Candidate and baseline.
pub(super) fn pair(what: &str, unit: &str, candidate: f64, baseline: f64, good: bool) -> Bars {
    let title = format!("{what}: new version {}, live version {}", measured(candidate, unit), measured(baseline, unit));
    bars(title, candidate, Some(baseline), None, good)
}

fn bars(title: String, value: f64, live: Option<f64>, limit: Option<f64>, good: bool) -> Bars {
    let most = [Some(value), live, limit].into_iter().flatten().fold(0.0, f64::max);
    let scaled = |value: f64| if most > 0.0 { (value / most * 88.0).clamp(0.0, 88.0) } else { 0.0 };
    Bars { title, value: scaled(value), live: live.map(scaled), limit: limit.map(scaled), good }
}

/// Measurements with how each counted: `None`, and what is no number, leaves a gap.
pub(super) fn points(title: String, measured: &[(Option<f64>, bool)]) -> Points {
    let values: Vec<f64> = measured.iter().filter_map(|(value, _)| *value).collect();
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let span = if most > least { most - least } else { 1.0 };
    let place = |(at, (value, good)): (usize, &(Option<f64>, bool))| {
        let y = 5.0 + (HIGH - 10.0) * (1.0 - ((*value)? - least) / span);
        Some(Point {
            x: 4.0 + across(at, measured.len()) * (WIDE - 8.0) / WIDE,
            y,
            class: if *good { "good" } else { "bad" },
        })
    };
    let points: Vec<Point> = measured.iter().enumerate().filter_map(place).collect();
    let places: Vec<String> = points.iter().map(|point| format!("{:.1} {:.1}", point.x, point.y)).collect();
    Points { title, line: if places.is_empty() { String::new() } else { format!("M{}", places.join("L")) }, points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Limit;

    #[test]
    fn what_is_written_in_a_plot_is_escaped_and_its_shapes_are_bounded() {
        let limit = Limit { bound: Bound::AtMost, value: 100.0, unit: "ms".into() };
        let odd = CheckResult { name: "<script>".into(), ..CheckResult::measured("x", 50.0, limit) };
        let bars = check(&odd, Some(25.0)).unwrap();
        assert_eq!((bars.value, bars.live, bars.limit, bars.good), (44.0, Some(22.0), Some(88.0), true));
        let drawn = bars.to_string();
        assert!(drawn.contains("role=\"img\"") && !drawn.contains("<script>") && drawn.contains("script"), "{drawn}");
        assert!(check(&CheckResult::new("liveness", true, "200"), None).is_none());
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let quiet =
            RecentTraffic { points: vec![TrafficPoint::default(); 3], over_seconds: 300, ..RecentTraffic::default() };
        assert_eq!(most(&[&quiet], |point| point.rps), 0.0);
        let drawn = requests("v1", &quiet, 0.0).to_string();
        assert!(!drawn.contains("NaN") && drawn.contains("0 failed of 0"), "{drawn}");
        let gaps = points("m".into(), &[(None, true), (Some(2.0), false)]);
        assert_eq!((gaps.points.len(), gaps.points[0].class), (1, "bad"));
        assert!(points("m".into(), &[]).line.is_empty());
    }
}
