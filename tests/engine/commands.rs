//! Commands of a node inside a subgraph to a graph around it; the time of a superstep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate::graph::{Command, CompiledGraph, Goto, NodePolicy, OnError, Outcome, START, StateGraph, ThreadStatus};
use tidegate::workflow::{NodeTypes, load, no_files};

use crate::support::*;

/// A node that makes a thing and gives a command.
fn commander(command: Command) -> Step {
    step(move |cx, _| {
        let command = command.clone();
        Box::pin(async move {
            cx.effect("make", Make::of(cx.node())).await?;
            Ok(Outcome { update: Wrote::default(), goto: vec![command.into()] })
        })
    })
}

fn compiled(built: StateGraph) -> Arc<CompiledGraph> {
    Arc::new(built.compile().unwrap())
}

/// `START -> first -> leave -> never`.
fn inner(command: Command) -> Arc<CompiledGraph> {
    let built = graph("inner").node("first", speaker()).node("leave", commander(command)).node("never", speaker());
    compiled(built.edge(START, "first").edge("first", "leave").edge("leave", "never"))
}

/// `START -> sub -> after`, and `bob` to whom nothing leads but commands.
fn outer(sub: Arc<CompiledGraph>) -> StateGraph {
    let built = graph("outer").subgraph("sub", sub).node("after", speaker()).node("bob", speaker());
    built.edge(START, "sub").edge("sub", "after")
}

