//! The disk is full: what cannot be kept is refused and nothing of it is there, what is there can be read, and when there is room again
//! everything goes on without a restart. The full disk is a limit on the size of the files that the server writes: it is the same for every
//! user, and a write beyond it fails where one on a full disk does.

mod release_support;
mod server_support;

use std::process::{Command, Stdio};
use std::sync::Arc;

use release_support::{Home, greet};
use serde_json::{Value, json};
use server_support::{Serve, events, tidegate, waiting, workflows};

/// A server whose writes can be made to fail.
fn start() -> Serve {
    let home = Arc::new(tempfile::Builder::new().prefix("tidegate-full-").tempdir().unwrap());
    let folder = home.path().join("flows");
    std::fs::create_dir(&folder).unwrap();
    for file in std::fs::read_dir(workflows()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    std::fs::write(folder.join("waits.yaml"), waiting(&home.path().join("go"))).unwrap();
    let mut serve = tidegate(home.path());
    serve.args(["--json", "serve", "--listen", "127.0.0.1:0", "--workflows"]).arg(&folder);
    Serve::start_as(home, hardened(&serve))
}

/// The same command; a write beyond the limit does not end it.
fn hardened(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    command.get_current_dir().map(|folder| shell.current_dir(folder));
    shell
}

/// No file of the server's grows beyond so many bytes; `unlimited`: there is room.
fn limit(pid: u32, bytes: &str) {
    let limited =
        Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:unlimited")]).status();
    assert!(limited.is_ok_and(|status| status.success()));
}

async fn thread_count(server: &Serve) -> u64 {
    server.post("/threads/count", json!({})).await.as_u64().unwrap()
}

/// Makes threads until no more fits; how many were accepted.
async fn fill(server: &Serve) -> u64 {
    let log = server.home.path().join("tidegate.db-wal");
    limit(server.pid(), &std::fs::metadata(log).unwrap().len().to_string());
    for accepted in 0..5_000 {
        let answer = server.request("POST", "/threads", Some(json!({"metadata": {"x": "y".repeat(4_000)}}))).await;
        if answer.status() == 507 {
            return accepted;
        }
        assert_eq!(answer.status(), 200);
    }
    panic!("the disk takes everything");
}

struct There {
    asks: String,
    idle: String,
    long: String,
    stops: String,
    ended: String,
}

/// Everything that writes, by what it asks for.
fn writes(there: &There) -> Vec<(&'static str, String, Value)> {
    let There { asks, idle, stops, .. } = there;
    let run = json!({"assistant_id": "trivial", "input": {"x": 1}});
    vec![
        ("POST", "/threads".to_owned(), json!({})),
        ("PATCH", format!("/threads/{idle}"), json!({"metadata": {"a": 1}})),
        ("POST", format!("/threads/{idle}/runs"), run.clone()),
        ("POST", format!("/threads/{idle}/runs/wait"), run.clone()),
        ("POST", format!("/threads/{idle}/runs/stream"), run.clone()),
        ("POST", "/runs".to_owned(), run.clone()),
        ("POST", "/runs/batch".to_owned(), json!([run])),
        ("POST", format!("/threads/{asks}/runs"), json!({"assistant_id": "approval", "command": {"resume": "yes"}})),
        ("POST", format!("/threads/{asks}/state"), json!({"values": {"model": "n"}, "as_node": "prepare"})),
        ("POST", "/assistants".to_owned(), json!({"graph_id": "trivial"})),
        ("POST", format!("{stops}/cancel"), Value::Null),
        ("DELETE", format!("/threads/{idle}"), Value::Null),
    ]
}

async fn reads_work(server: &Serve, there: &There) {
    let There { asks, idle, ended, .. } = there;
    for path in [
        "/ok".to_owned(),
        "/approvals".to_owned(),
        "/releases".to_owned(),
        format!("/threads/{asks}"),
        format!("/threads/{asks}/state"),
        format!("/threads/{asks}/history"),
        format!("/threads/{asks}/export"),
        format!("/threads/{idle}/runs"),
        format!("{ended}/join"),
        "/ui/runs".to_owned(),
    ] {
        assert_eq!(server.request("GET", &path, None).await.status(), 200, "{path}");
    }
    let told = server.request("GET", &format!("{ended}/stream"), None).await.text().await.unwrap();
    assert!(events(&told).len() > 1, "{told}");
}

async fn begin(server: &Serve, graph: &str, rest: Value) -> (String, String) {
    let thread = server.thread().await;
    let mut body = json!({"assistant_id": graph, "stream_resumable": true});
    body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let run = server.post(&format!("/threads/{thread}/runs"), body).await;
    let path = format!("/threads/{thread}/runs/{}", run["run_id"].as_str().unwrap());
    (thread, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_and_what_is_there_goes_on() {
    let server = start();
    let go = server.home.path().join("go");
    let (asks, asking) = begin(&server, "approval", json!({"input": {"model": "m"}})).await;
    let (idle, ended) = begin(&server, "trivial", json!({"input": {"x": 1}})).await;
    let (_, stops) = begin(&server, "slow", json!({"input": {"x": 1}, "after_seconds": 3_600})).await;
    for path in [&asking, &ended] {
        server.get(&format!("{path}/join")).await;
    }
    let (_, long) = begin(&server, "waits", json!({"input": {}})).await;
    server_support::until_there(&go.with_extension("begun")).await;
    let there = There { asks, idle, long, stops, ended };
    let threads = thread_count(&server).await;

    let accepted = fill(&server).await;
    assert_eq!(thread_count(&server).await, threads + accepted, "what was refused is not there");
    // From here on nothing fits, however small.
    limit(server.pid(), "1");
    for (method, path, body) in writes(&there) {
        let answer = server.request(method, &path, Some(body)).await;
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 507, "{method} {path}: {said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(said["detail"].as_str().unwrap().contains("[store_cannot_write]"), "{said}");
    }
    reads_work(&server, &there).await;
    // What is under way comes to its end now, and cannot say so.
    std::fs::write(&go, "").unwrap();
    server_support::until_there(&go.with_extension("ended")).await;
    assert_eq!(server.get(&there.long).await["status"], "running");
    assert_eq!(thread_count(&server).await, threads + accepted);
    assert_eq!(server.get(&format!("/threads/{}/runs", there.idle)).await.as_array().unwrap().len(), 1);
    assert_eq!(server.get(&there.stops).await["status"], "pending");
    assert_eq!(server.get(&format!("/threads/{}", there.asks)).await["status"], "interrupted");

    limit(server.pid(), "unlimited");
    let values = server.get(&format!("{}/join", there.long)).await;
    assert_eq!(values["n"], 1, "what was under way goes on: {values}");
    for (method, path, body) in writes(&there) {
        let answer = server.request(method, &path, Some(body)).await;
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        // The answer changed the thread's state: what is asked of it then does not fit any more.
        let fits = status.is_success() || (status == 409 && path.ends_with("/state"));
        assert!(fits, "{method} {path}: {status} {said}");
    }
    let file = rusqlite::Connection::open(server.home.path().join("tidegate.db")).unwrap();
    let said: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(said, "ok");
    let verified = tidegate(server.home.path()).args(["audit", "verify"]).output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

async fn post(url: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = reqwest::Client::new().post(format!("{url}{path}")).json(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

#[test]
fn a_decision_that_does_not_fit_is_none_until_there_is_room() {
    let home = Home::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let serve = home.command(&["--json", "serve", "--listen", "127.0.0.1:0"]);
    let mut child = hardened(&serve).stdout(Stdio::piped()).spawn().unwrap();
    let url = server_support::told_url(&mut child).unwrap();
    let post = |path: &str, body: &Value| runtime.block_on(post(&url, path, body));
    let get = |path: &str| -> Value {
        runtime.block_on(async { reqwest::get(format!("{url}{path}")).await.unwrap().json().await.unwrap() })
    };
    let document = json!({
        "modelArtifact": {"path": home.hello("one").arg(), "framework": "scikit-learn", "version": "one"},
        "servingRequirements": {"latencyP99": "2s", "throughput": "1rps", "availability": "99%"},
        "deploymentStrategy": "blue-green",
        "infrastructure": {"platform": "local", "namespace": "default", "resources": {}},
    });
    let thread = post("/threads", &json!({})).1["thread_id"].as_str().unwrap().to_owned();
    let release = json!({"assistant_id": "model_deployer", "input": document});
    let (status, asked) = post(&format!("/threads/{thread}/runs/wait"), &release);
    assert_eq!((status, asked["__interrupt__"].is_array()), (200, true), "{asked}\n{}", home.logs());
    let open = get("/approvals");
    let one = format!("/approvals/{}", open[0]["id"].as_str().unwrap());
    let yes = json!({"verdict": "approve", "digest": open[0]["digest"], "reason": "as it should be"});

    limit(child.id(), "1");
    let (status, said) = post(&one, &yes);
    assert!(status == 507 && said["detail"].as_str().unwrap().contains("[store_cannot_write]"), "{status} {said}");
    let (status, _) = post("/runs", &release);
    assert_eq!(status, 507, "a release that does not fit is none");
    assert_eq!((get(&one)["answer"].clone(), get("/approvals").as_array().unwrap().len()), (Value::Null, 1));

    limit(child.id(), "unlimited");
    let (status, said) = post(&one, &yes);
    assert_eq!((status, &said["decided"]), (200, &json!(true)), "{said}");
    let ended = home.until("it has gone on by itself", || {
        let values = get(&format!("/threads/{thread}/state"))["values"].clone();
        values["output"].is_object().then_some(values)
    });
    assert_eq!(greet(&ended["output"])["version"], "one", "{}", home.logs());
    assert_eq!(home.history("hello").len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
}
