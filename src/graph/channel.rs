//! Channels: the named fields of a graph's state, and how concurrent writes to one are folded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Failure, Name, State};

/// The JSON type that a channel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelType {
    /// Anything.
    Any,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// A map with text keys.
    Object,
}

impl ChannelType {
    /// Whether `value` is of this type.
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }

    /// The word a workflow file uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// How a write is folded into the value that is there. Semantics of LangGraph's `BinaryOperatorAggregate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reducer {
    /// Numbers: sum.
    Add,
    /// Lists: the new items behind the old ones.
    Append,
    /// Numbers: the larger.
    Max,
    /// Numbers: the smaller.
    Min,
    /// Objects: keys of the new one win.
    Merge,
    /// Lists: items that are not there yet, in order.
    Union,
}

impl Reducer {
    /// Whether it can fold what a channel of this type holds.
    pub fn folds(self, kind: ChannelType) -> bool {
        use ChannelType as T;
        match self {
            Self::Add | Self::Max | Self::Min => matches!(kind, T::Integer | T::Number | T::Any),
            Self::Append | Self::Union => matches!(kind, T::Array | T::Any),
            Self::Merge => matches!(kind, T::Object | T::Any),
        }
    }

    /// What a channel with this reducer holds before the first write.
    pub fn initial(self) -> Value {
        match self {
            Self::Add | Self::Max | Self::Min => Value::from(0),
            Self::Append | Self::Union => Value::Array(Vec::new()),
            Self::Merge => Value::Object(Map::new()),
        }
    }

    /// Folds `new` into `old`. An error names what the reducer cannot fold.
    pub fn fold(self, old: &mut Value, new: Value) -> Result<(), String> {
        match self {
            Self::Add => *old = add(old, &new)?,
            Self::Max => keep(old, new, std::cmp::Ordering::Greater)?,
            Self::Min => keep(old, new, std::cmp::Ordering::Less)?,
            Self::Append => list(old, "append")?.extend(items(new, "append")?),
            Self::Union => {
                let there = list(old, "union")?;
                for item in items(new, "union")? {
                    if !there.contains(&item) {
                        there.push(item);
                    }
                }
            }
            Self::Merge => match (old, new) {
                (Value::Object(old), Value::Object(new)) => old.extend(new),
                (_, new) => return Err(format!("merge needs objects, got {}", kind(&new))),
            },
        }
        Ok(())
    }
}

/// One channel of a graph's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The type of its value.
    #[serde(rename = "type")]
    pub kind: ChannelType,
    /// How writes are folded; none: the last value, and two writes in one superstep are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reducer: Option<Reducer>,
}

impl Channel {
    /// A channel that holds the last value written.
    pub fn last(kind: ChannelType) -> Self {
        Self { kind, reducer: None }
    }

    /// A channel whose writes are folded.
    pub fn reduced(kind: ChannelType, reducer: Reducer) -> Self {
        Self { kind, reducer: Some(reducer) }
    }
}

/// One write of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// The channel.
    pub channel: Name,
    /// What is written.
    pub value: Value,
    /// Replaces the value instead of folding (LangGraph's `Overwrite`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
}

impl Write {
    /// A plain write.
    pub fn new(channel: impl Into<Name>, value: Value) -> Self {
        Self { channel: channel.into(), value, overwrite: false }
    }
}

/// The state before anything was written: reducers' initial values.
pub fn initial(channels: &BTreeMap<Name, Channel>) -> State {
    channels.iter().filter_map(|(name, channel)| Some((name.clone(), channel.reducer?.initial()))).collect()
}

/// Applies the writes of one superstep, in order, to `state`. Fails on an undeclared channel, a wrong type, a second write to a
/// channel without a reducer, a second overwrite; `state` is then half-written and must be dropped.
pub fn apply_writes<'w>(
    channels: &BTreeMap<Name, Channel>,
    state: &mut State,
    writes: impl IntoIterator<Item = &'w Write>,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    for write in writes {
        let channel = channels.get(write.channel.as_str()).ok_or_else(|| undeclared(&write.channel, channels))?;
        match seen.how(channel, write)? {
            How::Skip => {}
            How::Set => {
                check_type(channel, write, &write.value)?;
                state.insert(write.channel.clone(), write.value.clone());
            }
            How::Fold(reducer) => {
                let old = state.get_or_insert_with(&write.channel, || reducer.initial());
                reducer.fold(old, write.value.clone()).map_err(|why| wrong_type(&write.channel, why))?;
                check_type(channel, write, old)?;
            }
        }
    }
    Ok(())
}

