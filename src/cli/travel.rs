//! `run state|history|update|fork|signal`: a run's state, and what is done to it from outside.

use serde_json::{Map, Value, json};

use super::out::{Out, pretty};
use super::run_args::{ForkArgs, HistoryArgs, PruneArgs, SignalArgs, StateArgs, UpdateArgs};
use super::runs::{object, parse};
use super::show::table;
use super::{Exit, Failed, answers, plain, prompt};
use crate::app::{App, HistoryFilter};
use crate::graph::{Checkpoint, Failure, Interrupt, StateSnapshot, StateUpdate, ThreadId};

/// The state of a run, as it is or as it was at a checkpoint.
pub async fn state(app: App, args: StateArgs, out: &Out) -> Result<Exit, Failed> {
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    let of = |failure: Failure| (failure, Some(id.clone()));
    let state = app.state(&id, args.checkpoint.as_deref()).await.map_err(of)?;
    out.data_of(&id, &state_value(&state), || state_text(&state))?;
    Ok(Exit::Done)
}

/// A run's checkpoints, newest first.
pub async fn history(app: App, args: HistoryArgs, out: &Out) -> Result<Exit, Failed> {
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok());
    let which = HistoryFilter { limit, before: args.before, source: args.source.map(Into::into) };
    let history = app.history(&id, &which).await.map_err(|f| (f, Some(id.clone())))?;
    let rows: Vec<Value> = history.iter().map(checkpoint_value).collect();
    out.data_of(&id, &rows, || {
        let mut lines = table(["checkpoint", "step", "source", "next", "values"]);
        for checkpoint in &history {
            let next: Vec<&str> = checkpoint.frontier.iter().map(|task| task.node.as_str()).collect();
            let values: String = json!(checkpoint.values).to_string().chars().take(60).collect();
            let source = json!(checkpoint.source).as_str().unwrap_or_default().to_owned();
            lines.add_row([checkpoint.id.to_string(), checkpoint.step.to_string(), source, next.join(", "), values]);
        }
        lines.to_string()
    })?;
    Ok(Exit::Done)
}

/// Changes a run's state as if its nodes had written it.
pub async fn update(app: App, args: UpdateArgs, out: &Out) -> Result<Exit, Failed> {
    let supersteps = match (&args.bulk, &args.values) {
        (Some(bulk), _) => supersteps(parse(bulk, "--bulk")?).map_err(plain)?,
        (None, values) => {
            let values = object(parse(values.as_deref().unwrap_or_default(), "--values")?, "--values")?;
            vec![vec![StateUpdate::new(values, args.as_node.as_deref().unwrap_or_default())]]
        }
    };
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    app.bulk_update(&id, &supersteps).await.map_err(|f| (f, Some(id.clone())))?;
    changed(&app, &id, out).await
}

fn supersteps(bulk: Value) -> Result<Vec<Vec<StateUpdate>>, Failure> {
    serde_json::from_value(bulk).map_err(|error| {
        Failure::new("bad_updates", "`--bulk` is no list of supersteps")
            .because(error.to_string())
            .hint("a list of lists: [[{\"values\": {\"x\": 1}, \"as_node\": \"plan\"}]]")
    })
}

/// Branches a run off one of its checkpoints.
pub async fn fork(app: App, args: ForkArgs, out: &Out) -> Result<Exit, Failed> {
    let values = args.values.as_deref().map_or(Ok(Value::Object(Map::new())), |text| parse(text, "--values"))?;
    let values = object(values, "--values")?;
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    let of = |failure: Failure| (failure, Some(id.clone()));
    app.fork(&id, &args.checkpoint, &values, args.as_node.as_deref()).await.map_err(of)?;
    changed(&app, &id, out).await
}

async fn changed(app: &App, id: &ThreadId, out: &Out) -> Result<Exit, Failed> {
    let state = app.state(id, None).await.map_err(|f| (f, Some(id.clone())))?;
    out.data_of(id, &state_value(&state), || format!("{}\n\ngo on: tidegate run continue {id}", state_text(&state)))?;
    Ok(Exit::Done)
}

