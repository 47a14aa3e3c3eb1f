//! How a checkpoint becomes a row: what changed since the row before it in its line, or everything (a snapshot is the changes since
//! nothing). Channels that changed alike in `values` and `written`, the usual case, are stored once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::graph::{Change, Checkpoint, CheckpointId, Name, State, Task, TaskPath, apply_changes};

/// A [`Change`] that borrows; serialised the same way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ChangeRef<'a> {
    Set(&'a str, &'a Value),
    Append(&'a str, &'a [Value]),
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Option<&'a CheckpointId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    both: Vec<ChangeRef<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<ChangeRef<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    written: Vec<ChangeRef<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    visits: BTreeMap<&'a str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    barriers: &'a BTreeMap<Name, BTreeSet<Name>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    deferred: &'a BTreeSet<Name>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    due: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[Task]>::is_empty")]
    frontier: &'a [Task],
}

/// A row's body as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    /// Absent: the row before; null: none.
    #[serde(default, deserialize_with = "present")]
    parent: Option<Option<CheckpointId>>,
    /// Absent: as in the row before; in a snapshot: 0.
    #[serde(default)]
    fork: Option<u32>,
    #[serde(default)]
    both: Vec<Change>,
    #[serde(default)]
    values: Vec<Change>,
    #[serde(default)]
    written: Vec<Change>,
    #[serde(default)]
    visits: BTreeMap<Name, u64>,
    #[serde(default)]
    barriers: BTreeMap<Name, BTreeSet<Name>>,
    #[serde(default)]
    deferred: BTreeSet<Name>,
    /// The frontier, where it is nothing but triggered nodes (the usual case): their names.
    #[serde(default)]
    due: Vec<Name>,
    /// The same, where each of them is due once more than before and `visits` need not say so.
    #[serde(default)]
    next: Vec<Name>,
    #[serde(default)]
    frontier: Vec<Task>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<CheckpointId>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// The body of `now` as changes since `before`; `None` when something disappeared, which changes cannot say.
pub(super) fn changes(before: &Checkpoint, now: &Checkpoint) -> Option<serde_json::Result<String>> {
    if before.visits.keys().any(|node| !now.visits.contains_key(node)) {
        return None;
    }
    let values = since(&before.values, &now.values)?;
    let written = since(&before.written, &now.written)?;
    let changed = |(node, count): &(&Name, &u64)| before.visits.get(*node) != Some(*count);
    let visits: BTreeMap<&str, u64> = now.visits.iter().filter(changed).map(|(n, c)| (n.as_str(), *c)).collect();
    let parent = if now.parent.as_ref() == Some(&before.id) { None } else { Some(now.parent.as_ref()) };
    let once_more = |(node, count): (&&str, &u64)| before.visits.get(*node).copied().unwrap_or(0) + 1 == *count;
    let names: BTreeSet<&str> = now.frontier.iter().map(|task| task.node.as_str()).collect();
    let counted = names.len() == now.frontier.len() && names.iter().eq(visits.keys()) && visits.iter().all(once_more);
    let fork = (now.fork != before.fork).then_some(now.fork);
    Some(body(now, (parent, fork), values, written, visits, counted))
}

/// The body of `now` by itself.
pub(super) fn snapshot(now: &Checkpoint) -> serde_json::Result<String> {
    let nothing = State::new();
    let all = |state| since(&nothing, state).unwrap_or_default();
    let visits = now.visits.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let fork = (now.fork != 0).then_some(now.fork);
    body(now, (Some(now.parent.as_ref()), fork), all(&now.values), all(&now.written), visits, false)
}