/// Fails as [`apply_writes`] would, without making the new state: what lists and objects hold is not copied.
pub fn check_writes<'w>(
    channels: &BTreeMap<Name, Channel>,
    state: &State,
    writes: impl IntoIterator<Item = &'w Write>,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    let mut folded: BTreeMap<&str, Value> = BTreeMap::new();
    for write in writes {
        let channel = channels.get(write.channel.as_str()).ok_or_else(|| undeclared(&write.channel, channels))?;
        match seen.how(channel, write)? {
            How::Skip => {}
            How::Set => {
                check_type(channel, write, &write.value)?;
                folded.insert(&write.channel, hollow(&write.value));
            }
            How::Fold(reducer) => {
                let first = || state.get(&write.channel).map_or_else(|| reducer.initial(), hollow);
                let old = folded.entry(&write.channel).or_insert_with(first);
                reducer.fold(old, hollow(&write.value)).map_err(|why| wrong_type(&write.channel, why))?;
                check_type(channel, write, old)?;
            }
        }
    }
    Ok(())
}

/// A value of the same type; a number as it is, because a sum may be too large.
fn hollow(value: &Value) -> Value {
    match value {
        Value::Array(_) => Value::Array(Vec::new()),
        Value::Object(_) => Value::Object(Map::new()),
        Value::String(_) => Value::String(String::new()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// What one write does to its channel.
enum How {
    Skip,
    Set,
    Fold(Reducer),
}

/// The channels that a superstep has written so far, and whether by an overwrite. Few: searched one by one.
#[derive(Default)]
struct Seen<'w>(Vec<(&'w str, bool)>);

impl<'w> Seen<'w> {
    fn how(&mut self, channel: &Channel, write: &'w Write) -> Result<How, Failure> {
        let name = write.channel.as_str();
        let before = self.0.iter_mut().find(|(seen, _)| *seen == name);
        let overwritten = before.as_ref().map(|(_, overwritten)| *overwritten);
        let how = match (channel.reducer, write.overwrite, overwritten) {
            (None, _, Some(_)) | (Some(_), true, Some(true)) => return Err(concurrent(name)),
            // An overwrite earlier in the superstep wins over folds (LangGraph: Overwrite bypasses the reducer).
            (Some(_), false, Some(true)) => return Ok(How::Skip),
            (None, _, None) | (Some(_), true, _) => How::Set,
            (Some(reducer), false, _) => How::Fold(reducer),
        };
        match before {
            Some(seen) => seen.1 = write.overwrite,
            None => self.0.push((name, write.overwrite)),
        }
        Ok(how)
    }
}

fn check_type(channel: &Channel, write: &Write, value: &Value) -> Result<(), Failure> {
    if channel.kind.admits(value) {
        return Ok(());
    }
    let why = format!("the channel holds {}, got {}", channel.kind.word(), kind(value));
    Err(wrong_type(&write.channel, why))
}

fn wrong_type(channel: &str, why: String) -> Failure {
    Failure::new("channel_type", format!("a write to channel `{channel}` has the wrong type"))
        .because(why)
        .hint("write the declared type, or declare the channel as `any`")
}

fn concurrent(channel: &str) -> Failure {
    Failure::new("invalid_concurrent_update", format!("channel `{channel}` was written twice in one superstep"))
        .because("it has no reducer, so neither write could win")
        .hint("give the channel a reducer, or let the nodes run one after the other")
}

fn undeclared(channel: &str, channels: &BTreeMap<Name, Channel>) -> Failure {
    let known: Vec<&str> = channels.keys().map(Name::as_str).collect();
    Failure::new("undeclared_channel", format!("channel `{channel}` is not declared"))
        .because(format!("declared are: {}", known.join(", ")))
        .hint("declare it, or mend the name")
}

fn add(a: &Value, b: &Value) -> Result<Value, String> {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.checked_add(b).map(Value::from).ok_or_else(|| format!("{a} + {b} does not fit 64 bits"));
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => Ok(Value::from(x + y)),
        _ => Err(format!("add needs numbers, got {} and {}", kind(a), kind(b))),
    }
}

