//! Graphs that were built: a document read and compiled once serves all the threads that keep the same one.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::graph::{CompiledGraph, Failure};

/// Documents that are in use at once, several times over. A graph takes some tens of kilobytes.
const MOST: usize = 64;

/// The graphs of the documents that were used last.
#[derive(Default)]
pub(super) struct Graphs(Mutex<Vec<(Value, Arc<CompiledGraph>)>>);

impl Graphs {
    /// The graph of a document, built by `build` where it is not known.
    pub fn of(
        &self,
        document: &Value,
        build: impl FnOnce() -> Result<Arc<CompiledGraph>, Failure>,
    ) -> Result<Arc<CompiledGraph>, Failure> {
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = known.iter().position(|(of, _)| of == document) {
                known[..=place].rotate_right(1);
                return Ok(known[0].1.clone());
            }
        }
        let graph = build()?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(0, (document.clone(), graph.clone()));
        known.truncate(MOST);
        Ok(graph)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workflow::{NodeTypes, build};

    fn document(n: usize) -> Value {
        let text = "channels: { x: { type: integer } }\nnodes: { a: { type: expr, set: { x: '1' } } }\n\
                    edges: [ { from: START, to: a } ]\n";
        let none = |_: &str, _: &str| Err(Failure::new("none", "no files"));
        crate::workflow::load(&format!("name: n{n}\n{text}"), "w.yaml", &none).unwrap().document
    }

    #[test]
    fn a_document_is_built_once_while_it_is_used() {
        let (graphs, types, built) = (Graphs::default(), NodeTypes::generic(), std::cell::Cell::new(0));
        let of = |n| {
            let document = document(n);
            graphs.of(&document, || {
                built.set(built.get() + 1);
                build(&document, &types)
            })
        };
        let first = of(0).unwrap();
        assert!(Arc::ptr_eq(&first, &of(0).unwrap()) && built.get() == 1);
        for n in 1..MOST {
            of(n).unwrap();
            assert!(Arc::ptr_eq(&first, &of(0).unwrap()), "what is used stays");
        }
        of(MOST).unwrap();
        of(MOST + 1).unwrap();
        assert_eq!(graphs.0.lock().unwrap().len(), MOST);
        built.set(0);
        of(1).unwrap();
        assert_eq!(built.get(), 1, "what was used longest ago went");
        let failed = graphs.of(&json!({"nodes": 1}), || Err(Failure::new("wrong", "wrong")));
        assert!(failed.is_err_and(|failure| failure.code == "wrong"));
        assert_eq!(graphs.0.lock().unwrap().len(), MOST, "a failure is not kept");
    }
}
