//! MCP, over standard input and output and over HTTP: what is offered, what is refused, and releases that agents begin and people decide.

mod mcp_support;
mod release_support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use mcp_support::{Client, no, yes};
use release_support::{Home, Running, greet};
use serde_json::{Value, json};

const TASKS: &str = "io.modelcontextprotocol/tasks";

/// `tidegate serve` in a test's home.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(home: &Home) -> Self {
        let mut serve = home.command(&["--json", "serve", "--listen", "127.0.0.1:0"]);
        let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while serde_json::from_str::<Value>(&said).is_err() {
            said.push_str(&lines.next().expect("the server tells its address").unwrap());
        }
        let url = serde_json::from_str::<Value>(&said).unwrap()["url"].as_str().unwrap().to_owned();
        Self { child, url }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    fn post(&self, path: &str, body: &Value) -> u16 {
        let (status, _) = release_support::web::post(&format!("{}{path}", self.url), body).unwrap();
        status
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// What holds whichever way a client has come.
fn offers_what_it_should(client: &mut Client) {
    let server = if client.server["serverInfo"].is_object() {
        client.server["serverInfo"].clone()
    } else {
        client.server["_meta"]["io.modelcontextprotocol/serverInfo"].clone()
    };
    assert_eq!(server["name"], "tidegate", "{}", client.server);
    assert!(client.server["capabilities"]["extensions"][TASKS].is_object(), "{}", client.server);
    assert!(client.server["instructions"].as_str().unwrap().contains("deploy_start"));
    let tools = client.ok("tools/list", json!({}))["tools"].clone();
    let expected =
        ["deploy_plan", "deploy_start", "deploy_status", "deploy_cancel", "rollback", "list_releases", "explain_run"];
    assert_eq!(names(&tools), expected, "and none that decides for a person");
    for tool in tools.as_array().unwrap() {
        for schema in [&tool["inputSchema"], &tool["outputSchema"]] {
            assert!(jsonschema::meta::is_valid(schema) && schema["type"] == "object", "{schema}");
        }
        let changes = ["deploy_start", "deploy_cancel", "rollback"].contains(&tool["name"].as_str().unwrap());
        let hints = &tool["annotations"];
        assert_eq!((&hints["readOnlyHint"], &hints["destructiveHint"]), (&json!(!changes), &json!(changes)), "{tool}");
    }
    let listed = client.ok("resources/list", json!({}))["resources"].clone();
    assert!(names(&listed).contains(&"schema: output"), "{listed}");
    let templates = client.ok("resources/templates/list", json!({}))["resourceTemplates"].clone();
    assert_eq!(names(&templates), ["release", "run", "schema"]);
    let schema = client.read("tidegate://schemas/output");
    assert_eq!(schema["additionalProperties"], json!(false));
}

/// Likewise.
fn refuses_what_it_should(client: &mut Client) {
    let code = |error: Value| error["code"].as_str().unwrap().to_owned();
    let wrong = [
        ("deploy_start", json!({})),
        ("deploy_start", json!({"path": "/a", "request": {}})),
        ("deploy_start", json!({"path": "/a", "yes": true})),
        ("deploy_start", json!({"path": 7})),
        ("deploy_plan", json!({"path": "/a", "wait_seconds": 1})),
        ("deploy_status", json!({})),
        ("deploy_status", json!({"thread_id": "t", "wait_seconds": 51})),
        ("deploy_cancel", json!({"thread_id": "t", "approve": true})),
        ("list_releases", json!({"limit": 0})),
        ("list_releases", json!({"state": "SOME"})),
        ("explain_run", json!({"thread": "t"})),
    ];
    for (tool, arguments) in wrong {
        assert_eq!(code(client.refused(tool, arguments.clone())), "bad_arguments", "{tool} {arguments}");
    }
    let unknown_key = json!({"request": {"modelArtifact": {"path": "/a", "framwork": "x"}, "servingRequirements": {}}});
    let error = client.refused("deploy_plan", unknown_key);
    assert!(error["code"] == "request_invalid" && error["message"].as_str().unwrap().contains("framwork"), "{error}");
    assert_eq!(code(client.refused("deploy_start", json!({"path": "examples/iris"}))), "request_value");
    assert_eq!(code(client.refused("deploy_plan", json!({"path": "/no/such/project"}))), "path_not_found");
    for (tool, key) in [("deploy_status", "thread_id"), ("deploy_cancel", "thread_id"), ("explain_run", "thread_id")] {
        assert_eq!(code(client.refused(tool, json!({key: "no-such-thread"}))), "no_thread", "{tool}");
    }
    assert_eq!(code(client.refused("rollback", json!({"model": "nosuch"}))), "model_unknown");
    assert_eq!(code(client.refused("rollback", json!({"model": "No Such"}))), "request_value");
    for tool in ["approve", "deploy_approve", "decide"] {
        assert_eq!(client.error("tools/call", json!({"name": tool, "arguments": {}})), -32602, "{tool}");
    }
    for uri in ["tidegate://releases/none", "tidegate://threads/none", "tidegate://schemas/none", "file:///etc/passwd"]
    {
        let code = client.error("resources/read", json!({"uri": uri}));
        assert!([-32002, -32602].contains(&code), "{uri}: {code}");
    }
    assert_eq!(client.error("tasks/get", json!({"taskId": "none"})), -32602);
    assert_eq!(client.error("nothing/such", json!({})), -32601);
    assert_eq!(client.tool("list_releases", json!({})), json!({"releases": [], "more": false}));
}

#[test]
fn a_client_is_told_what_there_is_and_what_it_may_not() {
    let home = Home::bare();
    let capabilities = || json!({"extensions": {TASKS: {}}});
    let mut client = Client::stdio(home.command::<&str>(&[]), capabilities());
    offers_what_it_should(&mut client);
    refuses_what_it_should(&mut client);
    assert_eq!(client.close(), Some(0), "it ends with its client");
    let mut served = Served::start(&home);
    for modern in [false, true] {
        let mut client = Client::http(&served.url, modern, capabilities());
        offers_what_it_should(&mut client);
        refuses_what_it_should(&mut client);
    }
    // Without that it knows tasks, a client has none.
    let mut client = Client::http(&served.url, false, json!({}));
    assert_eq!(client.error("tasks/get", json!({"taskId": "none"})), -32021);
    // An open stream holds nobody up.
    let stream = client.listen();
    let began = std::time::Instant::now();
    served.stop();
    client.rest(stream);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A document as agents send it.
fn document(project: &str, version: &str) -> Value {
    json!({
        "modelArtifact": {"path": project, "framework": "scikit-learn", "version": version},
        "servingRequirements": {"latencyP99": "2s"},
    })
}

#[test]
fn a_release_outlives_its_client_and_is_decided_by_a_person() {
    let home = Home::new();
    let command = || home.command::<&str>(&[]);
    let first = home.hello("one");
    let mut client = Client::stdio(command(), json!({}));
    let plan = client.tool("deploy_plan", json!({"request": document(first.arg(), "one")}));
    assert_eq!((&plan["model"], &plan["approval"]["required"]), (&json!("hello"), &json!(true)), "{plan}");
    assert_eq!(plan["plan"]["serving"]["latency_p99_ms"], json!(2000.0));
    let begun = client.tool("deploy_start", json!({"path": first.arg()}));
    let thread = begun["thread_id"].as_str().unwrap().to_owned();
    assert_eq!((&begun["ended"], &begun["output"]), (&json!(false), &json!(null)), "{begun}");
    // At once, before anything is built.
    client.kill();
    let mut client = Client::stdio(command(), json!({}));
    let waits = home.until("it waits for a person", || {
        let stands = client.tool("deploy_status", json!({"thread_id": thread, "wait_seconds": 30}));
        stands["approval"].is_object().then_some(stands)
    });
    let approval = &waits["approval"];
    let question = approval["question_id"].as_str().unwrap();
    assert_eq!((&waits["status"], &waits["release"]), (&json!("interrupted"), &json!("DRAFT")), "{waits}");
    assert!(approval["decide"]["approve"].as_str().unwrap().ends_with(&format!("approve {question}")), "{approval}");
    assert!(approval["shows"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains("smoke:greets")));
    assert_eq!(approval["decide"]["url"], json!(null), "no server is known here");
    assert!(client.progress.iter().any(|said| said.starts_with("packager: ")), "{:?}", client.progress);
    // A second one of the same model is refused while this one is under way; it says so.
    let second = client.tool("deploy_start", json!({"path": first.arg(), "wait_seconds": 50}));
    assert_eq!(second["failure"]["code"], "release_in_progress", "{second}");
    home.ok(&["approve", question, "--json"]);
    let ended = home.until("it has ended", || {
        let stands = client.tool("deploy_status", json!({"thread_id": "hello", "wait_seconds": 30}));
        stands["ended"].as_bool().unwrap().then_some(stands)
    });
    let stands = client.tool("deploy_status", json!({"thread_id": thread}));
    assert_eq!(stands["output"]["deployment_id"], json!(thread), "{ended}\n{stands}");
    assert_eq!(greet(&stands["output"])["version"], "one");
    let told = client.tool("explain_run", json!({"thread_id": thread}));
    let steps: Vec<&str> = told["steps"].as_array().unwrap().iter().map(|s| s["node"].as_str().unwrap()).collect();
    assert!(steps.contains(&"packager") && steps.iter().any(|node| node.ends_with("/traffic_shift")), "{steps:?}");
    assert_eq!(
        (&told["decisions"][0]["verdict"], &told["decisions"][0]["via"]),
        (&json!("approve"), &json!("approve"))
    );
    assert!(told["reasons"].as_array().unwrap().iter().any(|reason| reason["rule"] == "strategy"), "{told}");
    assert!(told["checks"].as_array().unwrap().iter().all(|check| check["passed"] == true), "{told}");
    // What is listed can be read, and the record is one that can be replayed.
    let row = client.read(&format!("tidegate://releases/{thread}"));
    assert_eq!((&row["status"], &row["live"]), (&json!("COMPLETED"), &json!(true)));
    let record = home.beside("record.json");
    std::fs::write(&record, client.read(&format!("tidegate://threads/{thread}")).to_string()).unwrap();
    home.ok(&["run", "replay", record.to_str().unwrap(), "--json"]);
    let listed = client.tool("list_releases", json!({"model": "hello", "live": true}));
    assert_eq!(listed["releases"][0]["thread_id"], json!(thread), "{listed}");
    client.close();

    confirms_before_anything_is_taken_back(&home, Client::stdio(command(), json!({"elicitation": {}})));
}

/// `hello` one serves; two is released, and both a rollback and a cancel ask the person at the client.
fn confirms_before_anything_is_taken_back(home: &Home, mut client: Client) {
    let two = home.hello("two").unasked();
    let stands = client.tool("deploy_start", json!({"path": two.arg(), "wait_seconds": 50}));
    let id = stands["thread_id"].clone();
    let ended = home.until("two serves", || {
        let stands = client.tool("deploy_status", json!({"thread_id": id, "wait_seconds": 30}));
        stands["output"].is_object().then_some(stands)
    });
    assert_eq!(greet(&ended["output"])["version"], "two");
    client.says = no();
    assert_eq!(client.refused("rollback", json!({"model": "hello"}))["code"], "not_confirmed");
    let from = format!("back from version {} to version ", ended["version"].as_str().unwrap());
    assert!(client.asked[0].contains(&from), "{:?}", client.asked);
    assert_eq!(greet(&ended["output"])["version"], "two", "nothing was done");
    client.says = yes();
    let back = client.tool("rollback", json!({"model": "hello", "reason": "wrong labels"}));
    assert_eq!((&back["status"], &back["workflow"]), (&json!("succeeded"), &json!("rollback")), "{back}");
    assert_eq!(greet(&back["output"])["version"], "one");
    // What is complete is not cancelled.
    assert_eq!(client.refused("deploy_cancel", json!({"thread_id": id}))["code"], "release_over");

    let three = client.tool("deploy_start", json!({"path": home.hello("three").arg()}));
    let id = three["thread_id"].clone();
    client.says = no();
    assert_eq!(client.refused("deploy_cancel", json!({"thread_id": id}))["code"], "not_confirmed");
    assert_ne!(client.tool("deploy_status", json!({"thread_id": id}))["status"], "cancelled");
    client.says = yes();
    let cancelled = client.tool("deploy_cancel", json!({"thread_id": id, "reason": "not now"}));
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    assert!(cancelled["failure"]["message"].as_str().unwrap().ends_with("not now"), "{cancelled}");
    let asked = client.asked.len();
    assert_eq!(client.tool("deploy_cancel", json!({"thread_id": id}))["status"], "cancelled");
    assert_eq!(client.asked.len(), asked, "there is nothing left to be asked about");
    assert_eq!(greet(&back["output"])["version"], "one");
    assert_eq!(client.close(), Some(0));
}

#[test]
fn over_http_a_release_is_a_task_that_outlives_the_server() {
    let home = Home::new();
    let mut served = Served::start(&home);
    let knows = || json!({"extensions": {TASKS: {}}, "elicitation": {"form": {}}});
    let mut client = Client::http(&served.url, true, knows());
    let request = json!({"request": document(home.hello("one").arg(), "one")});
    let task = client.call("deploy_start", request);
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{task}");
    let id = task["taskId"].as_str().unwrap().to_owned();
    served.kill();
    drop(served);
    let served = Served::start(&home);
    let mut client = Client::http(&served.url, true, knows());
    let get = |client: &mut Client, id: &str| client.ok("tasks/get", json!({"taskId": id}));
    home.until("the task waits for a person", || {
        let task = get(&mut client, &id);
        assert_eq!(task["status"], "working", "nobody at the client has a say: {task}");
        task["statusMessage"].as_str().unwrap().contains("/approvals/").then_some(())
    });
    let stands = client.tool("deploy_status", json!({"thread_id": id}));
    let decide = stands["approval"]["decide"]["url"].as_str().unwrap();
    let path = decide.strip_prefix(&served.url).expect("under the address that the client came by");
    assert_eq!(client.error("tasks/update", json!({"taskId": id, "inputResponses": {"approved": true}})), -32602);
    let yes_to = json!({"verdict": "approve", "digest": stands["approval"]["digest"]});
    assert_eq!(served.post(path, &yes_to), 200);
    let task = home.until("the task is completed", || {
        let task = get(&mut client, &id);
        (task["status"] == "completed").then_some(task)
    });
    let told = client.fits("deploy_start", &task["result"]);
    assert_eq!(told["output"]["deployment_id"], json!(id));
    assert_eq!(greet(&told["output"])["version"], "one");

    // A person is asked by an answer, and the client calls again.
    let two = home.hello("two").unasked();
    let second = client.tool("deploy_start", json!({"path": two.arg(), "wait_seconds": 50}));
    assert!(client.progress.iter().any(|said| said == "deployment_planner: begins"), "{:?}", client.progress);
    let live = home.until("two serves", || {
        let stands = client.tool("deploy_status", json!({"thread_id": second["thread_id"], "wait_seconds": 30}));
        stands["output"].is_object().then_some(stands)
    });
    client.says = no();
    assert_eq!(client.refused("rollback", json!({"model": "hello"}))["code"], "not_confirmed");
    assert_eq!(greet(&live["output"])["version"], "two");
    // Agreement to something else is none.
    let stale = json!({
        "name": "rollback", "arguments": {"model": "hello"}, "inputResponses": {"confirm": yes()}, "requestState": "other",
    });
    assert_eq!(client.ok("tools/call", stale)["resultType"], "input_required");
    client.says = yes();
    let back = client.tool("rollback", json!({"model": "hello"}));
    assert_eq!(greet(&back["output"])["version"], "one", "{back}");

    // In a session, the server asks while the call is under way; progress comes with it.
    let mut client = Client::http(&served.url, false, json!({"elicitation": {}, "extensions": {TASKS: {}}}));
    client.says = yes();
    let three = client.call("deploy_start", json!({"path": home.hello("three").arg()}));
    let id = three["taskId"].as_str().unwrap().to_owned();
    let cancelled = client.tool("deploy_cancel", json!({"thread_id": id}));
    assert_eq!((&cancelled["status"], client.asked.len()), (&json!("cancelled"), 1), "{cancelled}");
    assert_eq!(get(&mut client, &id)["status"], "cancelled");
    let four = client.call("deploy_start", json!({"path": home.hello("four").arg()}))["taskId"].clone();
    let acknowledged = client.ok("tasks/cancel", json!({"taskId": four}));
    assert!(acknowledged.get("status").is_none(), "{acknowledged}");
    assert_eq!(get(&mut client, four.as_str().unwrap())["status"], "cancelled");
    assert_eq!(greet(&back["output"])["version"], "one");
    drop(client);
    let _ = Running::start(home.command(&["down"])).end();
}