fn keep(old: &mut Value, new: Value, when: std::cmp::Ordering) -> Result<(), String> {
    let order = match (new.as_i64(), old.as_i64()) {
        (Some(new), Some(old)) => new.cmp(&old),
        _ => match (new.as_f64(), old.as_f64()) {
            (Some(new), Some(old)) => new.total_cmp(&old),
            _ => return Err(format!("max and min need numbers, got {}", kind(&new))),
        },
    };
    if order == when {
        *old = new;
    }
    Ok(())
}

fn list<'v>(value: &'v mut Value, what: &str) -> Result<&'v mut Vec<Value>, String> {
    let found = kind(value);
    value.as_array_mut().ok_or_else(|| format!("{what} needs lists, got {found}"))
}

fn items(value: Value, what: &str) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(format!("{what} needs a list, got {}", kind(&other))),
    }
}

/// The JSON type of a value, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn channels() -> BTreeMap<Name, Channel> {
        BTreeMap::from([
            ("x".into(), Channel::last(ChannelType::Integer)),
            ("n".into(), Channel::reduced(ChannelType::Integer, Reducer::Add)),
            ("log".into(), Channel::reduced(ChannelType::Array, Reducer::Append)),
        ])
    }

    fn written(writes: &[Write]) -> Result<State, Failure> {
        let mut state = initial(&channels());
        apply_writes(&channels(), &mut state, writes).map(|()| state)
    }

    #[test]
    fn folds_in_order() {
        let state = written(&[
            Write::new("n", json!(2)),
            Write::new("log", json!(["a"])),
            Write::new("n", json!(3)),
            Write::new("log", json!(["b"])),
        ])
        .unwrap();
        assert_eq!(json!(state), json!({"n": 5, "log": ["a", "b"]}));
    }

    #[test]
    fn refuses_what_would_be_lost() {
        let twice = written(&[Write::new("x", json!(1)), Write::new("x", json!(2))]).unwrap_err();
        assert_eq!(twice.code, "invalid_concurrent_update");
        assert_eq!(written(&[Write::new("y", json!(1))]).unwrap_err().code, "undeclared_channel");
        assert_eq!(written(&[Write::new("x", json!("1"))]).unwrap_err().code, "channel_type");
        assert_eq!(written(&[Write::new("log", json!(1))]).unwrap_err().code, "channel_type");
    }

    #[test]
    fn what_is_only_checked_fails_alike() {
        let values = [json!(1), json!(i64::MAX), json!(1.5), json!("a"), json!(["a"]), json!({"k": 1}), json!(null)];
        let mut channels = channels();
        for (n, reducer) in [Reducer::Add, Reducer::Append, Reducer::Max, Reducer::Min, Reducer::Merge, Reducer::Union]
            .iter()
            .enumerate()
        {
            channels.insert(format!("any{n}").into(), Channel::reduced(ChannelType::Any, *reducer));
            channels.insert(format!("text{n}").into(), Channel::reduced(ChannelType::String, *reducer));
        }
        let all: Vec<Write> = channels
            .keys()
            .flat_map(|name| values.iter().map(|value| Write::new(name.clone(), value.clone())))
            .flat_map(|write| [write.clone(), Write { overwrite: true, ..write }])
            .collect();
        for first in &all {
            let mut state = initial(&channels);
            // What stands there may be of any type, where the channel allows it.
            let _ = apply_writes(&channels, &mut state, [&Write { overwrite: true, ..first.clone() }]);
            for second in all.iter().filter(|second| second.channel == first.channel) {
                let writes = [first.clone(), second.clone()];
                let checked = check_writes(&channels, &state, &writes);
                assert_eq!(checked, apply_writes(&channels, &mut state.clone(), &writes), "{writes:?}");
            }
        }
    }

    #[test]
    fn overwrite_bypasses_the_reducer() {
        let replace = |value| Write { channel: "n".into(), value, overwrite: true };
        let state = written(&[Write::new("n", json!(2)), replace(json!(7)), Write::new("n", json!(1))]).unwrap();
        assert_eq!(state["n"], json!(7));
        assert!(written(&[replace(json!(1)), replace(json!(2))]).is_err());
    }
}
