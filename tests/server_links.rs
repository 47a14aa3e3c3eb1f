//! Links that decide: each one question, once, as one person, on what was asked when it was made, and nothing else.

mod server_support;

use std::path::Path;
use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use server_support::{Serve, tidegate};

/// A workflow whose question is the one that its input names: an approval as the gate of a release asks it.
const GATE: &str = "name: gate
channels:
  question: { type: any }
  decision: { type: any }
nodes:
  ask: { type: ask, prompt: \"question\", into: decision }
edges:
  - { from: START, to: ask }
";

/// A home with a server, people with keys, and the workflow.
struct Gate {
    server: Serve,
    agent: String,
    root: String,
    client: reqwest::Client,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
}

impl Gate {
    fn start(policy: Value) -> Self {
        let home = Arc::new(tempfile::Builder::new().prefix("tidegate-links-").tempdir().unwrap());
        let folder = home.path().join("files");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("gate.yaml"), GATE).unwrap();
        std::fs::write(home.path().join("config.yaml"), json!({"policy": policy}).to_string()).unwrap();
        let [agent, root] =
            [("agent", "deployer"), ("root", "admin")].map(|(who, role)| key(home.path(), who, &[role]).1);
        let server = Serve::start_in(home, &folder, "127.0.0.1:0");
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        Self { server, agent, root, client }
    }

    fn home(&self) -> &Path {
        self.server.home.path()
    }

    async fn api(&self, key: &str, method: &str, path: &str, body: Value) -> Answer {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.server.url));
        let request = request.header("x-api-key", key);
        answered(if method == "GET" { request } else { request.json(&body) }).await
    }

    /// A question that waits: its thread and its id.
    async fn asks(&self, requested_by: &str, terms: Value) -> (String, String) {
        let evidence = json!({
            "plan_digest": "sha256:1", "model": "churn", "version": "v2", "content_digest": "sha256:2", "checks": [],
            "traffic_plan": ["all traffic to v2"], "because": "policy", "requested_by": requested_by, "terms": terms,
        });
        let question =
            json!({"kind": "approval", "model": "churn", "version": "v2", "evidence": evidence, "digest": "sha256:3"});
        let run = json!({"assistant_id": "gate", "input": {"question": question}, "on_completion": "keep"});
        let asked = self.api(&self.agent, "POST", "/runs/wait", run).await.json();
        let id = asked["__interrupt__"][0]["id"].as_str().unwrap_or_else(|| panic!("{asked}")).to_owned();
        (self.question(&id).await["thread_id"].as_str().unwrap().to_owned(), id)
    }

    async fn question(&self, id: &str) -> Value {
        self.api(&self.root, "GET", &format!("/approvals/{id}"), Value::Null).await.json()
    }

    /// A link, made in the terminal.
    fn link(&self, question: &str, holder: &str, ttl: &str) -> Value {
        let args = ["--json", "approvals", "link", question, "--for", holder, "--ttl", ttl];
        let ended = tidegate(self.home()).args(args).output().unwrap();
        serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
    }

    fn url(&self, question: &str, holder: &str) -> String {
        self.link(question, holder, "1h")["url"].as_str().unwrap().to_owned()
    }

    async fn look(&self, url: &str) -> Answer {
        answered(self.client.get(url)).await
    }

    /// The form, as a browser sends it from a page that says no referrer.
    async fn say(&self, url: &str, verdict: &str, reason: &str) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("reason", reason), ("verdict", verdict)])
            .finish();
        let post = self.client.post(url).header("content-type", "application/x-www-form-urlencoded");
        answered(post.header("origin", "null").header("sec-fetch-site", "same-origin").body(body)).await
    }

    async fn until_idle(&self, thread: &str) -> Value {
        for _ in 0..500 {
            let seen = self.api(&self.root, "GET", &format!("/threads/{thread}"), Value::Null).await.json();
            if seen["status"] == "idle" {
                return seen["values"].clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the run does not go on");
    }

    fn audit(&self) -> Vec<Value> {
        assert!(tidegate(self.home()).args(["audit", "verify"]).output().unwrap().status.success());
        let export = tidegate(self.home()).args(["audit", "export"]).output().unwrap();
        let export: Value = serde_json::from_slice(&export.stdout).unwrap();
        export["rows"].as_array().unwrap().iter().map(|row| row["event"].clone()).collect()
    }
}

async fn answered(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, body: answer.text().await.unwrap() }
}

fn key(home: &Path, holder: &str, roles: &[&str]) -> (String, String) {
    let mut command = tidegate(home);
    command.args(["--json", "keys", "create", holder]);
    for role in roles {
        command.args(["--role", role]);
    }
    let made: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

fn holds(folder: &Path, what: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => holds(&path, what),
            kind if kind.is_file() => std::fs::read(&path).unwrap().windows(what.len()).any(|part| part == what),
            _ => false,
        }
    })
}

