//! Requests that nobody would think of, made of what `/openapi.json` says, by Schemathesis: none of them is an error of the server's.

mod server_support;

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use server_support::Serve;
use server_support::made::{made_once, run};

const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// An assistant, a thread and its run, so that what is asked for is often there.
async fn there(server: &Serve) -> [String; 3] {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let thread = server.thread().await;
    let run = json!({"assistant_id": "approval", "input": {"model": "iris"}});
    server.post(&format!("/threads/{thread}/runs/wait"), run).await;
    let runs = server.get(&format!("/threads/{thread}/runs")).await;
    let assistants = server.post("/assistants/search", json!({"graph_id": "approval"})).await;
    [text(&assistants[0]["assistant_id"]), thread, text(&runs[0]["run_id"])]
}

#[test]
fn no_request_is_an_error_of_the_server() {
    let folder = made_once("schemathesis-4.32.5", |folder| {
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder));
        run(Command::new(folder.join("venv/bin/pip")).args(["install", "-q", SCHEMATHESIS]));
    });
    let server = Serve::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [assistant, thread, of_thread] = runtime.block_on(there(&server));
    let settings = server.home.path().join("schemathesis.toml");
    let known = format!(
        "\"path.assistant\" = \"{assistant}\"\n\"path.thread\" = \"{thread}\"\n\"path.run\" = \"{of_thread}\"\n"
    );
    fs::write(&settings, format!("[parameters]\n{known}")).unwrap();
    let mut fuzz = Command::new(folder.join("venv/bin/schemathesis"));
    fuzz.arg("--config-file").arg(&settings).args(["run", &format!("{}/openapi.json", server.url)]);
    // The same requests each time. What comes later in a list may have been deleted by what came before: then it is not there.
    fuzz.args(["--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--max-examples", "8", "--seed", "1"]);
    // What waits for a run waits for as long as that takes.
    fuzz.args(["--exclude-path-regex", "/(wait|stream|join|mcp)$", "--request-timeout", "30"]);
    let said = run(fuzz.current_dir(server.home.path()));
    assert!(said.contains(" passed"), "{said}");
    runtime.block_on(async {
        let asked = server.request("GET", "/ok", None).await;
        assert_eq!(asked.status(), 200, "it is there after all of that");
    });
}
