//! What the server refuses, bounds and keeps apart.

mod server_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use server_support::{Serve, events, tidegate};

#[test]
fn other_machines_are_not_served_without_keys() {
    let home = tempfile::tempdir().unwrap();
    let ended = tidegate(home.path()).args(["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    for part in ["error: ", "why: there are no keys", "next: make a key first", "(listen_not_local)"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn a_home_has_one_server() {
    let mut server = Serve::start();
    let second = || tidegate(server.home.path()).args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    let ended = second();
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("(server_running)"));
    server.kill();
    let again = Serve::start_in(server.home.clone(), &server_support::workflows(), "127.0.0.1:0");
    drop(again);
}

#[test]
fn a_workflow_with_a_mistake_is_told_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("flows");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("bad.yaml"), "name: bad\nnodes: {}\nedges: [ { from: START, to: nowhere } ]\n").unwrap();
    let ended = tidegate(home.path()).args(["serve", "--listen", "127.0.0.1:0", "--workflows"]).arg(&folder).output();
    let ended = ended.unwrap();
    assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("bad.yaml:3:"));
}

fn raw(server: &Serve, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    said
}

#[test]
fn pages_of_other_machines_may_not_ask() {
    let server = Serve::start();
    let ask = |host: &str, origin: &str| {
        raw(&server, &format!("GET /ok HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\nconnection: close\r\n\r\n"))
    };
    assert!(ask("localhost", "http://localhost:3000").starts_with("HTTP/1.1 200"));
    assert!(ask("localhost", "https://example.org").starts_with("HTTP/1.1 403"));
    assert!(ask("example.org", "http://localhost:3000").starts_with("HTTP/1.1 403"), "a name that leads here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_says_what_there_is() {
    let server = Serve::start();
    let document = server.get("/openapi.json").await;
    let thread = server.thread().await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25, "{}", paths.len());
    for (path, operations) in paths {
        let nowhere = "00000000-0000-4000-8000-000000000000";
        let path = path.replace("{thread}", &thread).replace("{assistant}", "trivial");
        let path = path.replace("{run}", nowhere).replace("{checkpoint}", nowhere).replace("{namespace}", "x");
        for method in operations.as_object().unwrap().keys().filter(|method| *method != "delete") {
            let answer = server.request(&method.to_uppercase(), &path, Some(json!({}))).await;
            let (status, said) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert!(status < 500 && status != 405, "{method} {path}: {status} {said}");
            let unknown = status == 404 && said.contains("\"Not Found\"") && !path.contains(nowhere);
            assert!(!unknown, "{method} {path}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_queues_are_bounded() {
    let server = Serve::start();
    let large = json!({"metadata": {"x": "y".repeat(5 * 1024 * 1024)}});
    assert_eq!(server.request("POST", "/threads", Some(large)).await.status(), 413);
    let thread = server.thread().await;
    let runs = format!("/threads/{thread}/runs");
    let body = json!({"assistant_id": "slow", "input": {"x": 1}});
    for _ in 0..100 {
        server.post(&runs, body.clone()).await;
    }
    assert_eq!(server.request("POST", &runs, Some(body)).await.status(), 429);
    assert_eq!(server.request("DELETE", &format!("/threads/{thread}"), None).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_no_run() {
    let server = Serve::start();
    let thread = server.thread().await;
    let big = "x".repeat(100_000);
    let body = json!({
        "assistant_id": "steps", "input": {"n": 0, "log": [big]}, "stream_mode": ["values", "debug"], "on_disconnect": "continue",
    });
    let text = body.to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "POST /threads/{thread}/runs/stream HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    // Nobody reads: some fifteen megabytes do not fit between two programs.
    let runs = server.until(&format!("/threads/{thread}/runs"), |runs| runs[0]["status"] == "success").await;
    assert_eq!(runs[0]["status"], "success");
    let read = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        stream.read_to_string(&mut said).map(|_| said.matches("event: values").count())
    });
    assert_eq!(read.await.unwrap().unwrap(), 61, "all of it is there when somebody reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_may_end_with_its_client() {
    let server = Serve::start();
    for (disconnect, ends) in [("cancel", true), ("continue", false)] {
        let thread = server.thread().await;
        let body = json!({"assistant_id": "steps", "input": {"n": 0}, "on_disconnect": disconnect}).to_string();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let head = format!(
            "POST /threads/{thread}/runs/stream HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut some = [0; 64];
        assert!(stream.read(&mut some).unwrap() > 0);
        drop(stream);
        let over = |runs: &Value| !["pending", "running"].iter().any(|status| runs[0]["status"] == *status);
        let runs = server.until(&format!("/threads/{thread}/runs"), over).await;
        assert_eq!(runs[0]["status"], if ends { "interrupted" } else { "success" }, "{disconnect}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_is_gone_on_with_and_a_rolled_back_one_is_gone() {
    let server = Serve::start();
    let thread = server.thread().await;
    let (runs, join) = (format!("/threads/{thread}/runs"), |run: &Value| {
        format!("/threads/{thread}/runs/{}/join", run["run_id"].as_str().unwrap())
    });
    let body =
        |n: i64, strategy: &str| json!({"assistant_id": "steps", "input": {"n": n}, "multitask_strategy": strategy});
    let first = server.post(&runs, body(0, "enqueue")).await;
    server.until(&format!("/threads/{thread}/state"), |state| state["values"]["n"].as_i64() > Some(2)).await;
    let second = server.post(&runs, body(20, "interrupt")).await;
    assert_eq!(server.get(&join(&second)).await["n"], 30);
    let path = format!("{runs}/{}", first["run_id"].as_str().unwrap());
    assert_eq!(server.get(&path).await["status"], "interrupted");
    let before = server.get(&format!("/threads/{thread}/state")).await["values"]["log"].clone();

    let third = server.post(&runs, body(0, "enqueue")).await;
    let path = format!("{runs}/{}", third["run_id"].as_str().unwrap());
    server.until(&path, |run| run["status"] == "running").await;
    server.until(&format!("/threads/{thread}/state"), |state| state["values"]["n"].as_i64() < Some(20)).await;
    let cancel = format!("{path}/cancel?wait=1&action=rollback");
    assert_eq!(server.post(&cancel, json!(null)).await, json!({}));
    assert_eq!(server.request("GET", &path, None).await.status(), 404);
    let state = server.get(&format!("/threads/{thread}/state")).await;
    assert_eq!((&state["values"]["n"], &state["values"]["log"]), (&json!(30), &before), "as before the run");
    let fourth = server.post(&runs, body(29, "enqueue")).await;
    assert_eq!(server.get(&join(&fourth)).await["n"], 30);

    // The thread of a run that had it for itself goes with it, taken back or not.
    for action in ["rollback", "interrupt"] {
        let alone = server.post("/runs", body(0, "enqueue")).await;
        let (thread, run) = (alone["thread_id"].as_str().unwrap(), alone["run_id"].as_str().unwrap());
        server.post(&format!("/threads/{thread}/runs/{run}/cancel?wait=1&action={action}"), json!(null)).await;
        server.until(&format!("/threads/{thread}"), |seen| seen["detail"].is_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_was_cancelled_in_the_terminal_takes_new_input() {
    let server = Serve::start();
    let thread = server.thread().await;
    let wait = format!("/threads/{thread}/runs/wait");
    let body = json!({"assistant_id": "approval", "input": {"model": "m"}});
    assert!(server.post(&wait, body.clone()).await["__interrupt__"].is_array());
    let cancelled = tidegate(server.home.path()).args(["run", "cancel", &thread]).output().unwrap();
    assert!(cancelled.status.success(), "{cancelled:?}");
    assert_eq!(server.get(&format!("/threads/{thread}")).await["status"], "idle");
    let again = server.post(&wait, body).await;
    assert!(again["__interrupt__"].is_array(), "{again}");
    let yes = json!({"assistant_id": "approval", "command": {"resume": "yes"}});
    assert_eq!(server.post(&wait, yes).await["decision"], "yes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_interrupts_of_a_run_and_runs_that_begin_later() {
    let server = Serve::start();
    let thread = server.thread().await;
    let wait = format!("/threads/{thread}/runs/wait");
    let stops = json!({"assistant_id": "approval", "input": {"model": "m"}, "interrupt_after": ["prepare"]});
    assert_eq!(server.post(&wait, stops.clone()).await["log"], json!(["prepare"]));
    assert_eq!(server.get(&format!("/threads/{thread}")).await["status"], "interrupted");
    // New input stops there again, and before the first node where that is asked for.
    assert_eq!(server.post(&wait, stops).await["log"], json!(["prepare", "prepare"]));
    let first = json!({"assistant_id": "approval", "input": {"model": "m"}, "interrupt_before": "*"});
    server.post(&wait, first).await;
    assert_eq!(server.get(&format!("/threads/{thread}/state")).await["next"], json!(["prepare"]));

    let later = json!({"assistant_id": "trivial", "input": {"x": 1}, "after_seconds": 1});
    let other = server.thread().await;
    let run = server.post(&format!("/threads/{other}/runs"), later).await;
    let path = format!("/threads/{other}/runs/{}", run["run_id"].as_str().unwrap());
    assert_eq!(server.get(&path).await["status"], "pending");
    assert_eq!(server.get(&format!("{path}/join")).await, json!({"x": 2}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_of_the_terminal_is_answered_through_the_api() {
    let server = Serve::start();
    let id = "01a1fa0e-efc7-7601-9874-c93f283a60f2";
    let file = server_support::workflows().join("approval.yaml");
    let mut started = tidegate(server.home.path());
    started.args(["run", "start"]).arg(file).args(["--input", r#"{"model": "m"}"#, "--thread", id, "--json"]);
    assert_eq!(started.output().unwrap().status.code(), Some(3));
    let thread = server.get(&format!("/threads/{id}")).await;
    assert_eq!((&thread["status"], &thread["metadata"]["graph_id"]), (&json!("interrupted"), &json!("approval")));
    let path = format!("/threads/{id}/runs/stream");
    let body = json!({"assistant_id": "approval", "command": {"resume": 1}, "stream_mode": "updates"});
    let told = events(&server.request("POST", &path, Some(body)).await.text().await.unwrap());
    assert_eq!(told.last().unwrap().data, json!({"deploy": {"log": ["deploy"]}}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_the_terminal_works_on_is_not_torn_away() {
    let server = Serve::start();
    let id = "01a1fa0e-efc7-7601-9874-c93f283a60f3";
    let go = server.home.path().join("go");
    let file = server.home.path().join("waits.yaml");
    std::fs::write(&file, server_support::waiting(&go)).unwrap();
    let mut started = tidegate(server.home.path());
    started.args(["run", "start"]).arg(&file).args(["--thread", id, "--json"]);
    started.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut started = started.spawn().unwrap();
    server_support::until_there(&go.with_extension("begun")).await;
    let refused = server.request("DELETE", &format!("/threads/{id}"), None).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("lease_held"));
    std::fs::write(&go, "").unwrap();
    assert!(started.wait().unwrap().success(), "it came to its end");
    server.until(&format!("/threads/{id}"), |thread| thread["status"] == "idle").await;
    assert_eq!(server.request("DELETE", &format!("/threads/{id}"), None).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_what_is_not_there_waits_for_no_writer() {
    let server = Serve::start();
    let begun = server.thread().await;
    server.post(&format!("/threads/{begun}/runs/wait"), json!({"assistant_id": "trivial", "input": {"x": 1}})).await;
    let file = rusqlite::Connection::open(server.home.path().join("tidegate.db")).unwrap();
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    let nowhere = "00000000-0000-4000-8000-000000000000";
    for path in [format!("/threads/{nowhere}"), format!("/threads/{nowhere}/state"), format!("/threads/{nowhere}/runs")]
    {
        assert_eq!(server.request("GET", &path, None).await.status(), 404, "{path}");
    }
    for path in [format!("/threads/{begun}"), format!("/threads/{begun}/state")] {
        assert_eq!(server.request("GET", &path, None).await.status(), 200, "{path}");
    }
    file.execute_batch("ROLLBACK").unwrap();
}

#[test]
fn a_path_that_is_no_text_is_refused_like_anything_else() {
    let server = Serve::start();
    for path in ["/threads/%ff", "/threads/%ff/runs/%fe", "/assistants/%ff", "/releases/%ff"] {
        let said = raw(&server, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400") && head.contains("application/json"), "{path}: {said}");
        assert!(serde_json::from_str::<Value>(body).unwrap()["detail"].is_string(), "{path}: {said}");
    }
    let page = raw(&server, "GET /ui/runs/%ff HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 400") && page.contains("text/html"), "{page}");
}
