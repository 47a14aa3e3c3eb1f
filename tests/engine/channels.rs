//! The kinds of channel beside last value and reducer: how long each keeps a value, over interrupts, crashes and in a replay.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::graph::{
    Channel, ChannelType, CompiledGraph, Context, DynNode, END, Failure, Goto, NodeError, NodeInfo, Produced, START,
    StateGraph, ThreadStatus, View, Write,
};

use crate::support::*;

type Work = dyn Fn(&View) -> Vec<(&'static str, Value)> + Send + Sync;

/// A node from a function of what it sees; it may ask first.
struct Acts {
    asks: bool,
    work: Box<Work>,
}

fn acts(work: impl Fn(&View) -> Vec<(&'static str, Value)> + Send + Sync + 'static) -> Arc<Acts> {
    Arc::new(Acts { asks: false, work: Box::new(work) })
}

/// The same, after a question.
fn asks(work: impl Fn(&View) -> Vec<(&'static str, Value)> + Send + Sync + 'static) -> Arc<Acts> {
    Arc::new(Acts { asks: true, work: Box::new(work) })
}

#[async_trait]
impl DynNode for Acts {
    fn info(&self) -> NodeInfo {
        NodeInfo { kind: "acts".into(), version: 1, ..NodeInfo::default() }
    }

    async fn run(&self, cx: &Context, view: &View) -> Result<Produced, NodeError> {
        if self.asks {
            cx.interrupt(&json!("go?")).await?;
        }
        let writes = (self.work)(view).into_iter().map(|(channel, value)| Write::new(channel, value)).collect();
        Ok(Produced { writes, ..Produced::default() })
    }
}

/// What the node sees of a channel, into the log.
fn logs(node: &'static str, channel: &'static str) -> impl Fn(&View) -> Vec<(&'static str, Value)> + Send + Sync {
    move |view| {
        let seen = view.0.get(channel).cloned().unwrap_or(json!("nothing"));
        vec![("log", json!([format!("{node} saw {seen}")]))]
    }
}

/// `START -> write -> first -> second`, where both look at channel `c`.
fn looking(channel: Channel, written: Value) -> Arc<CompiledGraph> {
    let built = graph("looking")
        .channel("c", channel)
        .dyn_node("write", acts(move |_| vec![("c", written.clone())]))
        .dyn_node("first", acts(logs("first", "c")))
        .dyn_node("second", acts(logs("second", "c")));
    let built = built.edge(START, "write").edge("write", "first").edge("first", "second");
    Arc::new(built.compile().unwrap())
}

#[tokio::test]
async fn each_kind_keeps_a_value_as_long_as_it_says() {
    let text = ChannelType::String;
    for (channel, written, second) in [
        (Channel::ephemeral(text), json!("v"), json!("nothing")),
        (Channel::any_value(text), json!("v"), json!("nothing")),
        (Channel::topic(false), json!(["v", "w"]), json!("nothing")),
        (Channel::topic(true), json!(["v", "w"]), json!(["v", "w"])),
        (Channel::untracked(text), json!("v"), json!("v")),
        (Channel::last(text), json!("v"), json!("v")),
    ] {
        each(async |rig| {
            let graph = looking(channel.clone(), written.clone());
            let (id, end) = rig.run(&graph).await;
            assert_eq!(end.status, ThreadStatus::Succeeded, "{:?}", end.failure);
            let log = json!([format!("first saw {written}"), format!("second saw {second}")]);
            assert_eq!(rig.log(&graph, &id).await, log, "{channel:?}");
            rig.replays(&graph, &id).await;
        })
        .await;
    }
}

/// Two writers beside each other, and one who looks.
fn two_writers(channel: Channel) -> StateGraph {
    let built = graph("writers")
        .channel("c", channel)
        .dyn_node("a", acts(|_| vec![("c", json!("from a"))]))
        .dyn_node("b", acts(|_| vec![("c", json!(["from b"]))]))
        .dyn_node("look", acts(logs("look", "c")));
    built.edge(START, "a").edge(START, "b").barrier(["a", "b"], "look")
}

#[tokio::test]
async fn writes_of_one_superstep_meet_as_the_kind_says() {
    let any = ChannelType::Any;
    for (channel, seen) in [
        (Channel::topic(false), Ok(json!(["from a", "from b"]))),
        (Channel::any_value(any), Ok(json!(["from b"]))),
        (Channel::ephemeral(any).unguarded(), Ok(json!(["from b"]))),
        (Channel::untracked(any).unguarded(), Ok(json!(["from b"]))),
        (Channel::ephemeral(any), Err("invalid_concurrent_update")),
        (Channel::untracked(any), Err("invalid_concurrent_update")),
    ] {
        each(async |rig| {
            let graph = Arc::new(two_writers(channel.clone()).compile().unwrap());
            let (id, end) = rig.run(&graph).await;
            match &seen {
                Ok(seen) => assert_eq!(rig.log(&graph, &id).await, json!([format!("look saw {seen}")])),
                Err(wrong) => assert_eq!(code(&end), *wrong),
            }
            rig.replays(&graph, &id).await;
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_cleared_is_in_no_later_checkpoint() {
    each(async |rig| {
        let graph = looking(Channel::ephemeral(ChannelType::String), json!("v"));
        let (id, _) = rig.run(&graph).await;
        let history = rig.engine.store().history(&id, "").await.unwrap();
        let values: Vec<Value> = history.iter().map(|c| c.values.get("c").cloned().unwrap_or_default()).collect();
        assert_eq!(values, [Value::Null, json!("v"), Value::Null, Value::Null]);
        assert!(!history.last().unwrap().written.contains_key("c"));
    })
    .await;
}

#[tokio::test]
async fn new_input_and_updates_clear_as_a_superstep_does() {
    each(async |rig| {
        let built = graph("again")
            .channel("c", Channel::ephemeral(ChannelType::String))
            .dyn_node("write", acts(|_| vec![("c", json!("v"))]))
            .edge(START, "write");
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        let value = async || rig.engine.state(&graph, &id).await.unwrap().values.get("c").cloned();
        assert_eq!(value().await, Some(json!("v")));
        rig.engine.update(&graph, &id, &object(json!({"n": 1})), "write").await.unwrap();
        assert_eq!(value().await, None);
        rig.engine.update(&graph, &id, &object(json!({"c": "w"})), "write").await.unwrap();
        assert_eq!(value().await, Some(json!("w")));
        rig.engine.input(&graph, &id, &object(json!({}))).await.unwrap();
        assert_eq!(value().await, None);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// `START -> write -> early -> ask -> late`: the secret is untracked, and a question comes between.
fn secretive() -> Arc<CompiledGraph> {
    let built = graph("secretive")
        .channel("secret", Channel::untracked(ChannelType::String))
        .dyn_node("write", acts(|_| vec![("secret", json!("s3cret"))]))
        .dyn_node("early", acts(logs("early", "secret")))
        .dyn_node("ask", asks(logs("ask", "secret")))
        .dyn_node("late", acts(logs("late", "secret")));
    let built = built.edge(START, "write").edge("write", "early").edge("early", "ask").edge("ask", "late");
    Arc::new(built.compile().unwrap())
}

#[tokio::test]
async fn an_untracked_value_is_in_no_store_and_gone_when_another_run_goes_on() {
    each(async |rig| {
        let graph = secretive();
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        let export = tidegate::graph::Export::of(&**rig.engine.store(), &id).await.unwrap();
        let text = serde_json::to_string(&export.checkpoints).unwrap();
        assert!(text.contains("early saw"), "{text}");
        assert!(!text.contains("\"secret\""), "{text}");
        rig.replays(&graph, &id).await;
        rig.answer(&id, "ask", json!(1)).await;
        rig.advance(&graph, &id).await;
        let log = json!(["early saw \"s3cret\"", "ask saw \"nothing\"", "late saw \"nothing\""]);
        assert_eq!(rig.log(&graph, &id).await, log);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn siblings_that_ended_before_saw_what_those_after_do_not() {
    each(async |rig| {
        // `quick` ends in the first run and writes; `ask` ends in the second, which has neither the old value nor what `quick` wrote.
        let quick = |view: &View| {
            let mut writes = logs("quick", "secret")(view);
            writes.push(("note", json!("of quick")));
            writes
        };
        let built = graph("siblings")
            .channel("secret", Channel::untracked(ChannelType::String))
            .channel("note", Channel::untracked(ChannelType::String))
            .dyn_node("write", acts(|_| vec![("secret", json!("s3cret"))]))
            .dyn_node("quick", acts(quick))
            .dyn_node("ask", asks(logs("ask", "secret")))
            .dyn_node("late", acts(logs("late", "note")));
        let built =
            built.edge(START, "write").edge("write", "quick").edge("write", "ask").barrier(["quick", "ask"], "late");
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        rig.replays(&graph, &id).await;
        rig.answer(&id, "ask", json!(1)).await;
        rig.advance(&graph, &id).await;
        let log = json!(["ask saw \"nothing\"", "quick saw \"s3cret\"", "late saw \"nothing\""]);
        assert_eq!(rig.log(&graph, &id).await, log);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_subgraph_shares_an_untracked_channel_and_forgets_it_with_its_parent() {
    each(async |rig| {
        let inner = graph("inner")
            .channel("secret", Channel::untracked(ChannelType::String))
            .dyn_node("early", acts(logs("early", "secret")))
            .dyn_node("ask", asks(logs("ask", "secret")));
        let inner = inner.edge(START, "early").edge("early", "ask");
        let built = graph("outer")
            .channel("secret", Channel::untracked(ChannelType::String))
            .dyn_node("write", acts(|_| vec![("secret", json!("s3cret"))]))
            .subgraph("sub", Arc::new(inner.compile().unwrap()))
            .dyn_node("late", acts(logs("late", "secret")));
        let graph = Arc::new(built.edge(START, "write").edge("write", "sub").edge("sub", "late").compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        rig.replays(&graph, &id).await;
        rig.answer(&id, "ask", json!(1)).await;
        rig.advance(&graph, &id).await;
        let log = json!(["early saw \"s3cret\"", "ask saw \"nothing\"", "late saw \"nothing\""]);
        assert_eq!(rig.log(&graph, &id).await, log);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// Sends the whole state on, as LangGraph's users do.
struct Fans;

impl tidegate::graph::Router for Fans {
    fn destinations(&self) -> Vec<tidegate::graph::Destination> {
        vec![tidegate::graph::Destination { send: true, ..tidegate::graph::Destination::node("sent") }]
    }

    fn route(&self, state: &tidegate::graph::State) -> Result<Vec<Goto>, Failure> {
        Ok(vec![Goto::Send { to: "sent".into(), input: json!(state) }])
    }
}

#[tokio::test]
async fn an_untracked_value_is_not_kept_inside_a_send_either() {
    each(async |rig| {
        let built = graph("sends")
            .channel("secret", Channel::untracked(ChannelType::String))
            .dyn_node("write", acts(|_| vec![("secret", json!("s3cret"))]))
            .dyn_node("sent", acts(logs("sent", "secret")))
            .edge(START, "write")
            .router("write", Arc::new(Fans));
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        assert_eq!(rig.log(&graph, &id).await, json!(["sent saw \"s3cret\""]), "in the run it is there");
        let history = serde_json::to_string(&rig.engine.store().history(&id, "").await.unwrap()).unwrap();
        assert!(history.contains("\"input\":{"), "{history}");
        assert!(!history.contains("\"secret\":\"s3cret\""), "{history}");
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn what_would_be_lost_or_kept_is_refused() {
    each(async |rig| {
        let graph = secretive();
        let new = tidegate::graph::NewThread { input: object(json!({"secret": "x"})), ..Default::default() };
        assert_eq!(rig.engine.create(&graph, new).await.unwrap_err().failure().code, "untracked_input");
        let (id, _) = rig.run(&graph).await;
        let wrote = rig.engine.update(&graph, &id, &object(json!({"secret": "x"})), "write").await;
        assert_eq!(wrote.unwrap_err().failure().code, "untracked_input");
    })
    .await;
    let inner = graph("inner").channel("secret", Channel::last(ChannelType::Any)).node("a", speaker()).edge(START, "a");
    let built = graph("outer").channel("secret", Channel::untracked(ChannelType::Any));
    let built = built.subgraph("sub", Arc::new(inner.compile().unwrap())).edge(START, "sub").edge("sub", END);
    let errors = built.compile().err().unwrap();
    assert!(errors.errors.iter().any(|e| e.failure.code == "untracked_shared"), "{errors}");
    // A topic is a list, for whoever reads it and in its declaration.
    let built = graph("typed").channel("problem", Channel { value: ChannelType::Integer, ..Channel::topic(false) });
    let errors = built.node("a", speaker()).edge(START, "a").compile().err().unwrap();
    assert!(errors.errors.iter().any(|e| e.failure.code == "bad_reducer"), "{errors}");
    let built = StateGraph::new("typed").channel("log", Channel::topic(true)).channel("n", Channel::topic(true));
    let built = built.channel("item", Channel::last(ChannelType::Any)).node("a", speaker()).edge(START, "a");
    let errors = built.compile().err().unwrap();
    assert!(
        errors.errors.iter().any(|e| e.failure.code == "channel_type" && e.failure.message.contains("`n`")),
        "{errors}"
    );
}

#[tokio::test]
async fn a_subgraph_hands_back_what_is_still_there() {
    each(async |rig| {
        let inner = graph("inner")
            .channel("kept", Channel::topic(true))
            .channel("brief", Channel::topic(false))
            .dyn_node("a", acts(|_| vec![("kept", json!("a")), ("brief", json!("a"))]))
            .dyn_node("b", acts(|_| vec![("kept", json!(["b"]))]));
        let inner = inner.edge(START, "a").edge("a", "b").compile().unwrap();
        let built = graph("outer")
            .channel("kept", Channel::topic(true))
            .channel("brief", Channel::topic(true))
            .dyn_node("first", acts(|_| vec![("kept", json!("first")), ("brief", json!("first"))]))
            .subgraph("sub", Arc::new(inner));
        let graph = Arc::new(built.edge(START, "first").edge("first", "sub").compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        let values = rig.engine.state(&graph, &id).await.unwrap().values;
        assert_eq!((&values["kept"], &values["brief"]), (&json!(["first", "a", "b"]), &json!(["first"])));
        rig.replays(&graph, &id).await;
    })
    .await;
}
