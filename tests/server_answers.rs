//! Answers and stops that race with each other, with their clients' ends, and with what is under way.

mod server_support;

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};
use server_support::Serve;

/// A thread that stands at its question.
async fn asked(server: &Serve) -> String {
    let thread = server.thread().await;
    let body = json!({"assistant_id": "approval", "input": {"model": "m"}});
    let values = server.post(&format!("/threads/{thread}/runs/wait"), body).await;
    assert!(values["__interrupt__"].is_array(), "{values}");
    thread
}

fn answer(with: &str) -> Value {
    json!({"assistant_id": "approval", "command": {"resume": with}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_answers_at_once_one_counts_and_the_other_hears_whose() {
    let server = Serve::start();
    for _ in 0..12 {
        let thread = asked(&server).await;
        let path = format!("/threads/{thread}/runs/wait");
        let (a, b) = tokio::join!(
            server.request("POST", &path, Some(answer("a"))),
            server.request("POST", &path, Some(answer("b")))
        );
        let (won, lost) = if a.status() == 200 { (a, b) } else { (b, a) };
        assert_eq!((won.status().as_u16(), lost.status().as_u16()), (200, 409));
        let values: Value = won.json().await.unwrap();
        assert_eq!(values["log"], json!(["prepare", "approve", "deploy"]), "{values}");
        let said = lost.text().await.unwrap();
        assert!(said.contains("already_decided") || said.contains("answered"), "{said}");
        let thread = server.get(&format!("/threads/{thread}")).await;
        assert_eq!(thread["status"], "idle", "{thread}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_to_what_is_asked_and_not_to_what_may_be_asked_later() {
    let server = Serve::start();
    let thread = server.thread().await;
    let runs = format!("/threads/{thread}/runs");
    let later = json!({"assistant_id": "approval", "input": {"model": "m"}, "after_seconds": 1});
    server.post(&runs, later).await;
    let early = server.request("POST", &runs, Some(answer("yes"))).await;
    assert_eq!(early.status(), 409);
    assert!(early.text().await.unwrap().contains("no_interrupt"));
    let asks =
        |thread: &Value| thread["status"] == "interrupted" && !thread["interrupts"].as_object().unwrap().is_empty();
    server.until(&format!("/threads/{thread}"), asks).await;
    assert_eq!(server.get(&runs).await.as_array().unwrap().len(), 1, "what was refused is no run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_is_done_whoever_hangs_up() {
    let server = Serve::start();
    let mut threads = Vec::new();
    for n in 0..15 {
        let thread = server.thread().await;
        let body = json!({"assistant_id": "trivial", "input": {"x": 1}}).to_string();
        let length = body.len();
        let head = format!(
            "POST /threads/{thread}/runs HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        if n == 0 {
            // One that certainly got there; of the others some may be gone before anybody has read them.
            let runs = format!("/threads/{thread}/runs");
            server.until(&runs, |runs| runs.as_array().is_some_and(|runs| !runs.is_empty())).await;
        }
        drop(stream);
        threads.push(thread);
    }
    // Accepted or not: what was accepted comes to its end.
    let mut accepted = 0;
    for thread in threads {
        server.until(&format!("/threads/{thread}"), |thread| thread["status"] == "idle").await;
        let runs = server.get(&format!("/threads/{thread}/runs")).await;
        accepted += runs.as_array().unwrap().len();
        assert!(runs.as_array().unwrap().iter().all(|run| run["status"] == "success"), "{runs}");
    }
    assert!(accepted > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_deep_to_be_read_again_is_refused() {
    let server = Serve::start();
    let thread = server.thread().await;
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let body = |levels| json!({"assistant_id": "approval", "input": {"model": "m", "decision": deep(levels)}});
    let path = format!("/threads/{thread}/runs/wait");
    for levels in [80, 120] {
        assert_eq!(server.request("POST", &path, Some(body(levels))).await.status(), 422, "{levels}");
    }
    let values = server.post(&path, body(50)).await;
    assert!(values["__interrupt__"].is_array(), "{values}");
    let found = server.post("/threads/search", json!({"ids": [thread]})).await;
    assert_eq!(found[0]["values"]["decision"], deep(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_not_lost_over_another_cancel() {
    let server = Serve::start();
    let thread = server.thread().await;
    let runs = format!("/threads/{thread}/runs");
    let body = json!({"assistant_id": "steps", "input": {"n": 0}});
    let first = server.post(&runs, body.clone()).await["run_id"].as_str().unwrap().to_owned();
    let second = server.post(&runs, body).await["run_id"].as_str().unwrap().to_owned();
    server.until(&format!("{runs}/{first}"), |run| run["status"] == "running").await;
    for (run, action) in [(&first, "rollback"), (&second, "interrupt")] {
        let answer = server.request("POST", &format!("{runs}/{run}/cancel?action={action}"), None).await;
        assert_eq!(answer.status(), 202);
    }
    server.until(&format!("/threads/{thread}"), |thread| thread["status"] != "busy").await;
    assert_eq!(server.request("GET", &format!("{runs}/{first}"), None).await.status(), 404, "it is taken back");
    assert_eq!(server.get(&format!("{runs}/{second}")).await["status"], "interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_a_release_are_no_graphs_of_their_own() {
    let server = Serve::start();
    let all = server.post("/assistants/search", json!({"limit": 100})).await;
    let graphs: Vec<&str> = all.as_array().unwrap().iter().filter_map(|one| one["graph_id"].as_str()).collect();
    assert!(graphs.contains(&"model_deployer") && graphs.contains(&"rollback"), "{graphs:?}");
    for part in ["blue_green", "canary", "rolling", "shadow", "ab_test", "recreate"] {
        assert!(!graphs.contains(&part));
        let begun = server.request("POST", "/runs/wait", Some(json!({"assistant_id": part, "input": {}}))).await;
        assert_eq!(begun.status(), 422, "{part}");
    }
    let of = |graph: &str| {
        all.as_array().unwrap().iter().find(|one| one["graph_id"] == graph).unwrap()["assistant_id"].clone()
    };
    let own = format!("/assistants/{}", of("approval").as_str().unwrap());
    assert_eq!(server.request("PATCH", &own, Some(json!({"graph_id": "trivial"}))).await.status(), 409);
    assert_eq!(server.request("DELETE", &own, None).await.status(), 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_told_to_programs_and_to_people() {
    let server = Serve::start();
    let document = server.get("/openapi.json").await;
    let shown = server.request("GET", "/docs", None).await;
    assert_eq!(shown.status(), 200);
    assert_eq!(shown.headers()["content-type"], "text/html; charset=utf-8");
    assert!(shown.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'self'"));
    let text = shown.text().await.unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let request = format!("<code>{} {path}</code>", method.to_uppercase());
            assert!(text.contains(&request), "{request}");
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
}
