//! How often each node was due. A sorted list: every superstep keeps one, and a copy of a list is one allocation.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Name;

/// How often each node was due, by name; in JSON an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visits(Vec<(Name, u64)>);

impl Visits {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    fn at(&self, node: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| name.as_str().cmp(node))
    }

    /// A node's count; 0 where it was never due.
    pub fn get(&self, node: &str) -> u64 {
        self.at(node).map_or(0, |at| self.0[at].1)
    }

    /// Whether a node was ever due.
    pub fn contains(&self, node: &str) -> bool {
        self.at(node).is_ok()
    }

    /// Sets a node's count.
    pub fn set(&mut self, node: impl Into<Name>, count: u64) {
        let node = node.into();
        match self.at(&node) {
            Ok(at) => self.0[at].1 = count,
            Err(at) => self.0.insert(at, (node, count)),
        }
    }

    /// Counts one more for a node; its count then.
    pub fn count(&mut self, node: &Name) -> u64 {
        match self.0.binary_search_by(|(name, _)| name.cmp(node)) {
            Ok(at) => {
                self.0[at].1 += 1;
                self.0[at].1
            }
            Err(at) => {
                self.0.insert(at, (node.clone(), 1));
                1
            }
        }
    }

    /// Nodes with their counts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.0.iter().map(|(node, count)| (node, *count))
    }

    /// Whether no node was ever due.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Visits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Visits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Counts;

        impl<'de> Visitor<'de> for Counts {
            type Value = Visits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of counts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Visits, A::Error> {
                let mut visits = Visits::new();
                while let Some((node, count)) = map.next_entry::<Name, u64>()? {
                    visits.set(node, count);
                }
                Ok(visits)
            }
        }

        from.deserialize_map(Counts)
    }
}

impl<N: Into<Name>, const L: usize> From<[(N, u64); L]> for Visits {
    fn from(counts: [(N, u64); L]) -> Self {
        let mut visits = Self::new();
        counts.into_iter().for_each(|(node, count)| visits.set(node, count));
        visits
    }
}

impl std::ops::Index<&str> for Visits {
    type Output = u64;

    /// As [`Visits::get`].
    fn index(&self, node: &str) -> &u64 {
        self.at(node).map_or(&0, |at| &self.0[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_name_and_comes_back() -> serde_json::Result<()> {
        let mut visits = Visits::from([("b", 2), ("a", 1)]);
        assert_eq!((visits.count(&"c".into()), visits.count(&"a".into()), visits.get("d")), (1, 2, 0));
        let text = serde_json::to_string(&visits)?;
        assert_eq!(text, r#"{"a":2,"b":2,"c":1}"#);
        assert_eq!(serde_json::from_str::<Visits>(r#"{"c":1,"b":2,"a":2}"#)?, visits);
        assert!(visits.contains("a") && !visits.contains("d") && visits["d"] == 0);
        Ok(())
    }
}
