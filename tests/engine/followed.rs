//! What a run can be asked for that its graph does not say: its writes in the record, stops of its own, going where no edge leads.

use std::collections::BTreeSet;

use serde_json::json;
use tidegate::graph::{Advance, Event, Nodes, StateUpdate, Stops, ThreadStatus};

use crate::support::*;

fn stops(before: &[&str], after: &[&str], begins: bool) -> Advance {
    let named = |nodes: &[&str]| Nodes::Named(nodes.iter().map(|node| (*node).into()).collect::<BTreeSet<_>>());
    Advance { stops: Stops { before: named(before), after: named(after), begins }, ..Advance::default() }
}

#[tokio::test]
async fn the_record_says_what_nodes_wrote_where_it_is_asked_to() {
    each(async |rig| {
        let graph = chain("told", vec![("a", speaker()), ("b", speaker())]);
        let quiet = rig.run(&graph).await.0;
        let id = rig.create(&graph).await;
        rig.engine.advance(&graph, &id, Advance { tells_writes: true, ..Advance::default() }).await.unwrap();
        let wrote = async |id| {
            let events = rig.engine.store().events(id, 0, usize::MAX).await.unwrap();
            let told = events.into_iter().filter_map(|row| match row.event {
                Event::Wrote { node, writes, .. } => Some((node.to_string(), json!(writes[0].value))),
                _ => None,
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(wrote(&id).await, [("a".to_owned(), json!(["a"])), ("b".to_owned(), json!(["b"]))]);
        assert!(wrote(&quiet).await.is_empty());
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_stops_where_it_is_asked_to() {
    each(async |rig| {
        let graph = chain("stops", vec![("a", maker()), ("b", maker()), ("c", maker())]);
        let id = rig.create(&graph).await;
        let made = || rig.world.count("perform");
        let end = rig.engine.advance(&graph, &id, stops(&["a"], &[], true)).await.unwrap();
        assert_eq!((end.status, made()), (ThreadStatus::Interrupted, 0));
        let end = rig.engine.advance(&graph, &id, stops(&[], &["a"], false)).await.unwrap();
        assert_eq!((end.status, made()), (ThreadStatus::Interrupted, 1));
        // The node before which it stands is passed by whoever goes on, not by new input.
        let all = Advance { stops: Stops { before: Nodes::All, ..Stops::default() }, ..Advance::default() };
        let end = rig.engine.advance(&graph, &id, all.clone()).await.unwrap();
        assert_eq!((end.status, made()), (ThreadStatus::Interrupted, 2));
        rig.engine.input(&graph, &id, &object(json!({}))).await.unwrap();
        let begins = Advance { stops: Stops { begins: true, ..all.stops.clone() }, ..Advance::default() };
        let end = rig.engine.advance(&graph, &id, begins).await.unwrap();
        assert_eq!((end.status, made()), (ThreadStatus::Interrupted, 2));
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, made()), (ThreadStatus::Succeeded, 5));
    })
    .await;
}

#[tokio::test]
async fn a_change_may_say_where_to_go() {
    each(async |rig| {
        let graph = chain("goes", vec![("a", speaker()), ("ask", asker()), ("c", speaker())]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        let update =
            StateUpdate { goto: vec!["c".into()], ..StateUpdate::new(object(json!({"log": ["by hand"]})), "START") };
        rig.engine.bulk_update(&graph, &id, &[vec![update]]).await.unwrap();
        assert!(rig.open(&id).await.is_empty(), "the question is withdrawn");
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["a", "by hand", "c"]));
        let nowhere = StateUpdate { goto: vec!["nowhere".into()], ..StateUpdate::new(object(json!({})), "START") };
        let refused = rig.engine.bulk_update(&graph, &id, &[vec![nowhere]]).await.unwrap_err();
        assert_eq!(refused.failure().code, "unknown_node");
    })
    .await;
}
