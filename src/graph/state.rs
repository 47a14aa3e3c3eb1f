//! The state: the values of a graph's channels. A copy shares everything with its original until one of them is changed, because every
//! superstep keeps one and most channels do not change in it.

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Name;

/// The values of all channels that have one, by name.
#[derive(Debug, Clone, Default)]
pub struct State(Arc<[Pair]>);

type Pair = (Name, Kept);

/// As many pairs as are looked through one by one before they are searched.
const FEW: usize = 16;

/// A value: what is as cheap to copy as to share lies in place.
#[derive(Debug, Clone)]
enum Kept {
    Here(Value),
    Shared(Arc<Value>),
}

impl Kept {
    fn value(&self) -> &Value {
        match self {
            Self::Here(value) => value,
            Self::Shared(value) => value,
        }
    }

    /// To be changed; copied first if another state shares it.
    fn value_mut(&mut self) -> &mut Value {
        match self {
            Self::Here(value) => value,
            Self::Shared(value) => Arc::make_mut(value),
        }
    }

    /// Whether both are certainly the same: what is large is not compared.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here(one), Self::Here(other)) => one == other,
            (Self::Shared(one), Self::Shared(other)) => Arc::ptr_eq(one, other),
            (Self::Here(_), Self::Shared(_)) | (Self::Shared(_), Self::Here(_)) => false,
        }
    }
}

impl From<Value> for Kept {
    fn from(value: Value) -> Self {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Here(value),
            Value::String(_) | Value::Array(_) | Value::Object(_) => Self::Shared(Arc::new(value)),
        }
    }
}

fn shown(pair: &Pair) -> (&Name, &Value) {
    (&pair.0, pair.1.value())
}

impl State {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn at(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(key, _)| key.as_str().cmp(name))
    }

    /// The same for a name that is nearly always a copy of the one in the state: then no texts are compared.
    fn place(&self, name: &Name) -> Result<usize, usize> {
        let copy = self.0.iter().take(FEW).position(|(key, _)| key.is_copy_of(name));
        copy.map_or_else(|| self.0.binary_search_by(|(key, _)| key.cmp(name)), Ok)
    }

    /// A channel's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.at(name).ok().map(|at| self.0[at].1.value())
    }

    /// A channel's value, to be changed; it is copied first if another state shares it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.at(name).ok()?;
        Some(Arc::make_mut(&mut self.0)[at].1.value_mut())
    }

    /// A channel's value, to be changed; made if there is none.
    pub fn get_or_insert_with(&mut self, name: &Name, make: impl FnOnce() -> Value) -> &mut Value {
        let at = self.place(name).unwrap_or_else(|at| {
            self.insert_at(at, (name.clone(), make().into()));
            at
        });
        Arc::make_mut(&mut self.0)[at].1.value_mut()
    }

    /// Sets a channel's value.
    pub fn insert(&mut self, name: impl Into<Name>, value: Value) {
        self.set(name.into(), value.into());
    }

    fn set(&mut self, name: Name, value: Kept) {
        match self.place(&name) {
            Ok(at) => self.set_at(at, value),
            Err(at) => self.insert_at(at, (name, value)),
        }
    }

    fn set_at(&mut self, at: usize, value: Kept) {
        match Arc::get_mut(&mut self.0) {
            Some(pairs) => pairs[at].1 = value,
            None => {
                // The one that goes is not copied first.
                let mut value = Some(value);
                let pair = |(n, (name, old)): (usize, &Pair)| {
                    let value = if n == at { value.take() } else { None };
                    (name.clone(), value.unwrap_or_else(|| old.clone()))
                };
                self.0 = self.0.iter().enumerate().map(pair).collect();
            }
        }
    }

    fn insert_at(&mut self, at: usize, pair: Pair) {
        let (before, after) = self.0.split_at(at);
        self.0 = before.iter().cloned().chain([pair]).chain(after.iter().cloned()).collect();
    }

    /// Takes a channel's value away.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.at(name) {
            self.0 = self.0[..at].iter().chain(&self.0[at + 1..]).cloned().collect();
        }
    }

    /// Whether a channel's value is the very same as in `other`.
    pub fn shares(&self, name: &Name, other: &State) -> bool {
        match (self.place(name), other.place(name)) {
            (Ok(here), Ok(there)) => self.0[here].1.is_same(&other.0[there].1),
            _ => false,
        }
    }

    /// Sets a channel's value to that of `from`, without a copy.
    pub fn share(&mut self, name: &Name, from: &State) {
        if let Ok(at) = from.place(name) {
            self.set(name.clone(), from.0[at].1.clone());
        }
    }

    /// Whether a channel has a value.
    pub fn contains_key(&self, name: &str) -> bool {
        self.at(name).is_ok()
    }

    /// Names of the channels that have a value, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Channels with their values, by name.
    pub fn iter(&self) -> Values<'_> {
        Values(self.0.iter())
    }

    /// Channels that are not certainly the same as in `before`: those that it shares are left out without being compared.
    pub fn not_shared_with<'s>(&'s self, before: &State) -> impl Iterator<Item = (&'s Name, &'s Value)> {
        let shared = move |pair: &&Pair| before.place(&pair.0).is_ok_and(|at| before.0[at].1.is_same(&pair.1));
        let all = Arc::ptr_eq(&self.0, &before.0);
        self.0.iter().filter(move |pair| !all && !shared(pair)).map(shown)
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Pair, &Pair)| a.0 == b.0 && (a.1.is_same(&b.1) || a.1.value() == b.1.value());
        Arc::ptr_eq(&self.0, &other.0) || self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(same)
    }
}

impl std::ops::Index<&str> for State {
    type Output = Value;

    /// As [`Value`]'s index: null where there is nothing.
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

/// Channels with their values, by name.
#[derive(Debug, Clone)]
pub struct Values<'s>(std::slice::Iter<'s, Pair>);

impl<'s> Iterator for Values<'s> {
    type Item = (&'s Name, &'s Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(shown)
    }
}

impl<'s> IntoIterator for &'s State {
    type Item = (&'s Name, &'s Value);
    type IntoIter = Values<'s>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for State {
    type Item = (Name, Value);
    type IntoIter = std::vec::IntoIter<(Name, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        let owned: Vec<(Name, Value)> = self.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        owned.into_iter()
    }
}

impl<N: Into<Name>, const L: usize> From<[(N, Value); L]> for State {
    fn from(pairs: [(N, Value); L]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<N: Into<Name>> FromIterator<(N, Value)> for State {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(pairs: I) -> Self {
        let mut all: Vec<Pair> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        // Of two of a name the last one counts; the sort kept their order.
        all.dedup_by(|later, earlier| {
            let twice = later.0 == earlier.0;
            if twice {
                std::mem::swap(later, earlier);
            }
            twice
        });
        Self(all.into())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in self {
            map.serialize_entry(name.as_str(), value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Map::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_is_its_own() {
        let one: State = [("b", json!([1])), ("a", json!("x"))].into_iter().collect();
        let mut two = one.clone();
        two.get_mut("b").and_then(Value::as_array_mut).unwrap().push(json!(2));
        two.insert("c", json!(null));
        assert_eq!(json!(one), json!({"a": "x", "b": [1]}));
        assert_eq!(json!(two), json!({"a": "x", "b": [1, 2], "c": null}));
        assert_eq!(two.not_shared_with(&one).map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(one.clone().not_shared_with(&one).count(), 0);
        assert_eq!(one, serde_json::from_value(json!(one)).unwrap());
        assert_ne!(one, two);
        assert_eq!(one["nothing"], Value::Null);
    }
}
