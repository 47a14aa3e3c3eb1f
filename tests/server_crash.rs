//! The server is killed in the middle of its work: what it had accepted goes on, and a stream is rejoined where it broke off.

mod server_support;

use futures_util::StreamExt;
use serde_json::{Value, json};
use server_support::{Sent, Serve, events, workflows};

const RUNS: usize = 50;

async fn background(server: &Serve, thread: &str) -> String {
    let body = json!({
        "assistant_id": "steps", "input": {"n": 0}, "stream_mode": ["values", "updates"], "stream_resumable": true,
    });
    server.post(&format!("/threads/{thread}/runs"), body).await["run_id"].as_str().unwrap().to_owned()
}

/// Reads a stream until `enough`, or to its end.
async fn read(server: &Serve, path: &str, after: Option<&str>, enough: usize) -> Vec<Sent> {
    let mut request = reqwest::Client::new().get(format!("{}{path}", server.url));
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let mut body = request.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    while let Some(Ok(chunk)) = body.next().await {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        let whole = text.rfind("\r\n\r\n").map_or("", |end| &text[..end + 4]);
        if events(whole).len() >= enough {
            return events(whole);
        }
    }
    events(&text)
}

fn ids(all: &[Sent]) -> Vec<String> {
    all.iter().map(|sent| sent.id.clone().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_runs_go_on_after_a_kill_and_a_stream_is_rejoined() {
    let mut server = Serve::start();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let thread = server.thread().await;
        let run = background(&server, &thread).await;
        runs.push((thread, run));
    }
    // Behind the first run of one thread another one waits.
    let queued = background(&server, &runs[0].0).await;
    let followed = format!("/threads/{}/runs/{}/stream", runs[1].0, runs[1].1);
    let before = read(&server, &followed, None, 12).await;
    assert!(before.len() >= 12 && before.len() < 100, "it is killed in the middle: {}", before.len());
    server.kill();

    let server = Serve::start_in(server.home.clone(), &workflows(), "127.0.0.1:0");
    let last = before.last().unwrap().id.clone().unwrap();
    let after = read(&server, &followed, Some(&last), usize::MAX).await;
    let log: Vec<i64> = (0..30).collect();
    for (thread, run) in &runs {
        let ended = server.get(&format!("/threads/{thread}/runs/{run}/join")).await;
        assert_eq!((&ended["n"], &ended["log"]), (&json!(30), &json!(log)), "{thread}: each step once");
        let run = server.get(&format!("/threads/{thread}/runs/{run}")).await;
        assert_eq!(run["status"], "success");
    }
    let again: Value = server.get(&format!("/threads/{}/runs/{queued}/join", runs[0].0)).await;
    assert_eq!(again["n"], 30);
    let whole = read(&server, &followed, Some("0"), usize::MAX).await;
    let both: Vec<Sent> = before.into_iter().chain(after).collect();
    assert_eq!(ids(&both), ids(&whole), "no gap and no repeat");
    assert_eq!(both, whole);
    let values: Vec<&Value> = whole.iter().filter(|sent| sent.event == "values").map(|sent| &sent.data["n"]).collect();
    assert_eq!(values.last().unwrap(), &&json!(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_to_end_ends_at_a_step_and_goes_on_later() {
    let mut server = Serve::start();
    let thread = server.thread().await;
    let run = background(&server, &thread).await;
    let path = format!("/threads/{thread}/runs/{run}/stream");
    assert!(read(&server, &path, None, 6).await.len() >= 6);
    assert_eq!(server.stop(), 0, "it ends well");
    let server = Serve::start_in(server.home.clone(), &workflows(), "127.0.0.1:0");
    assert_eq!(server.get(&format!("/threads/{thread}/runs/{run}/join")).await["n"], 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stopped_stays_stopped_after_a_kill() {
    let home = std::sync::Arc::new(tempfile::Builder::new().prefix("tidegate-serve-").tempdir().unwrap());
    let (folder, go) = (home.path().join("flows"), home.path().join("go"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("waits.yaml"), server_support::waiting(&go)).unwrap();
    for action in ["interrupt", "rollback"] {
        let begun = go.with_extension("begun");
        let _ = (std::fs::remove_file(&go), std::fs::remove_file(&begun));
        let mut server = Serve::start_in(home.clone(), &folder, "127.0.0.1:0");
        let thread = server.thread().await;
        let runs = format!("/threads/{thread}/runs");
        let run = server.post(&runs, json!({"assistant_id": "waits", "input": {}})).await;
        let path = format!("{runs}/{}", run["run_id"].as_str().unwrap());
        server_support::until_there(&begun).await;
        let answer = server.request("POST", &format!("{path}/cancel?action={action}"), None).await;
        assert_eq!(answer.status(), 202, "{action}");
        // Its node has not ended: the run is under way until it does.
        server.kill();
        std::fs::write(&go, "").unwrap();

        let server = Serve::start_in(home.clone(), &folder, "127.0.0.1:0");
        server.until(&format!("/threads/{thread}"), |thread| thread["status"] != "busy").await;
        let state = server.get(&format!("/threads/{thread}/state")).await;
        assert!(state["values"]["n"].is_null(), "{action}: it did not go on: {state}");
        if action == "rollback" {
            assert_eq!(server.request("GET", &path, None).await.status(), 404, "it is taken back");
        } else {
            assert_eq!(server.get(&path).await["status"], "interrupted");
        }
    }
}
