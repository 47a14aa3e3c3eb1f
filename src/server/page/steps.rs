//! The way that a run took, as rows of a table.

use chrono::{DateTime, Utc};

use super::words::When;
use crate::graph::{Step, Visit, VisitState, length};

/// Most rows; of a longer run the newest.
const MOST: usize = 300;

/// A node in a superstep.
pub(super) struct StepLine {
    pub number: i64,
    /// How deep in subgraphs, as a class.
    pub class: String,
    pub node: String,
    pub state_class: &'static str,
    pub mark: &'static str,
    pub word: &'static str,
    pub took: String,
    pub waited: String,
    pub notes: String,
    pub at: When,
}

/// The rows, and how many older ones are left out.
pub(super) fn lines(path: &[Step], now: DateTime<Utc>) -> (Vec<StepLine>, usize) {
    let mut all = Vec::new();
    add(path, 0, now, &mut all);
    let left_out = all.len().saturating_sub(MOST);
    all.drain(..left_out);
    (all, left_out)
}

/// The nodes at which a run stands, innermost first.
pub(super) fn here(path: &[Step]) -> Vec<(String, &'static str)> {
    let Some(last) = path.last() else { return Vec::new() };
    let mut found = Vec::new();
    for visit in last.nodes.iter().filter(|visit| !visit.state.is_over()) {
        let inner: Vec<_> = visit.inner.iter().flat_map(|inner| here(inner)).collect();
        if inner.is_empty() {
            found.push((visit.node.to_string(), visit.state.word()));
        } else {
            found.extend(inner);
        }
    }
    found
}

fn add(path: &[Step], depth: usize, now: DateTime<Utc>, all: &mut Vec<StepLine>) {
    for step in path {
        for visit in &step.nodes {
            all.push(line(step, visit, depth, now));
            visit.inner.iter().for_each(|inner| add(inner, depth + 1, now, all));
        }
    }
}

fn line(step: &Step, visit: &Visit, depth: usize, now: DateTime<Utc>) -> StepLine {
    let (state_class, mark) = match visit.state {
        VisitState::Due => ("now", "○"),
        VisitState::Running => ("now", "▸"),
        VisitState::Asks => ("waits", "?"),
        VisitState::Sleeps => ("now", "◷"),
        VisitState::Done | VisitState::Cached => ("good", "✓"),
        VisitState::Failed => ("bad", "✗"),
        VisitState::Handled => ("waits", "↷"),
        VisitState::Stopped | VisitState::Passed => ("off", "–"),
    };
    let again = if visit.visit > 1 { format!(" #{}", visit.visit) } else { String::new() };
    let items = if visit.tasks > 1 { format!(" ×{}", visit.tasks) } else { String::new() };
    let time = |ms: u64| if ms > 0 { length(ms) } else { String::new() };
    StepLine {
        number: step.step + 1,
        class: format!("depth-{}", depth.min(3)),
        node: format!("{}{again}{items}", visit.node),
        state_class,
        mark,
        word: visit.state.word(),
        took: time(visit.took_ms),
        waited: time(visit.waited_ms),
        notes: notes(visit),
        at: When::at(step.at, now),
    }
}

fn notes(visit: &Visit) -> String {
    let mut notes = Vec::new();
    if let Some(code) = &visit.failure {
        notes.push(match (&visit.handler, visit.state, visit.failures) {
            (Some(handler), ..) => format!("{code}, handled by {handler}"),
            (None, VisitState::Done, times) => format!("after it failed {times} times with {code}"),
            (None, ..) => code.clone(),
        });
    }
    if !visit.undone.is_empty() {
        notes.push(format!("undone: {}", visit.undone.join(", ")));
    }
    notes.join("; ")
}
