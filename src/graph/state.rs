//! The state: the values of a graph's channels. A copy shares everything with its original until one of them is changed, because every
//! superstep keeps one and most channels do not change in it.

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Name;

/// The values of all channels that have one, by name.
#[derive(Debug, Clone, Default)]
pub struct State(Arc<Vec<(Name, Arc<Value>)>>);

type Pair = (Name, Arc<Value>);
type Shown = for<'a> fn(&'a Pair) -> (&'a Name, &'a Value);

fn shown(pair: &Pair) -> (&Name, &Value) {
    (&pair.0, &pair.1)
}

impl State {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn at(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(key, _)| key.as_str().cmp(name))
    }

    /// A channel's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.at(name).ok().map(|at| &*self.0[at].1)
    }

    /// A channel's value, to be changed; it is copied first if another state shares it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.at(name).ok()?;
        Some(Arc::make_mut(&mut Arc::make_mut(&mut self.0)[at].1))
    }

    /// A channel's value, to be changed; made if there is none.
    pub fn get_or_insert_with(&mut self, name: &Name, make: impl FnOnce() -> Value) -> &mut Value {
        let at = match self.at(name) {
            Ok(at) => at,
            Err(at) => {
                Arc::make_mut(&mut self.0).insert(at, (name.clone(), Arc::new(make())));
                at
            }
        };
        Arc::make_mut(&mut Arc::make_mut(&mut self.0)[at].1)
    }

    /// Sets a channel's value.
    pub fn insert(&mut self, name: impl Into<Name>, value: impl Into<Arc<Value>>) {
        let name = name.into();
        let at = self.at(&name);
        let pairs = Arc::make_mut(&mut self.0);
        match at {
            Ok(at) => pairs[at].1 = value.into(),
            Err(at) => pairs.insert(at, (name, value.into())),
        }
    }

    /// Takes a channel's value away.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.at(name) {
            Arc::make_mut(&mut self.0).remove(at);
        }
    }

    /// Whether a channel's value is the very same as in `other`.
    pub fn shares(&self, name: &str, other: &State) -> bool {
        match (self.at(name), other.at(name)) {
            (Ok(here), Ok(there)) => Arc::ptr_eq(&self.0[here].1, &other.0[there].1),
            _ => false,
        }
    }

    /// Sets a channel's value to that of `from`, without a copy.
    pub fn share(&mut self, name: &Name, from: &State) {
        if let Ok(at) = from.at(name) {
            self.insert(name.clone(), from.0[at].1.clone());
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
    pub fn iter(&self) -> std::iter::Map<std::slice::Iter<'_, Pair>, Shown> {
        self.0.iter().map(shown)
    }

    /// Channels that are not certainly the same as in `before`: those that it shares are left out without being compared.
    pub fn not_shared_with<'s>(&'s self, before: &State) -> impl Iterator<Item = (&'s Name, &'s Value)> {
        let shared = move |pair: &&Pair| before.at(&pair.0).is_ok_and(|at| Arc::ptr_eq(&before.0[at].1, &pair.1));
        let all = Arc::ptr_eq(&self.0, &before.0);
        self.0.iter().filter(move |pair| !all && !shared(pair)).map(shown)
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Pair, &Pair)| a.0 == b.0 && (Arc::ptr_eq(&a.1, &b.1) || a.1 == b.1);
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

impl<'s> IntoIterator for &'s State {
    type Item = (&'s Name, &'s Value);
    type IntoIter = std::iter::Map<std::slice::Iter<'s, Pair>, Shown>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for State {
    type Item = (Name, Value);
    type IntoIter = std::iter::Map<std::vec::IntoIter<Pair>, fn(Pair) -> (Name, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        fn owned((name, value): Pair) -> (Name, Value) {
            (name, Arc::unwrap_or_clone(value))
        }
        Arc::unwrap_or_clone(self.0).into_iter().map(owned)
    }
}

impl<N: Into<Name>, const L: usize> From<[(N, Value); L]> for State {
    fn from(pairs: [(N, Value); L]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<N: Into<Name>> FromIterator<(N, Value)> for State {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(pairs: I) -> Self {
        let mut state = Self::new();
        for (name, value) in pairs {
            state.insert(name, value);
        }
        state
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