#[tokio::test]
async fn a_link_decides_once_as_its_person() {
    let mut gate = Gate::start(json!({}));
    key(gate.home(), "ann", &["approver"]);
    let (thread, id) = gate.asks("agent", Value::Null).await;
    let made = gate.link(&id, "ann", "1h");
    let url = made["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/l/tgl_", gate.server.url)), "{made}");

    // Whoever only follows it, as mail scanners do, changes nothing.
    for _ in 0..2 {
        let shown = gate.look(url).await;
        assert_eq!(shown.status, 200, "{}", shown.body);
        assert!(shown.body.contains("Release churn v2") && shown.body.contains("name=\"verdict\""), "{}", shown.body);
        assert!(shown.body.contains("sha256:3") && !shown.body.contains("<script"), "{}", shown.body);
        let header = |name: &str| shown.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("cache-control").as_deref(), Some("no-store"));
        assert_eq!(header("referrer-policy").as_deref(), Some("no-referrer"));
        assert!(header("set-cookie").is_none() && header("content-security-policy").is_some());
    }
    assert_eq!(gate.client.head(url).send().await.unwrap().status(), 200);
    assert_eq!(gate.question(&id).await["answer"], Value::Null);
    // It is a key for nothing else, and one that was changed is none.
    let token = url.rsplit('/').next().unwrap();
    assert_eq!(gate.api(token, "GET", "/approvals", Value::Null).await.status, 401);
    let other = if url.ends_with('0') { "1" } else { "0" };
    for wrong in [format!("{}{other}", &url[..url.len() - 1]), format!("{url}0"), url.replace("tgl_", "tgk_")] {
        assert_eq!(gate.look(&wrong).await.status, 404, "{wrong}");
        assert_eq!(gate.say(&wrong, "approve", "").await.status, 404, "{wrong}");
    }
    // What cannot be counted uses nothing up.
    assert_eq!(gate.say(url, "perhaps", "").await.status, 422);
    assert_eq!(gate.say(url, "reject", "").await.status, 422, "a no says why");

    let said = gate.say(url, "approve", "looks well").await;
    assert_eq!(said.status, 303, "{}", said.body);
    let values = gate.until_idle(&thread).await;
    assert_eq!((&values["decision"]["verdict"], &values["decision"]["by"]), (&json!("approve"), &json!("ann")));
    let answer = gate.question(&id).await["answer"].clone();
    assert_eq!((&answer["via"], &answer["value"]["reason"]), (&json!("link"), &json!("looks well")), "{answer}");
    let again = gate.say(url, "reject", "no, after all").await;
    assert!(again.status == 409 && again.body.contains("ann said yes at"), "{} {}", again.status, again.body);
    let shown = gate.look(url).await;
    assert!(shown.body.contains("approved by ann") && !shown.body.contains("name=\"verdict\""), "{}", shown.body);

    // Another one of the same question, made before: who decided is told.
    let (thread, id) = gate.asks("agent", Value::Null).await;
    let (first, second) = (gate.url(&id, "ann"), gate.url(&id, "root"));
    assert_eq!(gate.say(&first, "reject", "old labels").await.status, 303);
    let late = gate.say(&second, "approve", "").await;
    assert!(late.status == 409 && late.body.contains("rejected by ann"), "{} {}", late.status, late.body);
    gate.until_idle(&thread).await;
    let ended = tidegate(gate.home()).args(["approvals", "link", &id, "--for", "ann"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(4), "nobody is sent a link to what is decided: {ended:?}");

    // The audit has who made it for whom and who decided with it; the secret is nowhere.
    gate.server.kill();
    let audit = gate.audit();
    let id_of = |row: &Value| row["id"].as_str().unwrap_or_default().to_owned();
    let find = |kind: &str| audit.iter().find(|row| row["type"] == kind).unwrap_or_else(|| panic!("{kind}: {audit:?}"));
    let (made_row, used) = (find("link_made"), find("link_used"));
    assert_eq!((id_of(made_row), &made_row["for"]), (made["id"].as_str().unwrap().to_owned(), &json!("ann")));
    assert_eq!((id_of(used), &used["verdict"]), (id_of(made_row), &json!("approve")));
    assert!(audit.iter().any(|row| row["type"] == "answered" && row["via"] == "link" && row["by"] == "ann"));
    for url in [url, &first, &second] {
        let secret = url.rsplit('_').next().unwrap();
        assert!(secret.len() == 64 && !holds(gate.home(), secret.as_bytes()), "a secret was kept");
    }
}

