//! What happened in a run, and why: made of what is recorded.

use super::looks::trouble;
use super::told::{Decision, Explained, Step, Verdict};
use crate::app::App;
use crate::graph::{Event, EventRow, Failure, Interrupt, Step as Superstep, StoreError, Thread};

/// Most steps that are told: a version on trial takes one every few minutes, for days.
const MOST_STEPS: usize = 300;
/// Most verdicts, the newest.
const MOST_VERDICTS: usize = 50;

/// Explains a run.
pub async fn explain(app: &App, thread: &Thread) -> Result<Explained, Failure> {
    let of = |e: StoreError| e.failure();
    let path = app.path(thread).await?;
    let events = app.store().events(&thread.id, 0, usize::MAX).await.map_err(of)?;
    let asked = app.store().interrupts(Some(&thread.id), false).await.map_err(of)?;
    let latest = app.store().latest(&thread.id, "").await.map_err(of)?;
    let value = |name: &str| latest.as_ref().and_then(|checkpoint| checkpoint.values.get(name));
    let read = |name: &str, key: &str| value(name).map(|value| value[key].clone()).unwrap_or_default();
    let mut steps = Vec::new();
    flatten(&path, "", &mut steps);
    let left_out = steps.len().saturating_sub(MOST_STEPS);
    let mut verdicts: Vec<Verdict> = events.iter().filter_map(verdict).collect();
    verdicts.drain(..verdicts.len().saturating_sub(MOST_VERDICTS));
    Ok(Explained {
        thread_id: thread.id.to_string(),
        workflow: thread.workflow.clone(),
        status: thread.status,
        created_at: thread.created_at,
        reasons: serde_json::from_value(read("plan", "reasons")).unwrap_or_default(),
        steps: steps.split_off(left_out),
        left_out,
        checks: serde_json::from_value(read("validated", "checks")).unwrap_or_default(),
        verdicts,
        decisions: asked.iter().map(decision).collect(),
        undone: events.iter().filter_map(undone).collect(),
        failure: trouble(thread),
    })
}

/// The nodes of a path in order, what ran inside one behind it.
fn flatten(path: &[Superstep], inside: &str, steps: &mut Vec<Step>) {
    for superstep in path {
        for visit in &superstep.nodes {
            let node = format!("{inside}{}", visit.node);
            steps.push(Step {
                step: superstep.step + 1,
                node: node.clone(),
                visit: visit.visit,
                state: visit.state.word().to_owned(),
                at: superstep.at,
                took_ms: visit.took_ms,
                waited_ms: visit.waited_ms,
                failures: visit.failures,
                failure: visit.failure.clone(),
            });
            visit.inner.iter().for_each(|line| flatten(line, &format!("{node}/"), steps));
        }
    }
}

fn verdict(row: &EventRow) -> Option<Verdict> {
    let Event::Custom { name, data, .. } = &row.event else { return None };
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    (name == "verdict").then(|| Verdict {
        at: row.at,
        of: text("of"),
        verdict: text("verdict"),
        reason: text("reason"),
    })
}

fn decision(asked: &Interrupt) -> Decision {
    let answer = asked.answer.as_ref();
    let text = |key: &str| answer.and_then(|answer| answer.value[key].as_str()).map(str::to_owned);
    Decision {
        question_id: asked.id.to_string(),
        node: asked.key.node.to_string(),
        asked_at: asked.asked_at,
        by: answer.map(|answer| answer.by.clone()),
        via: answer.map(|answer| answer.via.clone()),
        at: answer.map(|answer| answer.at),
        verdict: text("verdict"),
        reason: text("reason"),
    }
}

fn undone(row: &EventRow) -> Option<String> {
    match &row.event {
        Event::EffectUndone { effect, .. } => Some(effect.clone()),
        _ => None,
    }
}