fn body<'a>(
    now: &'a Checkpoint,
    (parent, fork): (Option<Option<&'a CheckpointId>>, Option<u32>),
    values: Vec<ChangeRef<'a>>,
    mut written: Vec<ChangeRef<'a>>,
    visits: BTreeMap<&'a str, u64>,
    counted: bool,
) -> serde_json::Result<String> {
    let (both, values): (Vec<_>, Vec<_>) = values.into_iter().partition(|change| written.contains(change));
    written.retain(|change| !both.contains(change));
    let due: Option<Vec<&str>> = now.frontier.iter().map(|task| plain(task, &now.visits)).collect();
    let frontier = if due.is_some() { &[] } else { now.frontier.as_slice() };
    let due = due.unwrap_or_default();
    let (visits, due, next) =
        if counted && frontier.is_empty() { (BTreeMap::new(), Vec::new(), due) } else { (visits, due, Vec::new()) };
    let (barriers, deferred) = (&now.barriers, &now.deferred);
    let row = Written { parent, fork, both, values, written, visits, barriers, deferred, due, next, frontier };
    serde_json::to_string(&row)
}

/// The node's name, where the rest of the task follows from it.
fn plain<'a>(task: &'a Task, visits: &BTreeMap<Name, u64>) -> Option<&'a str> {
    let triggered = task.path == TaskPath::Pull(task.node.clone()) && task.input.is_none();
    (triggered && visits.get(&task.node) == Some(&task.visit)).then_some(task.node.as_str())
}

/// [`Checkpoint::changes_since`] without its copies, and for `written` too.
fn since<'a>(before: &State, now: &'a State) -> Option<Vec<ChangeRef<'a>>> {
    if before.keys().any(|name| !now.contains_key(name)) {
        return None;
    }
    Some(now.not_shared_with(before).filter_map(|(name, now)| change(name, before.get(name), now)).collect())
}

fn change<'a>(name: &'a str, before: Option<&Value>, now: &'a Value) -> Option<ChangeRef<'a>> {
    match (before, now) {
        (Some(Value::Array(before)), Value::Array(items)) if !before.is_empty() && items.starts_with(before) => {
            let new = &items[before.len()..];
            (!new.is_empty()).then_some(ChangeRef::Append(name, new))
        }
        (Some(before), now) if before == now => None,
        _ => Some(ChangeRef::Set(name, now)),
    }
}

impl Body {
    /// Turns the checkpoint before (for a snapshot: an empty one) into this row's.
    pub fn apply(self, to: &mut Checkpoint) {
        // The parent first: `to.id` is still the row before.
        to.parent = match self.parent {
            Some(named) => named,
            None => Some(to.id.clone()),
        };
        to.fork = self.fork.unwrap_or(to.fork);
        apply_changes(&mut to.values, self.both.clone());
        apply_changes(&mut to.written, self.both);
        apply_changes(&mut to.values, self.values);
        apply_changes(&mut to.written, self.written);
        to.visits.extend(self.visits);
        for node in &self.next {
            *to.visits.entry(node.clone()).or_default() += 1;
        }
        to.barriers = self.barriers;
        to.deferred = self.deferred;
        to.frontier = self.frontier;
        let visits = &to.visits;
        to.frontier.extend(self.due.into_iter().chain(self.next).map(|node| {
            let visit = visits.get(&node).copied().unwrap_or_default();
            Task { path: TaskPath::Pull(node.clone()), node, visit, input: None }
        }));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(value: Value) -> State {
        value.as_object().map(|map| map.clone().into_iter().collect()).unwrap_or_default()
    }

    #[test]
    fn changes_are_the_engines() -> serde_json::Result<()> {
        let cases = [
            (json!({}), json!({"a": [], "b": 1})),
            (json!({"a": []}), json!({"a": [1]})),
            (json!({"a": [1], "b": 2}), json!({"a": [1, 2.5], "b": 2})),
            (json!({"a": [1, 2]}), json!({"a": [2]})),
            (json!({"a": [1], "c": {"x": 1}}), json!({"a": [1], "c": {"x": 2}})),
        ];
        for (before, now) in cases {
            let (before, now) = (state(before), state(now));
            let ours = serde_json::to_value(since(&before, &now))?;
            let checkpoint = crate::store::conformance::checkpoint("c", None, "", 0, now);
            assert_eq!(ours, serde_json::to_value(checkpoint.changes_since(&before))?);
        }
        assert_eq!(since(&state(json!({"gone": 1})), &State::new()), None);
        Ok(())
    }
}
