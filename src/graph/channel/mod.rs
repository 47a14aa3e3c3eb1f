//! Channels: the named fields of a graph's state, how long each keeps a value, and how concurrent writes to one meet.

mod apply;
mod reducer;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Name, State};

pub(super) use apply::{apply_writes, check_writes, cleared, end_step};
pub(super) use reducer::Fold;
pub use reducer::Reducer;

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

/// How long a channel keeps a value, and how several writes of one superstep meet. Each is a channel class of LangGraph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelKind {
    /// The last value, until the next write; two writes in one superstep are an error (`LastValue`).
    #[default]
    LastValue,
    /// Writes are folded into the value (`BinaryOperatorAggregate`).
    Reduced(Reducer),
    /// A list of what was written; a list that is written is taken item by item (`Topic`).
    Topic {
        /// Keeps the items of earlier supersteps; otherwise each superstep begins with none.
        accumulate: bool,
    },
    /// A value that only the superstep after the write sees (`EphemeralValue`).
    Ephemeral {
        /// Two writes in one superstep are an error; otherwise the last one counts.
        guard: bool,
    },
    /// As ephemeral, but any number of writers, who are taken to agree: the last one counts (`AnyValue`).
    AnyValue,
    /// The last value, kept by the run alone: no checkpoint has it (`UntrackedValue`).
    Untracked {
        /// Two writes in one superstep are an error; otherwise the last one counts.
        guard: bool,
    },
}

impl ChannelKind {
    /// What it holds before the first write.
    pub fn initial(self) -> Option<Value> {
        match self {
            Self::Reduced(reducer) => Some(reducer.initial()),
            Self::LastValue | Self::Topic { .. } | Self::Ephemeral { .. } | Self::AnyValue | Self::Untracked { .. } => {
                None
            }
        }
    }

    /// How writes are folded into the value of earlier supersteps, where they are.
    pub(super) fn fold(self) -> Option<Fold> {
        match self {
            Self::Reduced(reducer) => Some(Fold::By(reducer)),
            Self::Topic { accumulate: true } => Some(Fold::Topic),
            Self::LastValue
            | Self::Topic { accumulate: false }
            | Self::Ephemeral { .. }
            | Self::AnyValue
            | Self::Untracked { .. } => None,
        }
    }

    /// Whether a second write in one superstep is an error.
    pub fn is_single(self) -> bool {
        match self {
            Self::LastValue | Self::Ephemeral { guard: true } | Self::Untracked { guard: true } => true,
            Self::Reduced(_)
            | Self::Topic { .. }
            | Self::Ephemeral { guard: false }
            | Self::AnyValue
            | Self::Untracked { guard: false } => false,
        }
    }

    /// Whether its value is gone after a superstep in which nothing was written to it.
    pub fn is_cleared(self) -> bool {
        match self {
            Self::Topic { accumulate: false } | Self::Ephemeral { .. } | Self::AnyValue => true,
            Self::LastValue | Self::Reduced(_) | Self::Topic { accumulate: true } | Self::Untracked { .. } => false,
        }
    }
}

/// One channel of a graph's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Declared", into = "Declared")]
pub struct Channel {
    /// The type of its value.
    pub value: ChannelType,
    /// How long it keeps a value, and how writes meet.
    pub kind: ChannelKind,
}

impl Channel {
    /// A channel that holds the last value written.
    pub fn last(value: ChannelType) -> Self {
        Self { value, kind: ChannelKind::LastValue }
    }

    /// A channel whose writes are folded.
    pub fn reduced(value: ChannelType, reducer: Reducer) -> Self {
        Self { value, kind: ChannelKind::Reduced(reducer) }
    }

    /// A channel that holds a list of what was written; `accumulate`: in all supersteps, not only in the last one.
    pub fn topic(accumulate: bool) -> Self {
        Self { value: ChannelType::Array, kind: ChannelKind::Topic { accumulate } }
    }

    /// A channel whose value only the next superstep sees.
    pub fn ephemeral(value: ChannelType) -> Self {
        Self { value, kind: ChannelKind::Ephemeral { guard: true } }
    }

    /// A channel to which several may write what is the same, for the next superstep.
    pub fn any_value(value: ChannelType) -> Self {
        Self { value, kind: ChannelKind::AnyValue }
    }

    /// A channel that no checkpoint has.
    pub fn untracked(value: ChannelType) -> Self {
        Self { value, kind: ChannelKind::Untracked { guard: true } }
    }

    /// The same, where it is ephemeral or untracked, but with any number of writers in a superstep: the last one counts.
    #[must_use]
    pub fn unguarded(self) -> Self {
        let kind = match self.kind {
            ChannelKind::Ephemeral { .. } => ChannelKind::Ephemeral { guard: false },
            ChannelKind::Untracked { .. } => ChannelKind::Untracked { guard: false },
            other @ (ChannelKind::LastValue
            | ChannelKind::Reduced(_)
            | ChannelKind::Topic { .. }
            | ChannelKind::AnyValue) => other,
        };
        Self { kind, ..self }
    }

