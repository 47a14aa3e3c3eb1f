//! How a checkpoint becomes a row: what changed since the row before it in its line, or everything (a snapshot is the changes since
//! nothing). Channels that changed alike in `values` and `written`, the usual case, are stored once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::json;
use crate::graph::{Change, Checkpoint, CheckpointId, Name, State, Task, TaskPath, Visits, apply_changes};

/// A [`Change`] that borrows; written the same way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum ChangeRef<'a> {
    Set(&'a Name, &'a Value),
    Append(&'a Name, &'a [Value]),
    Unset(&'a Name),
}

impl ChangeRef<'_> {
    /// About how long it is as text, as far as it matters whether that is more than `most`.
    fn weight(&self, most: usize) -> usize {
        match self {
            Self::Set(name, value) => name.len() + weight(value, most),
            Self::Append(name, items) => name.len() + all(items.iter(), most),
            Self::Unset(name) => name.len(),
        }
    }

    /// By how much it makes a state longer.
    fn growth(&self, before: &State, most: usize) -> isize {
        let old = if matches!(self, Self::Append(..)) { None } else { before.get(self.name()) };
        let new = if matches!(self, Self::Unset(_)) { 0 } else { self.weight(most) };
        new.cast_signed() - old.map_or(0, |old| weight(old, most)).cast_signed()
    }

    fn name(&self) -> &Name {
        match self {
            Self::Set(name, _) | Self::Append(name, _) | Self::Unset(name) => name,
        }
    }
}

/// A row's body as it is written, part by part.
struct Row<'t>(&'t mut Vec<u8>);

impl Row<'_> {
    fn part(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn serialize(&mut self, name: &str, part: &impl Serialize) -> serde_json::Result<()> {
        self.part(name);
        serde_json::to_writer(&mut *self.0, part)
    }

    /// Values may be long: [`json`] writes them.
    fn changes(&mut self, name: &str, changes: &[ChangeRef<'_>]) -> serde_json::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.part(name);
        for (n, change) in changes.iter().enumerate() {
            self.0.push(if n == 0 { b'[' } else { b',' });
            if let ChangeRef::Unset(name) = change {
                self.0.extend_from_slice(b"{\"unset\":");
                json::string(self.0, name)?;
                self.0.push(b'}');
                continue;
            }
            let set = matches!(change, ChangeRef::Set(..));
            self.0.extend_from_slice(if set { b"{\"set\":[" } else { b"[" });
            json::string(self.0, change.name())?;
            self.0.push(b',');
            match change {
                ChangeRef::Set(_, value) => json::value(self.0, value)?,
                ChangeRef::Append(_, items) => json::list(self.0, items)?,
                ChangeRef::Unset(_) => {}
            }
            self.0.extend_from_slice(if set { b"]}" } else { b"]" });
        }
        self.0.push(b']');
        Ok(())
    }

    fn end(self) {
        if self.0.is_empty() {
            self.0.push(b'{');
        }
        self.0.push(b'}');
    }
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
    both: Vec<Read>,
    #[serde(default)]
    values: Vec<Read>,
    #[serde(default)]
    written: Vec<Read>,
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

/// A change as it is stored: what is appended to a list, the usual case, as `[name, items]`; files of before have `{"append": …}`.
struct Read(Change);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ChangeVisitor).map(Self)
    }
}

struct ChangeVisitor;