#[tokio::test]
async fn a_command_updates_and_routes_in_the_parent() {
    each(async |rig| {
        let command =
            Command::to_parent().update("log", json!(["told"])).update("item", json!({"user": "ada"})).goto("bob");
        let graph = compiled(outer(inner(command)));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded, "{:?}", end.failure);
        // As in LangGraph: the update instead of what the subgraph wrote, and the subgraph's own edges beside the goto.
        assert_eq!(rig.log(&graph, &id).await, json!(["told", "after", "bob"]));
        let values = rig.engine.state(&graph, &id).await.unwrap().values;
        assert_eq!(values["item"], json!({"user": "ada"}));
        assert_eq!(rig.world.log(), ["perform leave"]);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_command_may_send() {
    each(async |rig| {
        let mut command = Command::to_parent();
        command.goto = vec![
            Goto::Send { to: "bob".into(), input: json!({"log": ["one"]}) },
            Goto::Send { to: "bob".into(), input: json!({"log": ["two"]}) },
        ];
        let graph = compiled(outer(inner(command)));
        let (id, _) = rig.run(&graph).await;
        assert_eq!(rig.log(&graph, &id).await, json!(["after", "bob", "bob"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_command_leaves_as_many_graphs_as_it_says() {
    for (command, log) in [
        (
            Command::to_parent().update("log", json!(["told"])).goto("carl"),
            json!(["told", "carl", "middle end", "after"]),
        ),
        (
            Command::leaving("deep").update("log", json!(["told"])).goto("carl"),
            json!(["told", "carl", "middle end", "after"]),
        ),
        (Command::leaving("sub").update("log", json!(["told"])).goto("bob"), json!(["told", "after", "bob"])),
    ] {
        each(async |rig| {
            let ends = step(|_, _| Box::pin(async move { Ok(Outcome::update(says("middle end"))) }));
            let middle =
                graph("middle").subgraph("deep", inner(command.clone())).node("carl", speaker()).node("end", ends);
            let middle = middle.edge(START, "deep").edge("carl", "end");
            let graph = compiled(outer(compiled(middle)));
            let (id, end) = rig.run(&graph).await;
            assert_eq!(end.status, ThreadStatus::Succeeded, "{:?}", end.failure);
            assert_eq!(rig.log(&graph, &id).await, log);
            rig.replays(&graph, &id).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_command_withdraws_what_the_subgraph_asked_and_each_visit_gives_its_own() {
    each(async |rig| {
        // `leave` and `ask` run beside each other; the parent visits the subgraph twice.
        let asked =
            graph("inner").node("leave", commander(Command::to_parent().update("n", json!(1)))).node("ask", asker());
        let asked = compiled(asked.edge(START, "leave").edge(START, "ask"));
        let built = graph("outer").subgraph("sub", asked).edge(START, "sub");
        let graph = compiled(built.route("sub", ["sub", "END"], |state| {
            Ok(if state["n"].as_i64() < Some(2) { "sub" } else { "END" }.to_owned())
        }));
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, rig.open(&id).await.len()), (ThreadStatus::Succeeded, 0), "{:?}", end.failure);
        assert_eq!(rig.world.count("perform leave"), 2);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_command_that_nobody_can_take_fails() {
    each(async |rig| {
        for (graph, wrong) in [
            (chain("root", vec![("a", commander(Command::to_parent()))]), "no_parent_graph"),
            (compiled(outer(inner(Command::leaving("nobody")))), "no_parent_graph"),
            (compiled(outer(inner(Command::to_parent().goto("nobody")))), "unknown_node"),
            (compiled(outer(inner(Command::to_parent().update("nothing", 1)))), "undeclared_channel"),
        ] {
            let (id, end) = rig.run(&graph).await;
            assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, wrong));
            rig.replays(&graph, &id).await;
        }
        let both = step(|_, _| {
            Box::pin(async move { Ok(Outcome { update: says("lost"), goto: vec![Command::to_parent().into()] }) })
        });
        let lossy = compiled(graph("inner").node("a", both).edge(START, "a"));
        let (_, end) = rig.run(&compiled(outer(lossy))).await;
        assert_eq!(code(&end), "bad_command");
    })
    .await;
}

const FILE: &str = "\
name: handoff
channels: { log: { type: array, reducer: append }, user: { type: string } }
nodes:
  team:
    type: subgraph
    graph:
      channels: { log: { type: array, reducer: append }, tries: { type: integer } }
      nodes:
        work: { type: expr, set: { log: \"['work']\", tries: '1' } }
        hand: { type: expr, set: { log: \"['hand']\", user: \"'ada'\" }, goto: [ { to: bob, graph: parent } ] }
      edges:
        - { from: START, to: work }
        - { from: work, to: hand }
  bob: { type: expr, set: { log: \"['bob for ' + user]\" } }
edges:
  - { from: START, to: team }
";

#[tokio::test]
async fn a_file_gives_commands_by_goto() {
    each(async |rig| {
        let workflow = load(FILE, "w.yaml", &no_files).unwrap();
        let graph = workflow.build(&NodeTypes::generic()).unwrap();
        assert!(graph.warnings().iter().all(|w| w.failure.code != "unreachable_node"), "{:?}", graph.warnings());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded, "{:?}", end.failure);
        assert_eq!(rig.log(&graph, &id).await, json!(["hand", "bob for ada"]));
        rig.replays(&graph, &id).await;
    })
    .await;
    for (from, to, wrong, place) in [
        ("to: bob, graph", "to: bab, graph", "unknown_node", "w.yaml:10:"),
        ("user: \"'ada'\"", "usr: \"'ada'\"", "undeclared_channel", "w.yaml:10:"),
        ("graph: parent }", "graph: team }", "", ""),
    ] {
        let text = FILE.replacen(from, to, 1);
        match load(&text, "w.yaml", &no_files) {
            Ok(_) => assert_eq!(wrong, ""),
            Err(failure) => {
                let told = format!("{} {:?}", failure.message, failure.cause);
                assert_eq!(failure.code, wrong, "{told}");
                assert!(told.contains(place), "{told}");
            }
        }
    }
    let routed = FILE.replacen("{ from: work, to: hand }", "{ from: work, route: [ { to: hand, graph: parent } ] }", 1);
    assert_eq!(load(&routed, "w.yaml", &no_files).unwrap_err().code, "misplaced_key");
}

/// Hangs on its first runs, as many as `times`.
fn hanging(times: usize) -> Step {
    let runs = Arc::new(AtomicUsize::new(0));
    step(move |cx, _| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            cx.effect("make", Make::of(cx.node())).await?;
            if run < times {
                std::future::pending::<()>().await;
            }
            Ok(Outcome::update(says(cx.node())))
        })
    })
}

#[tokio::test]
async fn a_superstep_that_takes_too_long_fails_and_keeps_what_has_ended() {
    each(async |rig| {
        let built =
            graph("slow").node("slow", hanging(1)).node("quick", maker()).step_timeout(Duration::from_millis(300));
        let graph = compiled(built.edge(START, "slow").edge(START, "quick"));
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "step_timeout"));
        assert_eq!(rig.world.calls("undo"), Vec::<String>::new(), "nothing is undone");
        rig.replays(&graph, &id).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["made quick", "slow"]));
        assert_eq!((rig.world.count("perform quick"), rig.world.count("perform slow")), (1, 1));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_thread_that_ran_out_of_time_can_be_cancelled() {
    each(async |rig| {
        let built = graph("slow").node("slow", hanging(9)).edge(START, "slow").step_timeout(Duration::from_millis(100));
        let graph = compiled(built);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(code(&end), "step_timeout");
        let why = tidegate::graph::Failure::new("cancelled", "enough");
        let end = rig.engine.cancel(&graph, &id, true, why).await.unwrap();
        assert_eq!((end.status, rig.world.calls("undo")), (ThreadStatus::Cancelled, vec!["slow".to_owned()]));
    })
    .await;
}

#[tokio::test]
async fn time_that_ran_out_inside_a_subgraph_is_its_nodes_failure() {
    each(async |rig| {
        let slow = graph("inner").node("slow", hanging(9)).edge(START, "slow").step_timeout(Duration::from_millis(100));
        let built = graph("outer").subgraph("sub", compiled(slow)).node("mend", speaker()).edge(START, "sub");
        let graph = compiled(built);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "step_timeout"));
        assert_eq!(end.failure.and_then(|failure| failure.node.clone()).as_deref(), Some("sub"));
        rig.replays(&graph, &id).await;
        // A handler may take it; a replay, which has time enough, goes the same way.
        let slow = crate::support::graph("inner").node("slow", hanging(9)).edge(START, "slow");
        let slow = compiled(slow.step_timeout(Duration::from_millis(100)));
        let built = crate::support::graph("outer").subgraph("sub", slow).node("mend", speaker()).edge(START, "sub");
        let by = NodePolicy { on_error: Some(OnError { to: "mend".into(), into: None }), ..NodePolicy::default() };
        let graph = compiled(built.policy("sub", by));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded, "{:?}", end.failure);
        assert_eq!(rig.log(&graph, &id).await, json!(["mend"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_handled_timeout_replays() {
    each(async |rig| {
        let by = NodePolicy {
            on_error: Some(OnError { to: "mend".into(), into: None }),
            timeout: Some(Duration::from_millis(100)),
            ..NodePolicy::default()
        };
        let built = graph("handled").node("slow", hanging(9)).node("mend", speaker()).edge(START, "slow");
        let graph = compiled(built.policy("slow", by));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_retried_timeout_replays() {
    each(async |rig| {
        let retry = vec![tidegate::graph::RetryPolicy { initial_ms: 1, max_attempts: 3, ..Default::default() }];
        let policy = NodePolicy { retry, timeout: Some(Duration::from_millis(100)), ..NodePolicy::default() };
        // What the first attempts say of themselves is not what the last one does.
        let slow = step(|cx, _| {
            Box::pin(async move {
                if cx.attempt() < 3 {
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::update(says(format!("attempt {}", cx.attempt()))))
            })
        });
        let graph = compiled(graph("retried").node("slow", slow).edge(START, "slow").policy("slow", policy));
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["attempt 3"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_superstep_without_time_is_refused() {
    let built = graph("none").node("a", speaker()).edge(START, "a").step_timeout(Duration::ZERO);
    assert!(built.compile().err().unwrap().errors.iter().any(|e| e.failure.code == "bad_step_timeout"));
    let text = FILE.replacen("name: handoff", "name: handoff\nstep_timeout: 2m", 1);
    let graph = load(&text, "w.yaml", &no_files).unwrap().build(&NodeTypes::generic()).unwrap();
    assert_eq!(graph.step_timeout(), Some(Duration::from_secs(120)));
}
