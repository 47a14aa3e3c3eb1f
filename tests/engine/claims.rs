//! Graphs that nobody would write: `compile()` never panics, and what it claims about a graph is true of every run of it.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate::graph::{
    Advance, CompiledGraph, Effects, Engine, Finding, MemoryStore, NewThread, Place, ThreadStatus, dot, mermaid, path,
    svg,
};
use tidegate::workflow::{NodeTypes, build, load, no_files};

use crate::support::{object, owner};

const NODES: usize = 6;

/// One of the nodes, and now and then one that is not there.
fn name(may_miss: bool) -> impl Strategy<Value = String> {
    (0..NODES + usize::from(may_miss)).prop_map(|n| format!("n{n}"))
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![8 => name(false), 2 => Just("END".to_owned())]
}

fn source() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("1"),
        Just("x + 1"),
        Just("y"),
        Just("has(state.y) ? y : 0"),
        Just("item"),
        Just("x > 2 || item > 1 ? 1 : 2")
    ]
    .prop_map(str::to_owned)
}

fn node() -> impl Strategy<Value = Value> {
    let set = prop::collection::btree_map(prop_oneof![Just("x"), Just("y"), Just("n")], source(), 0..3);
    let handler = prop::option::weighted(0.15, target());
    let goto = prop::option::weighted(0.2, (prop::bool::ANY, target()));
    (set, handler, goto, prop::bool::weighted(0.15)).prop_map(|(set, handler, goto, defer)| {
        let mut node = json!({"type": "expr", "set": set, "defer": defer});
        node.as_object_mut().unwrap().extend(handler.map(|to| ("on_error".to_owned(), json!(to))));
        let case = |(always, to)| if always { json!([{"to": to}]) } else { json!([{"when": "n < 3", "to": to}]) };
        node.as_object_mut().unwrap().extend(goto.map(|goto| ("goto".to_owned(), case(goto))));
        node
    })
}