impl<'de> Visitor<'de> for ChangeVisitor {
    type Value = Change;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Change, A::Error> {
        Change::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Change, A::Error> {
        let (name, items) = Deserialize::deserialize(SeqAccessDeserializer::new(seq))?;
        Ok(Change::Append(name, items))
    }
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<CheckpointId>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Writes the body of `now` as changes since `before` to `text`, and says by how many bytes the state has about grown; `None` when a node's count
/// disappeared, which changes cannot say, or when the text would have more than about `most` bytes.
pub(super) fn changes(
    before: &Checkpoint,
    now: &Checkpoint,
    most: usize,
    text: &mut Vec<u8>,
) -> Option<serde_json::Result<isize>> {
    if before.visits.iter().any(|(node, _)| !now.visits.contains(node)) {
        return None;
    }
    let values = since(&before.values, &now.values, |_| false);
    if values.iter().map(|change| change.weight(most)).sum::<usize>() > most {
        return None;
    }
    let grown = values.iter().map(|change| change.growth(&before.values, most)).sum();
    // What both share changed alike: it is compared once.
    let twin = |name: &Name| now.written.shares(name, &now.values) && before.written.shares(name, &before.values);
    let mut written = since(&before.written, &now.written, twin);
    written.extend(values.iter().filter(|change| !matches!(change, ChangeRef::Unset(_)) && twin(change.name())));
    let changed = |(node, count): &(&Name, u64)| before.visits.get(node) != *count;
    let visits: BTreeMap<&str, u64> = now.visits.iter().filter(changed).map(|(n, c)| (n.as_str(), c)).collect();
    let parent = if now.parent.as_ref() == Some(&before.id) { None } else { Some(now.parent.as_ref()) };
    let once_more = |(node, count): (&&str, &u64)| before.visits.get(node) + 1 == *count;
    let names: BTreeSet<&str> = now.frontier.iter().map(|task| task.node.as_str()).collect();
    let counted = names.len() == now.frontier.len() && names.iter().eq(visits.keys()) && visits.iter().all(once_more);
    let fork = (now.fork != before.fork).then_some(now.fork);
    Some(body(now, (parent, fork), values, written, visits, counted, text).map(|()| grown))
}

/// About how long a state is as text, as far as it matters whether that is more than `most`.
pub(super) fn size(state: &State, most: usize) -> usize {
    state.iter().map(|(name, value)| name.len() + weight(value, most)).sum()
}

/// Writes the body of `now` by itself to `text`.
pub(super) fn snapshot(now: &Checkpoint, text: &mut Vec<u8>) -> serde_json::Result<()> {
    let nothing = State::new();
    let all = |state| since(&nothing, state, |_| false);
    let visits = now.visits.iter().map(|(n, c)| (n.as_str(), c)).collect();
    let fork = (now.fork != 0).then_some(now.fork);
    body(now, (Some(now.parent.as_ref()), fork), all(&now.values), all(&now.written), visits, false, text)
}

fn body<'a>(
    now: &'a Checkpoint,
    (parent, fork): (Option<Option<&'a CheckpointId>>, Option<u32>),
    values: Vec<ChangeRef<'a>>,
    mut written: Vec<ChangeRef<'a>>,
    visits: BTreeMap<&'a str, u64>,
    counted: bool,
    text: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let (both, values): (Vec<_>, Vec<_>) = values.into_iter().partition(|change| written.contains(change));
    written.retain(|change| !both.contains(change));
    let due: Option<Vec<&str>> = now.frontier.iter().map(|task| plain(task, &now.visits)).collect();
    let frontier = if due.is_some() { &[] } else { now.frontier.as_slice() };
    let due = due.unwrap_or_default();
    let (visits, due, next) =
        if counted && frontier.is_empty() { (BTreeMap::new(), Vec::new(), due) } else { (visits, due, Vec::new()) };
    let (barriers, deferred) = (&now.barriers, &now.deferred);
    text.clear();
    let mut row = Row(text);
    if let Some(parent) = parent {
        row.serialize("parent", &parent)?;
    }
    if let Some(fork) = fork {
        row.serialize("fork", &fork)?;
    }
    row.changes("both", &both)?;
    row.changes("values", &values)?;
    row.changes("written", &written)?;
    if !visits.is_empty() {
        row.serialize("visits", &visits)?;
    }
    if !barriers.is_empty() {
        row.serialize("barriers", barriers)?;
    }
    if !deferred.is_empty() {
        row.serialize("deferred", deferred)?;
    }
    for (name, nodes) in [("due", &due), ("next", &next)] {
        if !nodes.is_empty() {
            row.serialize(name, nodes)?;
        }
    }
    if !frontier.is_empty() {
        row.serialize("frontier", &frontier)?;
    }
    row.end();
    Ok(())
}

/// The node's name, where the rest of the task follows from it.
fn plain<'a>(task: &'a Task, visits: &Visits) -> Option<&'a str> {
    let triggered = task.path == TaskPath::Pull(task.node.clone()) && task.input.is_none();
    (triggered && visits.get(&task.node) == task.visit).then_some(task.node.as_str())
}

/// [`Checkpoint::changes_since`] without its copies, and for `written` too.
fn since<'a>(before: &'a State, now: &'a State, leave_out: impl Fn(&Name) -> bool) -> Vec<ChangeRef<'a>> {
    let gone = before.keys().filter(|name| !now.contains_key(name)).map(ChangeRef::Unset);
    let changed = now.not_shared_with(before).filter(|(name, _)| !leave_out(name));
    gone.chain(changed.filter_map(|(name, now)| change(name, before.get(name), now))).collect()
}

fn weight(value: &Value, most: usize) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => all(items.iter(), most),
        Value::Object(keys) => keys.keys().map(String::len).sum::<usize>() + all(keys.values(), most),
    }
}