    /// Why this type of value cannot be kept in this way, where it cannot.
    pub fn misfit(&self) -> Option<String> {
        use ChannelType as T;
        let (fits, what) = match self.kind {
            ChannelKind::Reduced(Reducer::Add | Reducer::Max | Reducer::Min) => {
                (matches!(self.value, T::Integer | T::Number | T::Any), "its reducer cannot fold")
            }
            ChannelKind::Reduced(Reducer::Append | Reducer::Union) => {
                (matches!(self.value, T::Array | T::Any), "its reducer cannot fold")
            }
            ChannelKind::Reduced(Reducer::Merge) => {
                (matches!(self.value, T::Object | T::Any), "its reducer cannot fold")
            }
            ChannelKind::Topic { .. } => (matches!(self.value, T::Array | T::Any), "a topic cannot: it is a list"),
            ChannelKind::LastValue
            | ChannelKind::Ephemeral { .. }
            | ChannelKind::AnyValue
            | ChannelKind::Untracked { .. } => (true, ""),
        };
        (!fits).then(|| format!("holds {}, which {what}", self.value.word()))
    }

    /// Whether one write of this value could be taken, whatever is there.
    pub fn admits(&self, value: &Value) -> bool {
        match self.kind {
            ChannelKind::Reduced(_) | ChannelKind::Topic { .. } => true,
            ChannelKind::LastValue
            | ChannelKind::Ephemeral { .. }
            | ChannelKind::AnyValue
            | ChannelKind::Untracked { .. } => self.value.admits(value),
        }
    }
}

/// A channel as a workflow file declares it, and as it stands in a graph's fingerprint.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Declared {
    /// The type of its value.
    #[serde(rename = "type")]
    value: ChannelType,
    /// How writes are folded; none: the last value, and two writes in one superstep are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reducer: Option<Reducer>,
    /// How long it keeps a value; none: until the next write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Word>,
    /// `topic`: keeps the items of earlier supersteps (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accumulate: Option<bool>,
    /// `ephemeral`, `untracked`: two writes in one superstep are an error (true); otherwise the last one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<bool>,
}

/// A file's word for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// A list of what was written in the superstep before, or in all with `accumulate`.
    Topic,
    /// Seen by the next superstep only.
    Ephemeral,
    /// Seen by the next superstep only; any number of writers who agree.
    Any,
    /// Kept by the run alone, in no checkpoint.
    Untracked,
}

impl TryFrom<Declared> for Channel {
    type Error = String;

    fn try_from(declared: Declared) -> Result<Self, String> {
        let Declared { value, reducer, kind, accumulate, guard } = declared;
        if accumulate.is_some() && kind != Some(Word::Topic) {
            return Err("`accumulate` is for channels of `kind: topic`".to_owned());
        }
        if guard.is_some() && !matches!(kind, Some(Word::Ephemeral | Word::Untracked)) {
            return Err("`guard` is for channels of `kind: ephemeral` and `kind: untracked`".to_owned());
        }
        let kind = match (kind, reducer) {
            (Some(_), Some(_)) => return Err("a channel has a `kind` or a `reducer`, not both".to_owned()),
            (None, None) => ChannelKind::LastValue,
            (None, Some(reducer)) => ChannelKind::Reduced(reducer),
            (Some(Word::Topic), None) => ChannelKind::Topic { accumulate: accumulate.unwrap_or(false) },
            (Some(Word::Ephemeral), None) => ChannelKind::Ephemeral { guard: guard.unwrap_or(true) },
            (Some(Word::Any), None) => ChannelKind::AnyValue,
            (Some(Word::Untracked), None) => ChannelKind::Untracked { guard: guard.unwrap_or(true) },
        };
        Ok(Self { value, kind })
    }
}

impl From<Channel> for Declared {
    fn from(channel: Channel) -> Self {
        let plain = Self { value: channel.value, reducer: None, kind: None, accumulate: None, guard: None };
        let unguarded = |guard: bool| (!guard).then_some(false);
        match channel.kind {
            ChannelKind::LastValue => plain,
            ChannelKind::Reduced(reducer) => Self { reducer: Some(reducer), ..plain },
            ChannelKind::Topic { accumulate } => {
                Self { kind: Some(Word::Topic), accumulate: accumulate.then_some(true), ..plain }
            }
            ChannelKind::Ephemeral { guard } => Self { kind: Some(Word::Ephemeral), guard: unguarded(guard), ..plain },
            ChannelKind::AnyValue => Self { kind: Some(Word::Any), ..plain },
            ChannelKind::Untracked { guard } => Self { kind: Some(Word::Untracked), guard: unguarded(guard), ..plain },
        }
    }
}

impl JsonSchema for Channel {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Channel".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Declared::json_schema(generator)
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
    channels.iter().filter_map(|(name, channel)| Some((name.clone(), channel.kind.initial()?))).collect()
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
