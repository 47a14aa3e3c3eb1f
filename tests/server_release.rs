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
    // Policy asks nobody for this one, unless it wants to; then the answer is a yes.
    let runs = format!("/threads/{thread}/runs/wait");
    let (status, mut ended) = post(&runs, &json!({"assistant_id": "model_deployer", "input": document}));
    assert_eq!(status, 200, "{ended}\n{}", home.logs());
    if ended["__interrupt__"].is_array() {
        let yes = json!({"assistant_id": "model_deployer", "command": {"resume": {"approved": true}}});
        ended = post(&runs, &yes).1;
    }
    let output = &ended["output"];
    assert_eq!(output["deployment_id"], json!(thread), "{ended}\n{}", home.logs());
    assert_eq!(output["health_check_passed"], json!(true));
    assert_eq!(greet(output)["version"], "one");
    let history = home.history("hello");
    assert_eq!((&history[0]["status"], &history[0]["live"]), (&json!("COMPLETED"), &json!(true)));

    // Nobody changes a release's state from outside, or begins another one in its thread.
    let changed = post(&format!("/threads/{thread}/state"), &json!({"values": {"output": {}}}));
    assert_eq!(changed.0, 409, "{changed:?}");
    let again = post(&runs, &json!({"assistant_id": "model_deployer", "input": {}}));
    assert_eq!(again.0, 409, "{again:?}");
    let relative = json!({"modelArtifact": {"path": "here"}});
    let refused = post("/runs/wait", &json!({"assistant_id": "model_deployer", "input": relative}));
    assert!(refused.1["__error__"]["error"].is_string(), "{refused:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