fn edge() -> impl Strategy<Value = Value> {
    let from = || prop_oneof![1 => Just("START".to_owned()), 6 => name(false)];
    prop_oneof![
        6 => (from(), target()).prop_map(|(from, to)| json!({"from": from, "to": to})),
        2 => (prop::collection::btree_set(name(false), 2..4), name(false)).prop_map(|(from, to)| json!({"from": from, "to": to})),
        3 => (from(), target(), target())
            .prop_map(|(from, to, or)| json!({"from": from, "route": [{"when": "n < 4", "to": to}, {"to": or}]})),
        1 => (from(), name(false), 0..2_usize)
            .prop_map(|(from, to, count)| json!({"from": from, "send": {"to": to, "each": json!(vec![1; count]).to_string(), "as": "item"}})),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    let nodes = prop::collection::vec(node(), NODES);
    (
        nodes,
        prop::collection::vec(edge(), 2..12),
        prop::option::weighted(0.3, Just(json!({"properties": {"x": {"type": "integer"}}}))),
    )
        .prop_map(|(nodes, edges, input)| {
            let nodes: serde_json::Map<String, Value> =
                nodes.into_iter().enumerate().map(|(n, node)| (format!("n{n}"), node)).collect();
            let mut all = vec![json!({"from": "START", "to": "n0"})];
            all.extend(edges);
            let channels = json!({
                "x": {"type": "integer"}, "y": {"type": "integer"}, "n": {"type": "integer", "reducer": "add"},
            });
            let mut document = json!({"name": "random", "channels": channels, "nodes": nodes, "edges": all});
            document.as_object_mut().unwrap().extend(input.map(|input| ("input".to_owned(), input)));
            document
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_compile_claims_is_true_of_every_run(document in document(), x in 0..5_i64) {
        let fresh = load(&document.to_string(), "w.json", &no_files).and_then(|w| w.build(&NodeTypes::generic()));
        // As a thread keeps it: what only makes no sense is a warning.
        let Ok(graph) = build(&document, &NodeTypes::generic()) else {
            prop_assert!(fresh.is_err());
            return Ok(());
        };
        for picture in [mermaid(&graph), dot(&graph), svg(&graph)] {
            prop_assert!(picture.contains("n0"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(holds(&graph, x, fresh.is_ok())).map_err(TestCaseError::fail)?;
    }
}

/// Runs a graph and holds its findings against what happened.
async fn holds(graph: &Arc<CompiledGraph>, x: i64, accepted: bool) -> Result<(), String> {
    let engine = Engine::new(Arc::new(MemoryStore::default()), Effects::new(), owner());
    let new = NewThread { input: object(json!({"x": x})), ..NewThread::default() };
    let id = engine.create(graph, new).await.map_err(|e| e.to_string())?;
    let end = engine.advance(graph, &id, Advance { recursion_limit: 14, ..Advance::default() }).await;
    let end = end.map_err(|e| e.to_string())?;
    let code = end.failure.as_ref().map_or("", |f| f.code.as_str());
    let excluded = ["unknown_node", "undeclared_channel", "undeclared_destination", "send_payload", "node_panicked"];
    if excluded.contains(&code) {
        return Err(format!("it met {code}: {:?}", end.failure));
    }
    let last = engine.store().latest(&id, "").await.map_err(|e| e.to_string())?.ok_or("no checkpoint")?;
    let visits = |node: &str| last.visits.get(node);
    for Finding { failure, place } in graph.warnings() {
        let lie = match (failure.code.as_str(), place) {
            ("unreachable_node" | "never_due", Place::Node(node)) => visits(node) > 0,
            ("barrier_unfillable", Place::Barrier { from, .. }) => from.iter().all(|node| visits(node) > 0),
            // Whoever is in such a cycle never comes to an end of itself.
            ("endless_cycle", Place::Edge { from, .. }) => visits(from) > 0 && end.status == ThreadStatus::Succeeded,
            ("never_written", Place::Node(node)) => {
                let handled = graph.nodes()[node.as_str()].policy.on_error.is_some();
                visits(node) > 0 && !handled && end.status == ThreadStatus::Succeeded
            }
            _ => false,
        };
        if lie {
            return Err(format!(
                "{} {} is not true: {:?} {:?}",
                failure.code, failure.message, last.visits, end.status
            ));
        }
    }
    if accepted && graph.warnings().iter().any(|finding| finding.failure.code == "endless_cycle") {
        return Err("an error was let through".to_owned());
    }
    agrees(&engine, &id, graph).await
}

/// The path says what the checkpoints say.
async fn agrees(engine: &Engine, id: &tidegate::graph::ThreadId, graph: &CompiledGraph) -> Result<(), String> {
    let of = |e: tidegate::graph::StoreError| e.to_string();
    let (store, now) = (engine.store(), chrono::Utc::now());
    let thread = store.thread(id).await.map_err(of)?.ok_or("no thread")?;
    let roots = store.history(id, "").await.map_err(of)?;
    let events = store.events(id, 0, usize::MAX).await.map_err(of)?;
    let steps = path(&thread, &roots, &[], &events, now);
    if steps.len() != roots.len() {
        return Err(format!("{} steps, {} checkpoints", steps.len(), roots.len()));
    }
    for (step, root) in steps.iter().zip(&roots) {
        let told: Vec<(&str, u64)> = step.nodes.iter().map(|v| (v.node.as_str(), v.visit)).collect();
        let mut due: Vec<(&str, u64)> = root.frontier.iter().map(|t| (t.node.as_str(), t.visit)).collect();
        due.sort_unstable();
        due.dedup();
        let mut sorted = told.clone();
        sorted.sort_unstable();
        if (step.step, &sorted) != (root.step, &due) {
            return Err(format!("superstep {}: {told:?} instead of {due:?}", root.step));
        }
    }
    let traced = tidegate::graph::Traced::of(graph, &steps);
    let drawn = tidegate::graph::Picture::of(graph, Some(&traced));
    if drawn.mermaid().is_empty() || drawn.svg().is_empty() || drawn.dot().is_empty() {
        return Err("no picture".to_owned());
    }
    Ok(())
}

#[tokio::test]
async fn a_superstep_has_a_bound() {
    let document = json!({
        "name": "many", "channels": {"items": {"type": "array"}, "n": {"type": "integer", "reducer": "add"}},
        "nodes": {"w": {"type": "expr", "set": {"n": "1"}}},
        "edges": [{"from": "START", "send": {"to": "w", "each": "items", "as": "item"}}],
    });
    let graph = build(&document, &NodeTypes::generic()).unwrap();
    let engine = Engine::new(Arc::new(MemoryStore::default()), Effects::new(), owner());
    let new = |many: usize| NewThread { input: object(json!({"items": vec![0; many]})), ..NewThread::default() };
    assert_eq!(engine.create(&graph, new(10_001)).await.unwrap_err().failure().code, "too_many_tasks");
    let id = engine.create(&graph, new(200)).await.unwrap();
    assert_eq!(engine.advance(&graph, &id, Advance::default()).await.unwrap().status, ThreadStatus::Succeeded);
}