/// Leaves a signal for a run.
pub async fn signal(app: App, args: SignalArgs, out: &Out) -> Result<Exit, Failed> {
    let value = args.value.as_deref().map_or(Ok(Value::Null), |text| parse(text, "--value"))?;
    let id = app.find_thread(&args.thread).await.map_err(plain)?.id;
    let seq = app.signal(&id, &args.name, value, &prompt::user()).await.map_err(|f| (f, Some(id.clone())))?;
    out.data_of(&id, &json!({"thread": id, "signal": args.name, "seq": seq}), || {
        format!("signal `{}` is number {seq} of run {id}", args.name)
    })?;
    Ok(Exit::Done)
}

/// Drops what is old.
pub async fn prune(app: App, args: PruneArgs, out: &Out) -> Result<Exit, Failed> {
    let thread = match &args.thread {
        Some(meant) => Some(app.find_thread(meant).await.map_err(plain)?.id),
        None => None,
    };
    let keep = args.keep.and_then(|keep| usize::try_from(keep).ok());
    let pruned = app.prune(thread, keep, args.ended, args.dry_run).await.map_err(plain)?;
    if args.vacuum {
        app.vacuum().await.map_err(plain)?;
    }
    let (threads, checkpoints) = (pruned.threads, pruned.checkpoints);
    out.data(&json!({"runs": threads, "checkpoints": checkpoints, "dry_run": args.dry_run}), || {
        let would = if args.dry_run { "would go" } else { "went" };
        format!("{threads} runs and {checkpoints} checkpoints {would}; the audit stays")
    })?;
    Ok(Exit::Done)
}

/// A run's state for machines.
pub fn state_value(state: &StateSnapshot) -> Value {
    let interrupts: Vec<Value> = state.interrupts.iter().map(asked_value).collect();
    json!({
        "thread": state.thread.id, "workflow": state.thread.workflow, "status": state.thread.status, "values": state.values,
        "next": state.next, "interrupts": interrupts, "error": state.thread.failure, "checkpoint": state.checkpoint.id,
        "wake": state.thread.wake.as_ref().map(|alarm| alarm.at),
    })
}

/// An open question for machines.
fn asked_value(asked: &Interrupt) -> Value {
    json!({
        "id": asked.id, "node": asked.key.node, "ns": asked.key.ns, "value": asked.value, "digest": asked.digest,
        "expires_at": asked.expires_at,
    })
}

/// One row of a history.
pub fn checkpoint_value(checkpoint: &Checkpoint) -> Value {
    let mut next: Vec<&str> = checkpoint.frontier.iter().map(|task| task.node.as_str()).collect();
    next.sort_unstable();
    json!({
        "checkpoint": checkpoint.id, "parent": checkpoint.parent, "step": checkpoint.step, "source": checkpoint.source,
        "values": checkpoint.values, "next": next, "at": checkpoint.at, "fork": checkpoint.fork,
    })
}

/// A run's state for people.
pub fn state_text(state: &StateSnapshot) -> String {
    let mut text = format!("thread {} ({}): {}", state.thread.id, state.thread.workflow, state.thread.status.word());
    if !state.next.is_empty() {
        text.push_str(&format!("\nnext: {}", state.next.join(", ")));
    }
    if let Some(alarm) = &state.thread.wake {
        text.push_str(&format!("\nsleeps until {}", alarm.at.format("%Y-%m-%d %H:%M:%S UTC")));
    }
    for asked in &state.interrupts {
        text.push_str(&format!("\nasks: {} ({}): {}", asked.id, answers::place(asked), asked.value));
    }
    match state.interrupts.len() {
        0 => {}
        1 => text.push_str(&format!("\nanswer: tidegate run resume {} --value JSON", state.thread.id)),
        _ => text.push_str(&format!("\nanswer: tidegate run resume {} --answers '{{\"ID\": …}}'", state.thread.id)),
    }
    text.push_str(&format!("\n{}", pretty(&state.values)));
    text
}
