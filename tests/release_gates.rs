//! Who decides at a gate: several people, not their own requests, not in a freeze, and what silence means.

mod release_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use release_support::{Home, greet};
use serde_json::{Value, json};

/// A server over a home.
struct Server {
    child: Child,
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl Server {
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

    fn ask(&self, key: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.runtime.block_on(async {
            let request = reqwest::Client::new().request(method.parse().unwrap(), format!("{}{path}", self.url));
            let request = if method == "GET" { request } else { request.json(body) };
            let answer = request.header("x-api-key", key).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
        })
    }

    /// Begins a release and goes on to its question: thread, question, digest.
    fn to_the_gate(&self, key: &str, project: &str, version: &str) -> (String, String, Value) {
        let document = json!({
            "modelArtifact": {"path": project, "framework": "scikit-learn", "version": version},
            "servingRequirements": {"latencyP99": "2s", "throughput": "1rps", "availability": "99%"},
            "deploymentStrategy": "blue-green",
            "infrastructure": {"platform": "local", "namespace": "default", "resources": {}},
        });
        let run = json!({"assistant_id": "model_deployer", "input": document, "on_completion": "keep"});
        let (status, asked) = self.ask(key, "POST", "/runs/wait", &run);
        assert!(status == 200 && asked["__interrupt__"].is_array(), "{status} {asked}");
        let id = asked["__interrupt__"][0]["id"].as_str().unwrap().to_owned();
        let open = self.ask(key, "GET", &format!("/approvals/{id}"), &Value::Null).1;
        (open["thread_id"].as_str().unwrap().to_owned(), id, open["digest"].clone())
    }

    fn decide(&self, key: &str, id: &str, body: &Value) -> (u16, Value) {
        self.ask(key, "POST", &format!("/approvals/{id}"), body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(home: &Home, holder: &str, roles: &[&str]) -> String {
    let mut args = vec!["keys", "create", holder];
    for role in roles {
        args.extend(["--role", role]);
    }
    home.json(&args)["key"].as_str().unwrap().to_owned()
}

fn policy(home: &Home, policy: Value) {
    fs::write(home.path().join("config.yaml"), json!({"policy": policy}).to_string()).unwrap();
}

#[test]
fn two_of_three_leads_and_nobody_their_own() {
    let home = Home::new();
    let gate = json!({
        "name": "models that people see", "when": "plan.model == 'hello' && evidence.checks.size() > 0",
        "approvals": [{"count": 2, "of": {"groups": ["leads"]}}],
    });
    let in_a_year = (chrono::Utc::now() + chrono::TimeDelta::days(365)).to_rfc3339();
    let rules = |freezes: Value| {
        json!({
            "gates": [gate.clone()], "groups": {"leads": ["ann", "bob", "cy"]}, "freezes": freezes,
            "delegations": [{"from": "cy", "to": "dan", "until": in_a_year}],
        })
    };
    policy(&home, rules(json!([])));
    let agent = key(&home, "agent", &["deployer"]);
    let [ann, bob, dan, eve] = ["ann", "bob", "dan", "eve"].map(|name| key(&home, name, &["approver", "deployer"]));
    let server = Server::start(&home);
    let (thread, id, digest) = server.to_the_gate(&agent, home.hello("one").arg(), "one");
    let yes = json!({"verdict": "approve", "digest": digest});
    assert_eq!(server.decide(&agent, &id, &yes).0, 403, "an agent does not approve");
    let refused = server.decide(&eve, &id, &yes);
    assert!(
        refused.0 == 403 && refused.1["detail"].as_str().unwrap().contains("models that people see"),
        "{refused:?}"
    );
    let first = server.decide(&ann, &id, &yes);
    assert_eq!(
        (first.0, &first.1["decided"], &first.1["missing"][0]["count"]),
        (200, &json!(false), &json!(1)),
        "{first:?}"
    );
    let again = server.decide(&ann, &id, &yes);
    assert_eq!((again.0, &again.1["decided"]), (200, &json!(false)), "one person is one");
    // The waiting shows in all places, and a yes on something else is none.
    let open = server.ask(&bob, "GET", &format!("/approvals/{id}"), &Value::Null).1;
    assert_eq!((&open["votes"][0]["by"], &open["missing"][0]["count"]), (&json!("ann"), &json!(1)), "{open}");
    assert_eq!(home.json(&["approvals"])[0]["missing"][0]["count"], json!(1));
    assert_eq!(server.decide(&bob, &id, &json!({"verdict": "approve", "digest": "sha256:0"})).0, 409);
    // The terminal's user is no lead: the home's files do not make one.
    let local = home.run(&["approve", &id]);
    assert!(local.code == Some(4) && local.stderr.contains("not_an_approver"), "{local:?}");
    let value = json!({"verdict": "approve", "by": "ann", "at": chrono::Utc::now(), "digest": digest}).to_string();
    let forged = home.run(&["run", "resume", &thread, "--value", &value]);
    assert!(forged.code == Some(2) && forged.stderr.contains("is_an_approval"), "{forged:?}");
    // Somebody in a lead's place is the second.
    let second = server.decide(&dan, &id, &yes);
    assert_eq!((second.0, &second.1["decided"]), (200, &json!(true)), "{second:?}");
    let output = home.until("the release is complete", || {
        let values = server.ask(&agent, "GET", &format!("/threads/{thread}/state"), &Value::Null).1["values"].clone();
        values["output"].is_object().then(|| values["output"].clone())
    });
    assert_eq!(greet(&output)["version"], "one");
    let late = server.decide(&bob, &id, &json!({"verdict": "reject", "digest": digest, "reason": "late"}));
    assert!(late.0 == 409 && late.1["detail"].as_str().unwrap().contains("dan"), "{late:?}");
    let export = home.json(&["run", "export", &thread]);
    let votes = &export["interrupts"][0]["answer"]["value"]["votes"];
    assert_eq!(
        (&votes[0]["by"], &votes[1]["by"], &votes[1]["instead_of"]),
        (&json!("ann"), &json!("dan"), &json!("cy"))
    );
    let record = home.beside("one.json");
    fs::write(&record, export.to_string()).unwrap();
    home.ok(&["run", "replay", record.to_str().unwrap()]);
    let audit = home.json(&["audit", "export", &thread]);
    assert!(audit["rows"].as_array().unwrap().iter().any(|row| row["event"]["type"] == "voted"), "{audit}");
    home.ok(&["audit", "verify"]);

    // Nobody approves what they asked for, and a freeze that was made meanwhile counts.
    let (_, id, digest) = server.to_the_gate(&ann, home.hello("two").arg(), "two");
    let yes = json!({"verdict": "approve", "digest": digest});
    let own = server.decide(&ann, &id, &yes);
    assert!(own.0 == 403 && own.1["detail"].as_str().unwrap().contains("own_request"), "{own:?}");
    let freeze = json!([{
        "name": "the fair", "from": "2020-01-01T00:00:00Z", "until": in_a_year, "may_override": {"users": ["bob"]},
    }]);
    policy(&home, rules(freeze));
    let frozen = server.decide(&dan, &id, &yes);
    assert!(frozen.0 == 423 && frozen.1["detail"].as_str().unwrap().contains("the fair"), "{frozen:?}");
    let over = |reason: Value| json!({"verdict": "approve", "digest": digest, "override": true, "reason": reason});
    assert_eq!(server.decide(&dan, &id, &over(json!("urgent"))).0, 403);
    assert_eq!(server.decide(&bob, &id, &over(json!(null))).0, 422, "an override says why");
    let counted = server.decide(&bob, &id, &over(json!("an outage")));
    assert_eq!((counted.0, &counted.1["decided"]), (200, &json!(false)), "{counted:?}");
    let no = server.decide(&dan, &id, &json!({"verdict": "reject", "digest": digest, "reason": "not now"}));
    assert_eq!((no.0, &no.1["decided"]), (200, &json!(true)), "one no ends it, in a freeze too: {no:?}");
    home.until("it is undone", || (home.history("hello")[0]["status"] == "FAILED").then_some(()));
    assert_eq!(greet(&output)["version"], "one");
}

#[test]
fn what_was_approved_in_advance_and_silence() {
    let home = Home::new();
    policy(&home, json!({"gates": [{"name": "four eyes"}]}));
    let waiting = home.run(&["deploy", home.hello("one").arg(), "--yes"]);
    assert!(waiting.code == Some(3) && waiting.stderr.contains("nobody approves what they asked for"), "{waiting:?}");
    let own = home.run(&["approve", "hello"]);
    assert!(own.code == Some(4) && own.stderr.contains("own_request"), "{own:?}");
    home.ok(&["reject", "hello", "--reason", "try again"]);
    // A runner may have been faster, and undo it.
    home.until("it is undone", || (home.history("hello")[0]["status"] == "FAILED").then_some(()));

    // A condition that cannot be evaluated might have fitted.
    policy(&home, json!({"gates": [{"name": "broken", "when": "evidence.nothing.there == 1"}]}));
    let broken = home.run(&["deploy", home.hello("one").arg(), "--yes"]);
    assert!(broken.code == Some(1) && broken.stderr.contains("gate_condition"), "{broken:?}");
    policy(&home, json!({"gates": [{"name": "wrong", "when": "plan.("}]}));
    let wrong = home.run(&["plan", home.hello("one").arg()]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("settings_invalid"), "{wrong:?}");

    // A release that asks for none is asked about where a rule fits, and silence is a yes where the rule says so.
    policy(&home, json!({"otherwise": "none", "gates": [{"name": "a look", "on_expiry": "approve", "ttl": "1s"}]}));
    let project = home.hello("two").with("approval: { mode: none }");
    let started = home.json(&["deploy", project.arg(), "--detach"]);
    let thread = started["thread"].as_str().unwrap();
    home.until("silence was a yes", || (home.history("hello")[0]["status"] == "COMPLETED").then_some(()));
    let export = home.json(&["run", "export", thread]);
    let approval = &home.json(&["run", "state", thread])["values"]["approval"];
    assert!(approval["by"].as_str().is_some_and(|by| by.contains("nobody decided in time")), "{approval}");
    let record = home.beside("two.json");
    fs::write(&record, export.to_string()).unwrap();
    home.ok(&["run", "replay", record.to_str().unwrap()]);
}

#[test]
fn before_work_none_of_the_projects_code_runs_and_only_what_was_shown_is_built() {
    let home = Home::new();
    let rule = |when: &str| {
        let gate = json!({"name": "code first", "before": "work", "when": when, "own_requests": "allowed"});
        policy(&home, json!({"otherwise": "none", "gates": [gate]}));
    };
    rule("plan.model == 'hello' && evidence.checks.size() == 0");
    // A project whose code says that it ran.
    let ran = home.beside("ran");
    let project = home.hello("one");
    let service = std::path::Path::new(project.arg()).join("service.py");
    let code = fs::read_to_string(&service).unwrap();
    fs::write(&service, format!("open({:?}, 'w').close()\n{code}", ran.display().to_string())).unwrap();
    let asked = || {
        let started = home.json(&["deploy", project.arg(), "--detach"]);
        let open = home.until("it asks", || home.json(&["approvals"]).get(0).cloned());
        (started["thread"].as_str().unwrap().to_owned(), open)
    };
    let (thread, open) = asked();
    let evidence = &open["value"]["evidence"];
    assert_eq!((&evidence["before"], &evidence["checks"]), (&json!("work"), &json!([])), "{open}");
    let steps = evidence["traffic_plan"].as_array().unwrap();
    assert!(steps[0] == format!("takes what is in {}", project.arg()) && steps.len() > 4, "{steps:?}");
    assert!(!ran.exists(), "nothing of it has run");

    // What is built is what was shown.
    fs::write(&service, format!("{code}\n# one line more\n")).unwrap();
    assert_eq!(home.run(&["approve", &thread]).code, Some(1));
    home.until("it failed", || (home.history("hello")[0]["status"] == "FAILED").then_some(()));
    let error = &home.json(&["run", "state", &thread])["error"];
    assert!(error["code"] == "source_changed" && !ran.exists(), "{error}");

    let (thread, _) = asked();
    let shown = home.ok(&["approvals"]);
    assert!(shown.stdout.contains("hello to be built"), "{shown:?}");
    home.ok(&["approve", &thread]);
    home.until("it is complete", || (home.history("hello")[0]["status"] == "COMPLETED").then_some(()));
    let copies = fs::read_dir(home.path().join("sources")).unwrap().count();
    assert_eq!(copies, 0, "what was built from was a copy, which is gone");
    let record = home.beside("cleared.json");
    fs::write(&record, home.json(&["run", "export", &thread]).to_string()).unwrap();

    // A rule for others asks nobody; and the record needs no settings.
    rule("environment == 'prod'");
    home.ok(&["deploy", home.hello("two").arg()]);
    home.ok(&["run", "replay", record.to_str().unwrap()]);
}
