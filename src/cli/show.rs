//! Tables and lines.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};

use crate::graph::EventRow;

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
