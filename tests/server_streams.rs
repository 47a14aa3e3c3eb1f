//! Streams are read again, wherever somebody begins: with the same ids and the same parts.

mod server_support;

use serde_json::{Value, json};
use server_support::{Sent, Serve, events};

const MODES: [&str; 7] = ["values", "updates", "custom", "debug", "tasks", "checkpoints", "events"];

struct Told {
    text: String,
    path: String,
}

/// A run that is followed while it goes on.
async fn followed(server: &Serve, thread: &str, mut body: Value) -> Told {
    for (key, value) in
        [("stream_mode", json!(MODES)), ("stream_subgraphs", json!(true)), ("stream_resumable", json!(true))]
    {
        body[key] = value;
    }
    let answer = server.request("POST", &format!("/threads/{thread}/runs/stream"), Some(body)).await;
    let path = answer.headers()["location"].to_str().unwrap().to_owned();
    Told { text: answer.text().await.unwrap(), path }
}

async fn again(server: &Serve, path: &str, after: Option<&str>) -> Vec<Sent> {
    let mut request = reqwest::Client::new().get(format!("{}{path}", server.url));
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    events(&request.send().await.unwrap().text().await.unwrap())
}

async fn is_told_again(server: &Serve, told: &Told) {
    let live = events(&told.text);
    assert_eq!(again(server, &told.path, None).await, live, "{}", told.path);
    for at in 1..live.len() {
        let after = live[at - 1].id.as_deref();
        assert_eq!(again(server, &told.path, after).await, live[at..], "{} after {after:?}", told.path);
    }
    for mode in MODES {
        let one = again(server, &format!("{}?stream_mode={mode}", told.path), None).await;
        let wanted = |sent: &&Sent| {
            ["metadata", "error"].contains(&sent.event.as_str()) || sent.event.split('|').next() == Some(mode)
        };
        let part = |sent: &Sent| (sent.event.clone(), sent.data.clone());
        let of: Vec<_> = live.iter().filter(wanted).map(part).collect();
        assert_eq!(one.iter().map(part).collect::<Vec<_>>(), of, "{} {mode}", told.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_of_a_thread_is_told_again_as_it_was() {
    let server = Serve::start();
    let thread = server.thread().await;
    let run = async |graph: &str, thread: &str, rest: Value| {
        let mut body = json!({"assistant_id": graph});
        body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        followed(&server, thread, body).await
    };
    let mut all = Vec::new();
    // A graph inside that asks; each answer is a run that begins where the other one ended.
    for _ in 0..2 {
        all.push(run("sub", &thread, json!({"input": {"model": "m"}})).await);
        all.push(run("sub", &thread, json!({"command": {"resume": "yes"}})).await);
    }
    let other = server.thread().await;
    for durability in ["sync", "async", "exit"] {
        all.push(run("steps", &other, json!({"input": {"n": 25}, "durability": durability})).await);
    }
    let past = server.post(&format!("/threads/{other}/history"), json!({"limit": 100})).await;
    let past = past.as_array().unwrap();
    let checkpoint = past[past.len() - 4]["checkpoint"]["checkpoint_id"].clone();
    all.push(run("steps", &other, json!({"checkpoint": {"checkpoint_id": checkpoint}})).await);
    let two = server.thread().await;
    all.push(run("par", &two, json!({"input": {}})).await);
    let failing = server.thread().await;
    all.push(run("boom", &failing, json!({"input": {"x": 1}})).await);
    for told in &all {
        is_told_again(&server, told).await;
    }
}
