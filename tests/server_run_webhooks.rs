//! The webhook of a run: told of its end as LangGraph's server tells it, at least once, signed, where the operator allows it.

mod hook_support;
mod server_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hook_support::{Receiver, Told};
use serde_json::{Value, json};
use server_support::{Serve, workflows};

type Home = Arc<tempfile::TempDir>;

fn home(settings: &Value) -> Home {
    let home = tempfile::Builder::new().prefix("tidegate-run-hooks-").tempdir().unwrap();
    std::fs::write(home.path().join("config.yaml"), settings.to_string()).unwrap();
    Arc::new(home)
}

fn serve(home: &Home) -> Serve {
    Serve::start_in(home.clone(), &workflows(), "127.0.0.1:0")
}

async fn until_told(receiver: &Receiver, path: &str, many: usize) -> Vec<Told> {
    let began = Instant::now();
    loop {
        let told = receiver.told(path);
        if told.len() >= many {
            return told;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "told of {} at {path}", told.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_end_of_a_run_is_told_also_by_the_next_server() {
    let receiver = Receiver::start();
    let settings =
        json!({"run_webhooks": {"allow": [format!("{}/runs", receiver.url)], "secret": {"file": "/dev/null"}}});
    let home = home(&settings);
    let secret = format!("whsec_{}", STANDARD.encode(b"a secret of the test's own"));
    std::fs::write(home.path().join("hook.key"), secret).unwrap();
    let text = settings.to_string().replace("/dev/null", home.path().join("hook.key").to_str().unwrap());
    std::fs::write(home.path().join("config.yaml"), text).unwrap();
    let mut server = serve(&home);
    let at = |name: &str| format!("{}/runs/{name}", receiver.url);

    // A run that comes to its end, one that asks, one that fails, and one whose thread goes with it.
    let thread = server.thread().await;
    let runs = format!("/threads/{thread}/runs");
    let asked = json!({"assistant_id": "approval", "input": {"model": "iris"}, "webhook": at("asks")});
    server.post(&format!("{runs}/wait"), asked).await;
    let told = until_told(&receiver, "/runs/asks", 1).await;
    let body = told[0].json();
    assert!(told[0].is_signed_with(b"a secret of the test's own"), "{told:?}");
    let run = server.get(&runs).await[0].clone();
    for key in
        ["run_id", "thread_id", "assistant_id", "metadata", "status", "kwargs", "multitask_strategy", "created_at"]
    {
        assert_eq!(body[key], run[key], "{key}: {body}");
    }
    assert_eq!((&body["status"], &body["values"]["model"]), (&json!("success"), &json!("iris")), "{body}");
    assert_eq!(body["values"]["__interrupt__"][0]["value"]["question"], "Deploy?", "{body}");
    assert!(body["error"].is_null() && body["webhook_sent_at"].is_string(), "{body}");
    assert!(body["run_started_at"].as_str().unwrap() <= body["run_ended_at"].as_str().unwrap(), "{body}");
    assert_eq!(told[0].id, format!("msg_run_{}", run["run_id"].as_str().unwrap()));
    let answer = json!({"assistant_id": "approval", "command": {"resume": "yes"}, "webhook": at("ends")});
    server.post(&format!("{runs}/wait"), answer).await;
    let body = until_told(&receiver, "/runs/ends", 1).await[0].json();
    assert_eq!(
        (&body["values"]["decision"], &body["values"]["__interrupt__"]),
        (&json!("yes"), &Value::Null),
        "{body}"
    );
    let fails = json!({"assistant_id": "boom", "input": {"x": 1}, "webhook": at("fails")});
    server.post("/runs/wait", fails).await;
    let body = until_told(&receiver, "/runs/fails", 1).await[0].json();
    assert!(body["status"] == "error" && body["error"].as_str().is_some_and(|why| !why.is_empty()), "{body}");

    // What nobody takes is told again, by the next server too, and others are told meanwhile.
    *receiver.refuses.lock().unwrap() = 1;
    let run = |name: &str| json!({"assistant_id": "approval", "input": {"model": name}, "webhook": at(name)});
    server.post("/runs/wait", run("again")).await;
    until_told(&receiver, "/runs/again", 1).await;
    *receiver.refuses.lock().unwrap() = u32::MAX;
    server.post("/runs/wait", run("later")).await;
    let began = Instant::now();
    while *receiver.refuses.lock().unwrap() == u32::MAX {
        assert!(began.elapsed() < Duration::from_secs(60), "it is never tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.kill();
    assert!(receiver.told("/runs/later").is_empty());
    *receiver.refuses.lock().unwrap() = 0;
    let server = serve(&home);
    let body = until_told(&receiver, "/runs/later", 1).await[0].json();
    assert_eq!(body["values"]["model"], "later", "{body}");
    // Nothing is left to be told.
    let began = Instant::now();
    let database = rusqlite::Connection::open(server.home.path().join("tidegate.db")).unwrap();
    while database.query_row("SELECT count(*) FROM run_webhooks", [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "something is still to be told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_place_that_never_answers_holds_up_only_its_own() {
    let (silent, receiver) = (Receiver::start(), Receiver::start());
    let home = home(&json!({"run_webhooks": {"allow": [silent.url, receiver.url]}}));
    let server = serve(&home);
    let run = |url: String| json!({"assistant_id": "trivial", "input": {}, "webhook": url});
    let many: Vec<Value> = (0..20).map(|n| run(format!("{}/silent/{n}", silent.url))).collect();
    server.post("/runs/batch", json!(many)).await;
    let began = Instant::now();
    while (0..20).filter(|n| !silent.told(&format!("/silent/{n}")).is_empty()).count() < 4 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.post("/runs/wait", run(format!("{}/ends", receiver.url))).await;
    let told = until_told(&receiver, "/ends", 1).await;
    assert!(told[0].signature.is_none());
    let tried = (0..20).filter(|n| !silent.told(&format!("/silent/{n}")).is_empty()).count();
    assert!(tried < 20, "those wait for each other");
}

#[tokio::test]
async fn only_where_the_operator_allows_it() {
    let server = Serve::start();
    let refused = |server: &Serve, url: Value| {
        let request = json!({"assistant_id": "trivial", "input": {}, "webhook": url});
        let (client, url) = (reqwest::Client::new(), format!("{}/runs", server.url));
        async move {
            let answer = client.post(url).json(&request).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    let (status, said) = refused(&server, json!("https://example.org/x")).await;
    assert!(status == 422 && said.contains("run_webhooks") && said.contains("webhook_refused"), "{status} {said}");
    drop(server);
    let server = serve(&home(&json!({"run_webhooks": {"allow": ["https://ops.example.org/tidegate"]}})));
    for url in [
        json!("/threads"),
        json!("http://169.254.169.254/latest/meta-data"),
        json!("https://ops.example.org/"),
        json!("https://ops.example.org/tidegate/../x"),
        json!("file:///etc/passwd"),
        json!(7),
    ] {
        let (status, said) = refused(&server, url.clone()).await;
        assert_eq!(status, 422, "{url}: {said}");
    }
    let (status, said) = refused(&server, Value::Null).await;
    assert_eq!(status, 200, "{said}");
    // A mistake in the settings is told at the start.
    let home = home(&json!({"run_webhooks": {"allow": ["ops.example.org"]}}));
    let ended = server_support::tidegate(home.path()).args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(2) && said.contains("run_webhooks"), "{said}");
}
