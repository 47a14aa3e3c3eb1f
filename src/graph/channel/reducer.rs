//! Reducers: how a write is folded into the value that is there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kind;

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

/// How a channel folds writes into what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Fold {
    /// By its reducer.
    By(Reducer),
    /// As a topic: items behind the old ones, a list item by item.
    Topic,
}

impl Fold {
    /// What is folded into where nothing is there.
    pub fn initial(self) -> Value {
        match self {
            Self::By(reducer) => reducer.initial(),
            Self::Topic => Value::Array(Vec::new()),
        }
    }

    /// Folds `new` into `old`. An error names what cannot be folded.
    pub fn fold(self, old: &mut Value, new: Value) -> Result<(), String> {
        match (self, new) {
            (Self::By(reducer), new) => reducer.fold(old, new),
            (Self::Topic, Value::Array(items)) => {
                list(old, "a topic")?.extend(items);
                Ok(())
            }
            (Self::Topic, item) => {
                list(old, "a topic")?.push(item);
                Ok(())
            }
        }
    }

    /// Whether a fold into nothing is the written value itself, or the list of it.
    pub fn adds(self) -> bool {
        matches!(self, Self::By(Reducer::Append | Reducer::Merge) | Self::Topic)
    }
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
