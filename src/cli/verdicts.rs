//! The verdicts of a run, as `run show` has them: what the judge held, what it found, and how the evidence grew.

use serde_json::Value;

use super::judge::{report_text, word};
use crate::graph::{Event, EventRow};
use crate::judge::answers::AnswersReport;
use crate::judge::{Report, Verdict};
use crate::nodes::{Metric, MetricPoint};

/// The verdicts among a run's events, oldest first; empty where there is none.
pub fn verdicts(events: &[EventRow]) -> String {
    let told = events.iter().filter_map(|row| match &row.event {
        Event::Custom { name, data, .. } if name == "verdict" => Some(verdict(row, data)),
        _ => None,
    });
    told.collect()
}

fn verdict(row: &EventRow, said: &Value) -> String {
    let at = row.at.format("%H:%M:%S");
    let of = said["of"].as_str().unwrap_or("trial");
    let read = |key: &str| said.get(key).cloned().filter(|value| !value.is_null());
    let all: Option<Verdict> = read("verdict").and_then(|value| serde_json::from_value(value).ok());
    let mut text = format!("\nverdict on the {of} at {at}: {}\n", all.map_or("unreadable", word));
    if let Some(answers) = read("answers").and_then(|value| serde_json::from_value::<AnswersReport>(value).ok()) {
        text.push_str(&format!("answers: {}: {}\n", word(answers.verdict), answers.reason));
        for example in &answers.examples {
            text.push_str(&format!("  {}: {}\n", example.path, example.why));
        }
    }
    if let Some(metrics) = read("metrics").and_then(|value| serde_json::from_value::<Vec<Metric>>(value).ok()) {
        metrics.iter().for_each(|metric| text.push_str(&metric_lines(metric)));
    }
    if let Some(report) = read("report").and_then(|value| serde_json::from_value::<Report>(value).ok()) {
        text.push_str(&format!("{}\n", report_text(&report)));
    }
    text
}

/// A metric: where it stands, and its values over time.
fn metric_lines(metric: &Metric) -> String {
    let dry = if metric.plan.threshold.dry_run { " (decides nothing)" } else { "" };
    let mut text = format!("metric {}{dry}\n", metric.reason());
    let values: Vec<f64> = metric.points.iter().filter_map(|point| point.value.as_f64()).collect();
    let (least, most) =
        values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
    if values.len() > 1 {
        let plot: String = metric.points.iter().map(|point| mark(point, least, most)).collect();
        text.push_str(&format!("  {least} to {most}: {plot}\n"));
    }
    text
}

/// A measurement in a plot of one line: its height between the least and the most, `·` for one that is no number.
fn mark(point: &MetricPoint, least: f64, most: f64) -> char {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(value) = point.value.as_f64() else { return '·' };
    let share = if most > least { (value - least) / (most - least) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
    let height = (share * 7.0).round() as usize;
    HEIGHTS[height.min(7)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::Name;
    use crate::judge::{Arm, Check, ErrorRatio, Rule, Sample, judge};

    #[test]
    fn a_verdict_is_shown_with_its_table_and_its_plot() {
        let rule =
            Rule { window_ms: 900_000, checks: vec![Check::ErrorRatio(ErrorRatio::default())], ..Rule::default() };
        let sample = |s: u64| Sample { at_ms: s * 1000, baseline: Arm::of(50, 0), candidate: Arm::of(50, 20) };
        let report = judge(&rule, &(1..600).map(sample).collect::<Vec<_>>()).expect("a report");
        let data = json!({"of": "canary", "verdict": "fail", "reason": "", "report": report, "answers": null});
        let (ns, node) = (Name::default(), Name::from("canary"));
        let event = Event::Custom { ns, node, name: "verdict".into(), data };
        let text = verdicts(&[EventRow { seq: 1, at: chrono::DateTime::UNIX_EPOCH, event }]);
        assert!(text.contains("verdict on the canary at 00:00:00: fail") && text.contains("error_ratio"), "{text}");
        assert!(text.contains('█') && text.contains("40.000 %"), "{text}");
    }
}
