//! What the server tells of releases, and the records of threads: the same as the terminal, held against the published contracts.

mod release_support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use release_support::{Home, web};
use serde_json::{Value, json};

const ENGINEER: &str = include_str!("data/contracts/deployment_engineer_output.schema.json");

/// `tidegate serve` in a home, killed with the test.
struct Serve {
    child: Child,
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serve {
    fn start(home: &Home) -> Self {
        let mut serve = home.command(&["--json", "serve", "--listen", "127.0.0.1:0"]);
        let mut child = serve.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while serde_json::from_str::<Value>(&said).is_err() {
            said.push_str(&lines.next().expect("the server tells its address").unwrap());
        }
        let url = serde_json::from_str::<Value>(&said).unwrap()["url"].as_str().unwrap().to_owned();
        Self { child, url, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    /// Status, one header, text.
    fn get(&self, path: &str) -> (u16, Option<String>, String) {
        self.runtime.block_on(async {
            let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
            let total = answer.headers().get("x-pagination-total").map(|total| total.to_str().unwrap().to_owned());
            (answer.status().as_u16(), total, answer.text().await.unwrap())
        })
    }

    fn json(&self, path: &str) -> Value {
        let (status, _, text) = self.get(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn errors(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).expect("a schema");
    validator.iter_errors(document).map(|error| error.to_string()).collect()
}

/// A rule file, as promtool reads it.
fn assert_promtool_takes(home: &Home, rules: &str) {
    let file = home.beside("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let ran = Command::new("promtool").args(["check", "rules"]).arg(&file).output().expect("promtool is there");
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// What is told of a release fits the contracts and what the terminal tells.
fn assert_told(home: &Home, serve: &Serve, printed: &Value) -> Value {
    let id = printed["deployment_id"].as_str().unwrap();
    let told = serve.json(&format!("/releases/{id}"));
    assert_eq!(&told["output"], printed, "the contract is the one that `deploy` printed");
    let schema = |name: &str| home.json(&["schema", name]);
    assert_eq!(errors(&schema("output"), &told["output"]), Vec::<String>::new());
    let engineer = &told["engineer"];
    assert_eq!(errors(&serde_json::from_str(ENGINEER).unwrap(), engineer), Vec::<String>::new());
    assert_eq!(errors(&schema("engineer-output"), engineer), Vec::<String>::new());
    assert_eq!(engineer["servingEndpoint"]["url"], printed["endpoint_url"]);
    assert_eq!(engineer["deploymentConfig"]["strategy"]["type"], printed["deployment_strategy"]);
    let row = home.history("hello").into_iter().find(|row| row["deployment_id"] == id).unwrap();
    assert_eq!(told["release"], row);
    assert_eq!(told["plan"], row["plan"]);
    assert_eq!(told["metrics"], row["metrics_baseline"]);
    told
}

#[test]
fn releases_are_told_as_the_terminal_tells_them() {
    let home = Home::new();
    let first = home.deploy(&home.hello("one"));
    let second = home.deploy(&home.hello("two"));
    // One that fails: its golden case does not fit what it says.
    let wrong = home.hello("three").change("service.py", "VERSION = \"three\"", "VERSION = \"four\"");
    let failed = home.run(&["deploy", wrong.arg(), "--yes", "--json"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let serve = Serve::start(&home);

    let (status, total, text) = serve.get("/releases");
    assert_eq!((status, total.as_deref()), (200, Some("3")), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), home.json(&["list"]));
    let page = serve.get("/releases?model=hello&status=completed&limit=1&offset=1");
    assert_eq!(page.1.as_deref(), Some("2"));
    let page: Value = serde_json::from_str(&page.2).unwrap();
    assert_eq!((page.as_array().unwrap().len(), &page[0]["deployment_id"]), (1, &first["deployment_id"]));
    assert_eq!(serve.json("/releases?status=FAILED&status=COMPLETED").as_array().unwrap().len(), 3);
    assert_eq!(serve.json("/releases?model=other"), json!([]));
    for wrong in ["status=live", "limit=0", "limit=101", "limit=many", "offset=-1", "modle=hello"] {
        assert_eq!(serve.get(&format!("/releases?{wrong}")).0, 422, "{wrong}");
    }

    let old = assert_told(&home, &serve, &first);
    assert_eq!((&old["serving"], &old["thread_status"]), (&Value::Null, &json!("succeeded")));
    let told = assert_told(&home, &serve, &second);
    let status = home.json(&["status", "hello"])["serving"][0].clone();
    for key in ["model", "version", "deployment_id", "endpoint_url", "state"] {
        assert_eq!(told["serving"][key], status[key], "{key}");
    }
    assert_eq!(told["serving"]["slot"]["token"], status["slot"]["token"]);
    let id = second["deployment_id"].as_str().unwrap();
    let shown = home.json(&["run", "show", id]);
    assert_eq!(told["checks"], shown["values"]["validated"]["checks"], "{shown}");
    assert_eq!(told["bake"], shown["values"]["bake"]);
    assert!(told["checks"].as_array().unwrap().len() >= 3, "{told}");
    assert_eq!(home.json(&["release", "show", "hello"])["engineer"], told["engineer"]);
    assert!(home.ok(&["release", "show", id]).stdout.contains("tidegate release rules"));

    alerts_are_offered(&home, &serve, id, &told);

    // What failed has no contract, and nothing of it can be watched.
    let failed = home.history("hello")[0].clone();
    let failed_id = failed["deployment_id"].as_str().unwrap();
    let told = serve.json(&format!("/releases/{failed_id}"));
    assert_eq!(
        (&told["release"]["status"], &told["output"], &told["engineer"]),
        (&json!("FAILED"), &Value::Null, &Value::Null)
    );
    assert!(told["checks"].as_array().unwrap().is_empty() || told["plan"].is_object(), "{told}");
    let refused = serve.get(&format!("/releases/{failed_id}/prometheus-rules"));
    assert!(refused.0 == 409 && refused.2.contains("release_unfinished"), "{refused:?}");
    let ran = home.run(&["release", "rules", failed_id, "--json"]);
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(4), "release_unfinished"));
    for path in ["/releases/none", "/releases/none/prometheus-rules", "/releases/none/grafana-dashboard"] {
        let missing = serve.get(path);
        assert!(missing.0 == 404 && missing.2.contains("release_unknown"), "{path}: {missing:?}");
    }

    // A rollback is a release of its own: without a standby of its own.
    let back = home.json(&["rollback", "hello"]);
    let told = assert_told(&home, &serve, &back);
    assert_eq!(told["release"]["kind"], "rollback");
    let names = |told: &Value| -> Vec<String> {
        let alerts = told["engineer"]["monitoring"]["alerts"].as_array().unwrap();
        alerts.iter().map(|alert| alert["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!names(&told).contains(&"TidegateStandbyLost".to_owned()), "{told}");

    records_are_handed_out(&home, &serve, id);
}

/// The rules and the dashboard, by the server and in the terminal, and as the document refers to them.
fn alerts_are_offered(home: &Home, serve: &Serve, id: &str, told: &Value) {
    let monitoring = &told["engineer"]["monitoring"];
    let alert = &monitoring["alerts"][0];
    let (_, _, rules) = serve.get(alert["rules"]["path"].as_str().unwrap());
    assert_promtool_takes(home, &rules);
    assert_eq!(home.ok(&["release", "rules", "hello"]).stdout, rules);
    let command = alert["rules"]["command"].as_str().unwrap();
    assert_eq!(command, format!("tidegate release rules {id}"));
    let all = monitoring["alerts"].as_array().unwrap();
    assert!(all.iter().any(|alert| alert["name"] == "TidegateStandbyLost"), "{monitoring}");
    assert!(all.iter().all(|alert| rules.contains(alert["name"].as_str().unwrap())), "{rules}");
    let dashboard = serve.json(monitoring["dashboards"][0]["path"].as_str().unwrap());
    assert_eq!(dashboard["uid"], monitoring["dashboards"][0]["uid"]);
    assert_eq!(home.json(&["release", "dashboard", id]), dashboard);
    // The slots that the alerts look at are exported, by the versions that they name.
    let endpoint = told["output"]["endpoint_url"].as_str().unwrap().trim_end_matches("/hello").to_owned();
    let (_, metrics) = web::get(&format!("{endpoint}/-/metrics")).unwrap();
    let strategy = &told["engineer"]["deploymentConfig"]["strategy"];
    for version in [&strategy["modelVersion"], &strategy["previousVersion"]] {
        let version = version.as_str().unwrap();
        let ready = metrics.lines().any(|line| {
            line.starts_with("tidegate_slot_ready{model=\"hello\"")
                && line.contains(&format!("version=\"{version}\""))
                && line.ends_with(" 1")
        });
        assert!(ready, "{version}: {metrics}");
    }
}

/// A record is the one that the terminal exports, byte by byte; also of a thread that the API has never heard of.
fn records_are_handed_out(home: &Home, serve: &Serve, release: &str) {
    let workflow = home.beside("trivial.yaml");
    std::fs::write(&workflow, include_str!("workflows/trivial.yaml")).unwrap();
    home.ok(&["run", "start", workflow.to_str().unwrap(), "--thread", "my.note-1", "--json"]);
    for thread in [release, "my.note-1"] {
        let (status, _, text) = serve.get(&format!("/threads/{thread}/export"));
        assert_eq!(status, 200, "{text}");
        assert!(text == home.ok(&["run", "export", thread]).stdout, "{thread}");
        let file = home.beside("export.json");
        std::fs::write(&file, &text).unwrap();
        home.ok(&["run", "replay", file.to_str().unwrap()]);
    }
    // Elsewhere a release's record is a record: nothing serves there, and there is nothing to take back.
    let text = serve.get(&format!("/threads/{release}/export")).2;
    let other = Home::bare();
    let file = other.beside("export.json");
    std::fs::write(&file, &text).unwrap();
    other.ok(&["run", "import", file.to_str().unwrap()]);
    assert!(
        other.ok(&["run", "export", "hello"]).stdout == text,
        "a model's name finds it where there is nothing else"
    );
    other.ok(&["run", "replay", "hello"]);
    assert_eq!((other.json(&["list"]), &other.json(&["status"])["serving"]), (json!([]), &json!([])));
    assert_eq!(other.run(&["rollback", "hello", "--json"]).error_code(), "model_unknown");
    assert_eq!(other.run(&["abort", "hello", "--json"]).error_code(), "thread_imported");
    let missing = serve.get("/threads/0190a1b2-0000-7000-8000-000000000000/export");
    assert!(missing.0 == 404 && missing.2.contains("no_thread"), "{missing:?}");
}
