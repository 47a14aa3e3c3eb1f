//! A release as a run of the graph `model_deployer`: begun with the deployment engineer's document, approved by a resume, its contract in the
//! values.

mod release_support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use release_support::{Home, greet};
use serde_json::{Value, json};

async fn post(url: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = reqwest::Client::new().post(format!("{url}{path}")).json(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
}

#[test]
fn a_release_is_begun_approved_and_told_through_the_api() {
    let home = Home::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let project = home.hello("one");
    let mut serve = home.command(&["--json", "serve", "--listen", "127.0.0.1:0"]);
    let mut child = serve.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while serde_json::from_str::<Value>(&said).is_err() {
        said.push_str(&lines.next().expect("the server tells its address").unwrap());
    }
    let url = serde_json::from_str::<Value>(&said).unwrap()["url"].as_str().unwrap().to_owned();
    let post = |path: &str, body: &Value| runtime.block_on(post(&url, path, body));
    let thread = post("/threads", &json!({})).1["thread_id"].as_str().unwrap().to_owned();
    let document = json!({
        "modelArtifact": {"path": project.arg(), "framework": "scikit-learn", "version": "one"},
        "servingRequirements": {"latencyP99": "2s", "throughput": "1rps", "availability": "99%"},
        "deploymentStrategy": "blue-green",
        "infrastructure": {"platform": "local", "namespace": "default", "resources": {}},
    });
    let runs = format!("/threads/{thread}/runs/wait");
    let (status, asked) = post(&runs, &json!({"assistant_id": "model_deployer", "input": document}));
    assert_eq!((status, asked["__interrupt__"].is_array()), (200, true), "{asked}\n{}", home.logs());
    // Agent Inbox and agent-chat-ui can draw it.
    let shown = &asked["__interrupt__"][0]["value"];
    assert_eq!(shown["action_request"]["args"]["model"], json!("hello"), "{shown}");
    assert_eq!(shown["action_requests"][0]["arguments"]["digest"], shown["digest"]);
    assert!(shown["description"].as_str().unwrap().contains("smoke:"), "{shown}");
    // Whoever decides carries what was shown; a decision without it, or on something else, is none.
    let get = |path: &str| -> Value {
        runtime.block_on(async { reqwest::get(format!("{url}{path}")).await.unwrap().json().await.unwrap() })
    };
    let open = get("/approvals");
    let (id, digest) = (open[0]["id"].as_str().unwrap(), &open[0]["digest"]);
    assert_eq!((&open[0]["thread_id"], &open[0]["model"]), (&json!(thread), &json!("hello")), "{open}");
    let one = format!("/approvals/{id}");
    assert_eq!(post(&one, &json!({"verdict": "approve"})).0, 422);
    assert_eq!(post(&one, &json!({"verdict": "perhaps", "digest": digest})).0, 422);
    assert_eq!(post(&one, &json!({"verdict": "reject", "digest": digest})).0, 422, "a no says why");
    let outdated = post(&one, &json!({"verdict": "approve", "digest": "sha256:0"}));
    assert!(outdated.0 == 409 && outdated.1["detail"].as_str().unwrap().contains("decision_outdated"), "{outdated:?}");
    assert_eq!(post("/approvals/none", &json!({"verdict": "approve", "digest": digest})).0, 404);
    let decided = post(&one, &json!({"verdict": "approve", "digest": digest, "reason": "as it should be"}));
    assert_eq!(decided.0, 200, "{decided:?}");
    let second = post(&one, &json!({"verdict": "reject", "digest": digest, "reason": "too late"}));
    let by = get(&one)["answer"]["by"].as_str().unwrap().to_owned();
    assert!(second.0 == 409 && second.1["detail"].as_str().unwrap().contains(&by), "{second:?}");
    assert_eq!(get("/approvals"), json!([]));
    let ended = home.until("it has gone on by itself", || {
        let values = get(&format!("/threads/{thread}/state"))["values"].clone();
        values["output"].is_object().then_some(values)
    });
    let output = &ended["output"];
    assert_eq!(output["deployment_id"], json!(thread), "{ended}\n{}", home.logs());
    assert_eq!(output["health_check_passed"], json!(true));
    assert_eq!(greet(output)["version"], "one");
    let history = home.history("hello");
    assert_eq!((&history[0]["status"], &history[0]["live"]), (&json!("COMPLETED"), &json!(true)));

    // The next one is approved by a resume.
    let mut next = document.clone();
    next["modelArtifact"] = json!({"path": home.hello("two").arg(), "framework": "scikit-learn", "version": "two"});
    let second = post("/threads", &json!({})).1["thread_id"].as_str().unwrap().to_owned();
    let wait = format!("/threads/{second}/runs/wait");
    let asked = post(&wait, &json!({"assistant_id": "model_deployer", "input": next})).1;
    assert!(asked["__interrupt__"].is_array(), "{asked}");
    let yes = json!({"assistant_id": "model_deployer", "command": {"resume": {"approved": true}}});
    let ended = post(&wait, &yes).1;
    assert_eq!(greet(&ended["output"])["version"], "two", "{ended}\n{}", home.logs());

    // Nobody changes a release's state from outside, or begins another one in its thread.
    let changed = post(&format!("/threads/{thread}/state"), &json!({"values": {"output": {}}}));
    assert_eq!(changed.0, 409, "{changed:?}");
    let again = post(&runs, &json!({"assistant_id": "model_deployer", "input": {}}));
    assert_eq!(again.0, 409, "{again:?}");
    // Its record stays, and so does that of one that was begun without a thread and waits for its approval.
    let gone = |thread: &str| {
        runtime.block_on(async {
            reqwest::Client::new().delete(format!("{url}/threads/{thread}")).send().await.unwrap().status().as_u16()
        })
    };
    assert_eq!(gone(&thread), 409);
    let third = json!({"path": home.hello("three").arg(), "framework": "scikit-learn", "version": "three"});
    next["modelArtifact"] = third;
    let waits = post("/runs/wait", &json!({"assistant_id": "model_deployer", "input": next})).1;
    assert!(waits["__interrupt__"].is_array(), "{waits}");
    let open = get("/approvals");
    let (id, digest, third) = (&open[0]["id"], &open[0]["digest"], open[0]["thread_id"].as_str().unwrap());
    assert_eq!(gone(third), 409);
    let no = json!({"verdict": "reject", "digest": digest, "reason": "not this one"});
    assert_eq!(post(&format!("/approvals/{}", id.as_str().unwrap()), &no).0, 200);
    home.until("it is undone", || (home.history("hello")[0]["status"] == "FAILED").then_some(()));
    assert_eq!(greet(&ended["output"])["version"], "two");

    let relative = json!({"modelArtifact": {"path": "here"}});
    let refused = post("/runs/wait", &json!({"assistant_id": "model_deployer", "input": relative}));
    assert!(refused.1["__error__"]["error"].is_string(), "{refused:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
