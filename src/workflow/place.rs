//! Where a path of the document stands in its file. Only looked up when something is wrong, so the text is simply read again.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

use super::deep;

/// A line and a column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub fn of(location: Location) -> Option<Self> {
        let (line, column) = (usize::try_from(location.line()).ok()?, usize::try_from(location.column()).ok()?);
        (line > 0).then_some(Self { line, column })
    }

    /// The line itself, with a marker below it.
    pub fn excerpt(self, text: &str) -> String {
        let line = text.lines().nth(self.line - 1).unwrap_or_default();
        let number = self.line.to_string();
        // A line of a file that is one long line is no help to anybody.
        let from = self.column.saturating_sub(60);
        let shown: String = line.chars().skip(from).take(120).collect();
        let marker = " ".repeat((self.column - 1).saturating_sub(from));
        format!("{number} | {shown}\n{} | {marker}^", " ".repeat(number.len()))
    }
}

/// The place of `path` in `text`, or of the nearest key above it that is there.
pub(super) fn find(text: &str, path: &[String]) -> Option<Place> {
    deep::run(|| find_here(text, path)).ok()?
}

fn find_here(text: &str, path: &[String]) -> Option<Place> {
    let root: Spanned<Tree> = serde_saphyr::from_str_with_options(text, super::load::options()).ok()?;
    let mut here = &root;
    for key in path {
        let below = match &here.value {
            Tree::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            Tree::List(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            Tree::Leaf => None,
        };
        let Some(below) = below else { break };
        here = below;
    }
    Place::of(here.referenced)
}

enum Tree {
    Map(Vec<(String, Spanned<Tree>)>),
    List(Vec<Spanned<Tree>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

macro_rules! leaf {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Tree, E> {
            Ok(Tree::Leaf)
        })*
    };
}

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    leaf!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Tree::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}
