//! Tables and timelines.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};

use super::progress::seconds;
use crate::graph::{Event, EventRow};

/// Width of a timeline's bars, in characters.
const BAR: f64 = 40.0;

/// A plain table with a head.
pub fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    table
}

/// How long ago, in words.
pub fn ago(at: DateTime<Utc>) -> String {
    let seconds = (Utc::now() - at).num_seconds().max(0);
    match seconds {
        0..=59 => format!("{seconds} s ago"),
        60..=3599 => format!("{} min ago", seconds / 60),
        3600..=86_399 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// One stretch of time in which a node or an effect was at work.
struct Span {
    label: String,
    ended: DateTime<Utc>,
    took_ms: u64,
}

/// Where the time went: a bar for every node and every effect that took a while.
pub fn timeline(events: &[EventRow]) -> String {
    let spans: Vec<Span> = events.iter().filter_map(span).collect();
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return "nothing happened yet".to_owned() };
    let began = spans.iter().map(Span::began).min().unwrap_or(first.at).min(first.at);
    let whole = (last.at - began).num_milliseconds().max(1);
    let mut ordered: Vec<&Span> = spans.iter().collect();
    ordered.sort_by_key(|span| (span.began(), std::cmp::Reverse(span.took_ms)));
    let mut lines = Vec::new();
    for span in ordered {
        let from = share((span.began() - began).num_milliseconds(), whole);
        let width = share(i64::try_from(span.took_ms).unwrap_or(i64::MAX), whole)
            .max(1)
            .min(40_usize.saturating_sub(from).max(1));
        let bar = format!("{}{}", " ".repeat(from), "█".repeat(width));
        lines.push(format!("{:<26} {:>8.2} s  │{bar:<40}│", span.label, seconds(span.took_ms)));
    }
    let whole_ms = u64::try_from(whole).unwrap_or(0);
    lines.push(format!("{:<26} {:>8.2} s", "from first to last event", seconds(whole_ms)));
    lines.join("\n")
}

fn share(part: i64, whole: i64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "characters of a bar"
    )]
    let cells = (part.max(0) as f64 / whole as f64 * BAR).round() as usize;
    cells.min(40)
}

impl Span {
    fn began(&self) -> DateTime<Utc> {
        self.ended - chrono::Duration::milliseconds(i64::try_from(self.took_ms).unwrap_or(0))
    }
}

fn span(row: &EventRow) -> Option<Span> {
    match &row.event {
        Event::NodeFinished { node, duration_ms, .. } => {
            Some(Span { label: node.clone(), ended: row.at, took_ms: *duration_ms })
        }
        Event::EffectDone { effect, duration_ms, probed, .. } if *duration_ms >= 20 => {
            let how = if *probed { " (found done)" } else { "" };
            Some(Span { label: format!("  {effect}{how}"), ended: row.at, took_ms: *duration_ms })
        }
        _ => None,
    }
}

/// An event in one line.
pub fn event_line(row: &EventRow) -> String {
    let value = serde_json::to_value(&row.event).unwrap_or_default();
    let kind = value["type"].as_str().unwrap_or("event").to_owned();
    let rest: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| *key != "type" && !value.is_null() && value.as_str() != Some(""))
        .map(|(key, value)| match value.as_object().and_then(|o| o.get("message")).and_then(|m| m.as_str()) {
            Some(message) => format!("{key}={message:?}"),
            None => format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        })
        .collect();
    format!("{:>5} {} {kind:<18} {}", row.seq, row.at.format("%H:%M:%S%.3f"), rest.join(" "))
}
