//! Questions: asked once, claimed once, never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tidegate::graph::{Answer, NodeError, NodePolicy, Outcome, START, StoreError, ThreadStatus};

use crate::support::*;

#[tokio::test]
async fn the_first_answer_wins_and_the_second_hears_whose() {
    each(async |rig| {
        let graph = chain("claim", vec![("ask", asker())]);
        let (id, _) = rig.run(&graph).await;
        let store = rig.engine.store().clone();
        let open = store.interrupts(Some(&id), true).await.unwrap().remove(0);
        let wrong = store.answer(&open.id, &by("eve", json!(0)), Some("sha256:other")).await.unwrap_err();
        assert_eq!(wrong.failure().code, "changed");
        let (ada, bob) = (by("ada", json!("ada")), by("bob", json!("bob")));
        let shown = Some(open.digest.as_str());
        let (first, second) = tokio::join!(store.answer(&open.id, &ada, shown), store.answer(&open.id, &bob, shown));
        let lost = [first, second].into_iter().filter_map(Result::err).collect::<Vec<_>>();
        assert!(matches!(lost.as_slice(), [StoreError::Answered { by, .. }] if by == "ada"), "{lost:?}");
        rig.advance(&graph, &id).await;
        assert_eq!(rig.log(&graph, &id).await, json!(["ask heard \"ada\""]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_swallowed_question_is_an_error() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                let answer = cx.interrupt(&"?").await.unwrap_or(json!("assumed"));
                Ok(Outcome::update(says(answer.to_string())))
            })
        });
        let graph = chain("swallow", vec![("bad", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "interrupt_swallowed"));
        assert!(rig.open(&id).await.is_empty());
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn several_questions_in_one_node_are_asked_one_after_the_other() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                let mut heard: Vec<Value> = Vec::new();
                for n in 0..3 {
                    heard.push(cx.interrupt(&json!({"n": n})).await?);
                }
                Ok(Outcome::update(says(json!(heard).to_string())))
            })
        });
        let graph = chain("several", vec![("ask", node)]);
        let (id, _) = rig.run(&graph).await;
        for n in 0..3 {
            let open = rig.engine.store().interrupts(Some(&id), true).await.unwrap();
            assert_eq!(open.iter().map(|i| &i.value).collect::<Vec<_>>(), [&json!({"n": n})]);
            rig.replays(&graph, &id).await;
            rig.answer(&id, "ask", json!(n * 10)).await;
            rig.advance(&graph, &id).await;
        }
        assert_eq!(rig.log(&graph, &id).await, json!(["[0,10,20]"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn parallel_branches_wait_for_their_own_answers() {
    each(async |rig| {
        let built = graph("parallel")
            .node("a", asker())
            .node("b", asker())
            .node("c", maker())
            .edge(START, "a")
            .edge(START, "b")
            .edge(START, "c");
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        assert_eq!(rig.open(&id).await, ["a", "b"]);
        rig.answer(&id, "b", json!("second")).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
        assert_eq!(rig.open(&id).await, ["a"], "what was answered is not asked again");
        rig.answer(&id, "a", json!("first")).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["a heard \"first\"", "b heard \"second\"", "made c"]));
        assert_eq!(rig.world.count("perform c"), 1);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn questions_in_subgraphs_come_through() {
    each(async |rig| {
        let inner = chain("inner", vec![("make", maker()), ("ask", asker()), ("after", speaker())]);
        let built = graph("outer").subgraph("sub", inner).node("side", asker()).node("end", speaker());
        let graph =
            Arc::new(built.edge(START, "sub").edge(START, "side").barrier(["sub", "side"], "end").compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        assert_eq!(rig.open(&id).await, ["ask", "side"]);
        rig.answer(&id, "ask", json!(1)).await;
        rig.advance(&graph, &id).await;
        rig.replays(&graph, &id).await;
        rig.answer(&id, "side", json!(2)).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        let log = json!(["side heard 2", "made make", "ask heard 1", "after", "end"]);
        assert_eq!(rig.log(&graph, &id).await, log);
        assert_eq!(rig.world.count("perform make"), 1);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_question_with_a_term_takes_no_late_answer() {
    each(async |rig| {
        let policy = NodePolicy { interrupt_ttl: Some(Duration::from_millis(20)), ..NodePolicy::default() };
        let built = graph("term").node("ask", asker()).policy("ask", policy).edge(START, "ask");
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        let open = rig.engine.store().interrupts(Some(&id), true).await.unwrap().remove(0);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let late = rig.engine.store().answer(&open.id, &by("ada", json!(1)), None).await.unwrap_err();
        assert_eq!(late.failure().code, "expired");
    })
    .await;
}

#[tokio::test]
async fn static_interrupts_stop_once_each() {
    each(async |rig| {
        let built = graph("static").node("a", maker()).node("b", maker()).node("c", maker());
        let built = built.edge(START, "a").edge("a", "b").edge("b", "c");
        let graph = Arc::new(built.interrupt_before(["a", "c"]).interrupt_after(["a"]).compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        let mut seen = vec![rig.world.count("perform")];
        while rig.advance(&graph, &id).await.status == ThreadStatus::Interrupted {
            seen.push(rig.world.count("perform"));
            rig.replays(&graph, &id).await;
        }
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(rig.world.count("perform"), 3);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// As LangGraph 1.2.22, and what goes on behind such a stop is replayed as it went on.
#[tokio::test]
async fn a_run_goes_on_behind_a_stop_at_its_end() {
    each(async |rig| {
        let built = graph("end").node("a", speaker()).node("b", speaker()).edge(START, "a").edge("a", "b");
        let graph = Arc::new(built.interrupt_after(["b"]).compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        rig.engine.update(&graph, &id, &Map::new(), "a").await.unwrap();
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        rig.replays(&graph, &id).await;
        rig.engine.input(&graph, &id, &Map::new()).await.unwrap();
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// As LangGraph 1.2.22: a subgraph stops behind its last node too.
#[tokio::test]
async fn a_subgraph_stops_at_its_end_and_is_replayed_whatever_comes_behind() {
    each(async |rig| {
        let inner = graph("inner").node("b", speaker()).edge(START, "b").interrupt_after(["b"]);
        let inner = Arc::new(inner.compile().unwrap());
        let built = graph("outer").subgraph("sub", inner).node("post", failing()).node("side", speaker());
        let built = built.edge(START, "sub").edge(START, "side").edge("sub", "post");
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        rig.replays(&graph, &id).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Failed);
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// As LangGraph 1.2.22: an interrupt was passed by whoever continued, not by whoever begins anew.
#[tokio::test]
async fn new_input_stops_before_a_node_that_was_stopped_before() {
    each(async |rig| {
        let built = graph("anew").node("a", maker()).edge(START, "a").interrupt_before(["a"]);
        let graph = Arc::new(built.compile().unwrap());
        let (id, _) = rig.run(&graph).await;
        for _ in 0..2 {
            rig.engine.input(&graph, &id, &object(json!({}))).await.unwrap();
            assert_eq!(rig.engine.store().thread(&id).await.unwrap().unwrap().status, ThreadStatus::Pending);
            assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Interrupted);
            rig.replays(&graph, &id).await;
        }
        assert_eq!(rig.world.count("perform"), 0);
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.world.count("perform"), 1);
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn an_error_beats_a_waiting_sibling_and_withdraws_its_question() {
    each(async |rig| {
        let built = graph("beats").node("ask", asker()).node("bad", failing()).edge(START, "ask").edge(START, "bad");
        let graph = Arc::new(built.compile().unwrap());
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "boom"));
        assert!(rig.open(&id).await.is_empty());
        let asked = rig.engine.store().interrupts(Some(&id), false).await.unwrap().remove(0);
        let late = rig.engine.store().answer(&asked.id, &by("ada", json!(1)), None).await.unwrap_err();
        assert_eq!(late.failure().code, "withdrawn");
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_question_that_fails_for_another_reason_is_that_failure() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                match cx.interrupt(&"?").await {
                    Err(NodeError::Suspended) => Err(NodeError::Suspended),
                    other => Ok(Outcome::update(says(other?.to_string()))),
                }
            })
        });
        let graph = chain("passed-on", vec![("ask", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        rig.answer(&id, "ask", json!(3)).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
    })
    .await;
}

/// Asks, with a short time to answer, after something was made.
fn hurried() -> Step {
    step(|cx, _| {
        Box::pin(async move {
            cx.effect("make", Make::of(cx.node())).await?;
            let answer = cx.interrupt_within(&"soon?", Duration::from_millis(30)).await?;
            Ok(Outcome::update(says(answer.to_string())))
        })
    })
}

#[tokio::test]
async fn a_question_that_nobody_answers_in_time_fails_its_node() {
    each(async |rig| {
        let graph = chain("late", vec![("ask", hurried())]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        let store = rig.engine.store();
        let asked = store.interrupts(Some(&id), true).await.unwrap().remove(0);
        wait_until(asked.expires_at.unwrap()).await;
        let end = rig.advance(&graph, &id).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "expired"));
        assert_eq!(rig.world.things(), Vec::<String>::new(), "what was made is undone");
        let late = store.answer(&asked.id, &by("ada", json!(1)), None).await.unwrap_err();
        assert_eq!(late.failure().code, "expired");
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_the_last_moment_counts() {
    each(async |rig| {
        // The run begins with an open question; the answer is given in time but only after the run has looked.
        let store = rig.engine.store().clone();
        let node = step(move |cx, _| {
            let store = store.clone();
            Box::pin(async move {
                if let Some(open) = store.interrupts(Some(cx.thread()), true).await.unwrap().pop() {
                    let expires = open.expires_at.unwrap();
                    let at = expires - chrono::Duration::milliseconds(1);
                    store.answer(&open.id, &Answer { at, ..by("ada", json!("yes")) }, None).await.unwrap();
                    wait_until(expires).await;
                }
                let answer = cx.interrupt_within(&"soon?", Duration::from_millis(30)).await?;
                Ok(Outcome::update(says(answer.to_string())))
            })
        });
        let graph = chain("just", vec![("ask", node)]);
        let (id, _) = rig.run(&graph).await;
        let end = rig.advance(&graph, &id).await;
        assert_eq!(end.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["\"yes\""]));
    })
    .await;
}

#[tokio::test]
async fn whoever_caught_the_expiry_replays_it() {
    each(async |rig| {
        let node = step(|cx, _| {
            Box::pin(async move {
                match cx.interrupt_within(&"soon?", Duration::from_millis(30)).await {
                    Err(NodeError::Failed(failure)) => Ok(Outcome::update(says(failure.code.clone()))),
                    other => Ok(Outcome::update(says(other?.to_string()))),
                }
            })
        });
        let graph = chain("caught", vec![("ask", node)]);
        let (id, _) = rig.run(&graph).await;
        let asked = rig.engine.store().interrupts(Some(&id), true).await.unwrap().remove(0);
        wait_until(asked.expires_at.unwrap()).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["expired"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

/// Asks and looks around until the question is settled, at most three times. `at_look` happens between two looks.
fn watchful(
    ttl: Duration,
    at_look: impl Fn(usize) -> BoxFuture<'static, Result<(), NodeError>> + Send + Sync + 'static,
) -> Step {
    let at_look = Arc::new(at_look);
    step(move |cx, _| {
        let at_look = at_look.clone();
        Box::pin(async move {
            cx.effect("make", Make::of(cx.node())).await?;
            let posed = cx.pose(&"go on?", ttl).await?;
            for look in 1..=3 {
                if cx.pin("look", posed.is_settled()).await? {
                    let answer = posed.answer().await?;
                    return Ok(Outcome::update(says(format!("{answer} at look {look}"))));
                }
                at_look(look).await?;
            }
            Ok(Outcome::update(says(posed.answer().await?.to_string())))
        })
    })
}

#[tokio::test]
async fn a_node_goes_on_while_its_question_stands() {
    each(async |rig| {
        // Dies after the first look, and is answered after the second one.
        let (store, died) = (rig.engine.store().clone(), Arc::new(AtomicBool::new(false)));
        let node = watchful(Duration::from_secs(60), move |look| {
            let (store, died) = (store.clone(), died.clone());
            Box::pin(async move {
                if !died.swap(true, Ordering::Relaxed) {
                    return Err(NodeError::Drained);
                }
                // A replay comes by here too, and finds it answered.
                if look == 2
                    && let Some(open) = store.interrupts(None, true).await?.pop()
                {
                    store.answer(&open.id, &by("ada", json!("yes")), None).await?;
                }
                Ok(())
            })
        });
        let graph = chain("posed", vec![("ask", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Running, "drained");
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["\"yes\" at look 3"]));
        assert_eq!(rig.world.count("perform"), 1);
        assert_eq!(rig.engine.store().interrupts(Some(&id), false).await.unwrap().len(), 1, "asked once");
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_posed_question_whose_time_is_over_fails_its_node() {
    each(async |rig| {
        let node = watchful(Duration::from_millis(30), |_| {
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(40)).await;
                Ok(())
            })
        });
        let graph = chain("posed late", vec![("ask", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!((end.status, code(&end)), (ThreadStatus::Failed, "expired"));
        assert_eq!(rig.world.things(), Vec::<String>::new(), "what was made is undone");
        assert_eq!(rig.engine.store().interrupts(Some(&id), true).await.unwrap(), Vec::new());
        rig.replays(&graph, &id).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_may_stop_looking_and_wait() {
    each(async |rig| {
        let node = watchful(Duration::from_secs(60), |_| Box::pin(async { Ok(()) }));
        let graph = chain("posed and left", vec![("ask", node)]);
        let (id, end) = rig.run(&graph).await;
        assert_eq!(end.status, ThreadStatus::Interrupted);
        rig.answer(&id, "ask", json!(3)).await;
        assert_eq!(rig.advance(&graph, &id).await.status, ThreadStatus::Succeeded);
        assert_eq!(rig.log(&graph, &id).await, json!(["3"]));
        rig.replays(&graph, &id).await;
    })
    .await;
}

async fn wait_until(at: chrono::DateTime<chrono::Utc>) {
    while chrono::Utc::now() <= at {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