fn all<'a>(values: impl Iterator<Item = &'a Value>, most: usize) -> usize {
    let mut sum = 2;
    for value in values {
        sum += 1 + weight(value, most);
        if sum > most {
            break;
        }
    }
    sum
}

fn change<'a>(name: &'a Name, before: Option<&Value>, now: &'a Value) -> Option<ChangeRef<'a>> {
    match (before, now) {
        (Some(Value::Array(before)), Value::Array(items)) if !before.is_empty() && items.starts_with(before) => {
            let new = &items[before.len()..];
            (!new.is_empty()).then_some(ChangeRef::Append(name, new))
        }
        (Some(before), now) if before == now => None,
        _ => Some(ChangeRef::Set(name, now)),
    }
}

/// What changed alike is one value afterwards, and where it was one before, a list grows in its place.
fn apply_to_both(to: &mut Checkpoint, change: Change) {
    let name = match &change {
        Change::Set(name, _) | Change::Append(name, _) | Change::Unset(name) => Name::from(name),
    };
    let append = matches!(change, Change::Append(..));
    if append && !to.written.shares(&name, &to.values) {
        apply_changes(&mut to.values, vec![change.clone()]);
        apply_changes(&mut to.written, vec![change]);
        return;
    }
    if append {
        to.written.insert(name.clone(), Value::Null);
    }
    if matches!(change, Change::Unset(_)) {
        to.written.remove(&name);
    }
    apply_changes(&mut to.values, vec![change]);
    to.written.share(&name, &to.values);
}

impl Body {
    /// The same, of a line whose states do not matter.
    pub fn without_state(mut self) -> Self {
        (self.both, self.values, self.written) = (Vec::new(), Vec::new(), Vec::new());
        self
    }

    /// Turns the checkpoint before (for a snapshot: an empty one) into this row's.
    pub fn apply(mut self, to: &mut Checkpoint) {
        // The parent first: `to.id` is still the row before.
        to.parent = match self.parent.take() {
            Some(named) => named,
            None => Some(to.id.clone()),
        };
        to.barriers = std::mem::take(&mut self.barriers);
        to.deferred = std::mem::take(&mut self.deferred);
        to.frontier = std::mem::take(&mut self.frontier);
        let (due, next) = (std::mem::take(&mut self.due), self.next.clone());
        self.change(to);
        let visits = &to.visits;
        to.frontier.extend(due.into_iter().chain(next).map(|node| {
            let visit = visits.get(&node);
            Task { path: TaskPath::Pull(node.clone()), node, visit, input: None }
        }));
    }

    /// Only what the rows after this one build on: state, visits, branch.
    pub fn change(self, to: &mut Checkpoint) {
        to.fork = self.fork.unwrap_or(to.fork);
        self.both.into_iter().for_each(|change| apply_to_both(to, change.0));
        apply_changes(&mut to.values, self.values.into_iter().map(|change| change.0));
        apply_changes(&mut to.written, self.written.into_iter().map(|change| change.0));
        self.visits.into_iter().for_each(|(node, count)| to.visits.set(node, count));
        for node in &self.next {
            to.visits.count(node);
        }
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
            (json!({"a": [1], "b": 1}), json!({"a": [1]})),
            (json!({"a": [1], "c": {"x": 1}}), json!({"a": [1], "c": {"x": 2}})),
        ];
        for (before, now) in cases {
            let (before, now) = (state(before), state(now));
            let mut text = Vec::new();
            let mut row = Row(&mut text);
            row.changes("both", &since(&before, &now, |_| false))?;
            row.end();
            let ours: Body = serde_json::from_slice(&text)?;
            let checkpoint = crate::store::conformance::checkpoint("c", None, "", 0, now);
            let wanted = serde_json::to_value(checkpoint.changes_since(&before))?;
            let ours: Vec<Change> = ours.both.into_iter().map(|change| change.0).collect();
            assert_eq!(serde_json::to_value(ours)?, wanted);
        }
        // As files of before have it.
        let old: Body = serde_json::from_str(r#"{"both":[{"append":["a",[1,2]]},["b",[3]],{"unset":"c"}]}"#)?;
        let old: Vec<Change> = old.both.into_iter().map(|change| change.0).collect();
        assert_eq!(
            old,
            [
                Change::Append("a".into(), vec![json!(1), json!(2)]),
                Change::Append("b".into(), vec![json!(3)]),
                Change::Unset("c".into())
            ]
        );
        assert_eq!(since(&state(json!({"gone": 1})), &State::new(), |_| false), [ChangeRef::Unset(&"gone".into())]);
        Ok(())
    }
}