#[tokio::test]
async fn a_link_may_what_its_person_may() {
    let gate = Gate::start(json!({}));
    let (ann_id, ann) = key(gate.home(), "ann", &["approver"]);
    key(gate.home(), "eve", &["approver", "deployer"]);
    key(gate.home(), "vera", &["viewer"]);
    let (_, id) = gate.asks("eve", Value::Null).await;

    // An approver makes one for themselves, an admin for anybody; never for whoever may not decide, or for too long.
    let path = format!("/approvals/{id}/links");
    let make = |key: String, body: Value| {
        let path = path.clone();
        let gate = &gate;
        async move { gate.api(&key, "POST", &path, body).await }
    };
    let own = make(ann.clone(), json!({"ttl": "1h"})).await;
    assert!(own.status == 200 && own.json()["for"] == "ann", "{}", own.body);
    let of_ann = own.json()["url"].as_str().unwrap().to_owned();
    assert_eq!(make(ann.clone(), json!({"for": "eve"})).await.status, 403);
    assert_eq!(make(gate.agent.clone(), json!({})).await.status, 403);
    assert_eq!(make(gate.root.clone(), json!({"for": "eve"})).await.status, 200);
    for refused in [json!({"for": "vera"}), json!({"for": "nobody"}), json!({"for": "ann", "ttl": "31d"})] {
        let refused = make(gate.root.clone(), refused).await;
        assert!(refused.status == 422 && refused.body.contains("link_invalid"), "{} {}", refused.status, refused.body);
    }

    // Made with a key that may less than another one of the same person's, it may no more than that.
    let terms = json!({
        "rule": "leads", "approvals": [{"count": 1, "of": {"groups": ["leads"]}}], "own_requests": "refused",
        "on_expiry": "reject",
    });
    let (_, of_leads) = gate.asks("agent", terms).await;
    let more = ["--json", "keys", "create", "ann", "--role", "approver", "--group", "leads"];
    assert!(tidegate(gate.home()).args(more).output().unwrap().status.success());
    let less = gate.api(&ann, "POST", &format!("/approvals/{of_leads}/links"), json!({})).await.json();
    let refused = gate.say(less["url"].as_str().unwrap(), "approve", "").await;
    assert!(refused.status == 403 && refused.body.contains("does not name ann"), "{} {}", refused.status, refused.body);
    assert_eq!(gate.say(&gate.url(&of_leads, "ann"), "approve", "").await.status, 303, "an admin's has them all");
    let keys: Value =
        serde_json::from_slice(&tidegate(gate.home()).args(["--json", "keys", "list"]).output().unwrap().stdout)
            .unwrap();
    let second = keys.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();

    // Whoever asked for a release sends others no links for it, which they could use themselves.
    let (_, of_root) = gate.asks("root", Value::Null).await;
    let own = gate.api(&gate.root, "POST", &format!("/approvals/{of_root}/links"), json!({"for": "ann"})).await;
    assert!(own.status == 403 && own.body.contains("own_request"), "{} {}", own.status, own.body);

    // Nobody approves what they asked for, by a link neither; a no is theirs.
    let of_eve = gate.url(&id, "eve");
    let refused = gate.say(&of_eve, "approve", "").await;
    assert!(refused.status == 403 && refused.body.contains("nobody approves what they asked for"), "{}", refused.body);
    // In a freeze a yes waits.
    let freeze = json!({"name": "the fair", "from": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"});
    let policy = |freezes: Value| {
        let settings = json!({"policy": {"freezes": freezes}});
        std::fs::write(gate.home().join("config.yaml"), settings.to_string()).unwrap();
    };
    policy(json!([freeze]));
    let frozen = gate.say(&of_ann, "approve", "").await;
    assert!(frozen.status == 423 && frozen.body.contains("the fair"), "{} {}", frozen.status, frozen.body);
    policy(json!([]));

    // What ends by itself.
    let short = gate.link(&id, "ann", "1ms")["url"].as_str().unwrap().to_owned();
    let over = gate.look(&short).await;
    assert!(over.status == 410 && !over.body.contains("sha256:3"), "{} {}", over.status, over.body);
    assert_eq!(gate.say(&short, "approve", "").await.status, 410);

    // What was sent to the wrong place is taken back, by its person or an admin.
    let wrong = gate.link(&id, "eve", "1h");
    let path = format!("/approvals/{id}/links/{}", wrong["id"].as_str().unwrap());
    assert_eq!(gate.api(&ann, "DELETE", &path, json!({})).await.status, 403);
    assert_eq!(gate.api(&gate.root, "DELETE", &path.replace(&id, "another"), json!({})).await.status, 404);
    assert_eq!(gate.api(&gate.root, "DELETE", &path, json!({})).await.status, 204);
    assert_eq!(gate.say(wrong["url"].as_str().unwrap(), "reject", "mine").await.status, 410);
    let another = gate.url(&id, "ann");
    assert!(tidegate(gate.home()).args(["approvals", "unlink", &another]).output().unwrap().status.success());
    assert_eq!(gate.look(&another).await.status, 410);
    assert!(gate.audit().iter().any(|row| row["type"] == "link_revoked" && row["by"] == "root"));

    // Other evidence than what was asked when it was made: it is shown, and not decided.
    let now = rusqlite::Connection::open(gate.home().join("tidegate.db")).unwrap();
    now.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    let body: String = now.query_row("SELECT body FROM interrupts WHERE id = ?1", [&id], |row| row.get(0)).unwrap();
    let mut asked: Value = serde_json::from_str(&body).unwrap();
    asked["value"]["evidence"]["because"] = json!("the checks were made again");
    asked["digest"] = json!("sha256:another");
    let put = |body: &str| now.execute("UPDATE interrupts SET body = ?2 WHERE id = ?1", [&id, body]).unwrap();
    put(&asked.to_string());
    let shown = gate.look(&of_ann).await;
    assert!(shown.body.contains("made again") && !shown.body.contains("name=\"verdict\""), "{}", shown.body);
    let outdated = gate.say(&of_ann, "approve", "").await;
    assert!(outdated.status == 409 && outdated.body.contains("Something else is asked now"), "{}", outdated.body);
    put(&body);
    drop(now);

    // A key that is revoked takes its person's links with it.
    for id in [&ann_id, &second] {
        assert!(tidegate(gate.home()).args(["keys", "revoke", id]).output().unwrap().status.success());
    }
    for refused in [gate.look(&of_ann).await, gate.say(&of_ann, "approve", "").await] {
        assert!(refused.status == 403 && !refused.body.contains("sha256:3"), "{} {}", refused.status, refused.body);
    }
    assert_eq!(gate.question(&id).await["answer"], Value::Null, "nothing of all that decided it");
    assert_eq!(gate.say(&of_eve, "reject", "my mistake").await.status, 303, "and used nothing up");

    // Wrong ones are held up as wrong keys are.
    let mut told = Vec::new();
    for n in 0..40 {
        told.push(gate.look(&format!("{}/l/tgl_{n}_{n}", gate.server.url)).await.status.as_u16());
    }
    assert!(told[0] == 404 && told.contains(&429), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_each_by_a_link() {
    let gate = Gate::start(json!({"groups": {"leads": ["ann", "bob", "cy"]}}));
    for name in ["ann", "bob", "cy", "dan"] {
        key(gate.home(), name, &["approver"]);
    }
    let terms = json!({
        "rule": "four eyes", "approvals": [{"count": 2, "of": {"groups": ["leads"]}}], "own_requests": "refused",
        "on_expiry": "reject",
    });
    let (thread, id) = gate.asks("agent", terms).await;
    let [ann, bob, dan] = ["ann", "bob", "dan"].map(|name| gate.url(&id, name));
    let refused = gate.say(&dan, "approve", "").await;
    assert!(refused.status == 403 && refused.body.contains("four eyes"), "{} {}", refused.status, refused.body);
    // Sent several times at once it counts once.
    let all = futures_util::future::join_all((0..8).map(|_| gate.say(&ann, "approve", ""))).await;
    let mut said: Vec<u16> = all.iter().map(|answer| answer.status.as_u16()).collect();
    said.sort_unstable();
    assert_eq!(said, [303, 409, 409, 409, 409, 409, 409, 409]);
    let open = gate.question(&id).await;
    assert_eq!((&open["answer"], &open["missing"][0]["count"]), (&Value::Null, &json!(1)), "{open}");
    let shown = gate.look(&ann).await;
    assert!(shown.body.contains("You said yes") && shown.body.contains("1 approval of group leads"), "{}", shown.body);
    assert_eq!(gate.say(&bob, "approve", "").await.status, 303);
    let values = gate.until_idle(&thread).await;
    let votes = &values["decision"]["votes"];
    assert_eq!((&votes[0]["by"], &votes[1]["by"], &votes[1]["via"]), (&json!("ann"), &json!("bob"), &json!("link")));
    let audit = gate.audit();
    assert!(audit.iter().any(|row| row["type"] == "voted" && row["via"] == "link" && row["by"] == "ann"), "{audit:?}");
    assert_eq!(audit.iter().filter(|row| row["type"] == "link_used").count(), 2);
}
