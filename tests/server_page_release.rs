//! Real releases, decided and taken back on the page.

mod page_support;
mod release_support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use page_support::{Browser, ENTER, api};
use release_support::{Home, Project, greet};
use serde_json::{Value, json};

/// A home's server.
struct Serve {
    child: Child,
    url: String,
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
        Self { child, url }
    }

    fn get(&self, path: &str) -> Value {
        api("GET", &format!("{}{path}", self.url), None).1
    }

    /// A client that begins a release and waits until it has its output, or has failed.
    fn client(&self, project: &Project, version: &str) -> (String, std::thread::JoinHandle<Value>) {
        let url = self.url.clone();
        let thread =
            api("POST", &format!("{url}/threads"), Some(json!({}))).1["thread_id"].as_str().unwrap().to_owned();
        let document = json!({
            "modelArtifact": {"path": project.arg(), "framework": "scikit-learn", "version": version},
            "servingRequirements": {"latencyP99": "2s", "throughput": "1rps", "availability": "99%"},
            "deploymentStrategy": "blue-green",
            "infrastructure": {"platform": "local", "namespace": "default", "resources": {}},
        });
        let own = thread.clone();
        let client = std::thread::spawn(move || {
            let body = json!({"assistant_id": "model_deployer", "input": document});
            let asked = api("POST", &format!("{url}/threads/{own}/runs/wait"), Some(body)).1;
            assert!(asked["__interrupt__"].is_array(), "{asked}");
            loop {
                let thread = api("GET", &format!("{url}/threads/{own}"), None).1;
                if thread["values"]["output"].is_object() || thread["status"] == "error" {
                    return thread;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        (thread, client)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nothing went wrong in the page.
fn quiet(browser: &Browser) {
    assert_eq!(browser.complaints(), Vec::<String>::new(), "at {}", browser.path());
}

#[test]
fn a_release_is_approved_on_the_page_while_a_client_waits_and_taken_back_there() {
    let home = Home::new();
    let server = Serve::start(&home);
    let browser = Browser::start(&server.url);
    browser.open("/ui/");
    browser.says("h2", "Nothing serves yet");
    browser.eval("window.sameDocument = true");
    let (thread, client) = server.client(&home.hello("one"), "one");
    browser.says("#open a", "Release hello one");
    assert_eq!(browser.eval("return window.sameDocument === true"), json!(true), "it came without a reload");
    browser.click("#open a");
    browser.says("h1", "Release hello one");

    // What a decision rests on is there: what will happen, checks with their plots, the digest that counts.
    let open = server.get("/approvals");
    assert_eq!(json!(browser.text("#digest")), open[0]["digest"]);
    assert!(browser.text("#what").contains("is the first that serves"), "{}", browser.text("#what"));
    assert!(browser.text("#checks").contains("smoke:greets") && browser.text("#checks h2").contains("checks passed"));
    assert!(browser.has("#checks svg.bars path.limit"));
    assert!(browser.text("#difference").contains("not compared"));
    browser.tab_to("approve");
    browser.press(ENTER);
    browser.says("#outcome strong", "approved by");
    let done = client.join().unwrap();
    assert_eq!(greet(&done["values"]["output"])["version"], "one", "{}", home.logs());
    assert_eq!(
        done["values"]["approval"]["by"],
        server.get(&format!("/approvals/{}", open[0]["id"].as_str().unwrap()))["answer"]["by"]
    );
    browser.click("#outcome a");
    browser.says("#status", "succeeded");
    assert_eq!(browser.path(), format!("/ui/runs/{thread}"));
    // Of all strategies only the one that it went through is opened.
    assert_eq!(browser.eval("return document.querySelectorAll('#picture rect.frame').length"), json!(1));
    assert!(browser.text("#output").contains("endpoint url") && browser.text("#questions").contains("approved by"));
    quiet(&browser);

    // The second one: two people decide, one of them without script.
    let (_, client) = server.client(&home.hello("two"), "two");
    let plain = Browser::with(&server.url, false);
    let question = browser.until("it asks", || Some(server.get("/approvals")[0]["id"].as_str()?.to_owned()));
    let path = format!("/ui/approvals/{question}");
    browser.open(&path);
    plain.open(&path);
    assert!(browser.text("#difference").contains("greets") && browser.text("#difference").contains("\"two\""));
    assert!(browser.has("#checks svg.bars rect.live"), "what the live version had is beside it");
    browser.write("#reason", "it may");
    browser.click("#approve");
    browser.says("#outcome", "it may");
    plain.write("#reason", "it may not");
    plain.click("#reject");
    plain.says(".note[role=alert] strong", "was answered by");
    assert!(plain.text("#outcome").contains("approved by") && !plain.has("form"), "{}", plain.text("main"));
    let done = client.join().unwrap();
    assert_eq!(greet(&done["values"]["output"])["version"], "two");
    quiet(&browser);

    // Traffic and history; back with a click and a confirmation.
    browser.open("/ui/models/hello");
    browser.says("#traffic", "two 100 %");
    browser.says("#traffic", "one standby");
    let before = browser.text("#version-1 .figures");
    for _ in 0..20 {
        greet(&done["values"]["output"]);
    }
    browser.until("the traffic is live", || {
        let now = browser.text("#version-1 .figures");
        (now != before && browser.has("#version-1 svg.area")).then_some(())
    });
    browser.size(390, 900);
    let wide = browser.eval("return document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(wide, json!(true));
    browser.click("#back");
    browser.says("h1", "Roll back hello from two to one?");
    browser.write("#reason", "two is <b>worse</b>");
    browser.click("#confirm");
    browser.says("h1", "Rollback of hello");
    browser.says("#status", "succeeded");
    assert_eq!(greet(&done["values"]["output"])["version"], "one", "{}", home.logs());
    browser.open("/ui/models/hello");
    browser.says("#history", "two is <b>worse</b>");
    browser.says("#history tbody tr:first-child th", "live");
    quiet(&browser);
    // What was shown before is not what is live now: such a confirmation does nothing.
    plain.open("/ui/models/hello/rollback?to=two");
    home.ok(&["rollback", "hello", "--to", "two"]);
    plain.click("#confirm");
    plain.says("main", "there is no version that hello could go back to");
}

#[test]
fn a_release_is_rejected_with_a_reason_and_what_changed_is_shown_anew() {
    let home = Home::new();
    let server = Serve::start(&home);
    let browser = Browser::start(&server.url);
    let (thread, client) = server.client(&home.hello("one"), "one");
    browser.open("/ui/approvals");
    browser.says("#list a", "Release hello one");
    browser.click("#list a");
    browser.says("h1", "Release hello one");

    // On something else than is asked now.
    browser.eval("document.querySelector('[name=digest]').value = 'sha256:0'");
    browser.write("#reason", "as I saw it");
    browser.click("#approve");
    browser.says(".note[role=alert] strong", "what is to be decided now");
    assert_eq!(browser.property("[name=digest]", "value"), json!(browser.text("#digest")));
    assert_eq!(browser.property("#reason", "value"), "", "what was said of something else is not kept");

    // Without a reason, and with one that nobody reads to its end.
    browser.click("#reject");
    browser.says(".note[role=alert] strong", "a rejection says why");
    browser.eval(
        "const field = document.getElementById('reason'); field.maxLength = 99999; field.value = 'x'.repeat(50000)",
    );
    browser.click("#reject");
    browser.says(".note[role=alert] strong", "at most 2000 are kept");
    assert_eq!(server.get("/approvals")[0]["model"], "hello", "nothing was recorded");
    let said = browser.complaints();
    assert!(said.iter().all(|line| line.contains("status of 409") || line.contains("status of 422")), "{said:?}");

    let reason = "<script>document.title = 'x'</script> nicht gut 模型";
    browser.eval("document.getElementById('reason').value = ''");
    browser.write("#reason", reason);
    browser.click("#reject");
    browser.says("#outcome", reason);
    assert_eq!(client.join().unwrap()["status"], "error");
    browser.open(&format!("/ui/runs/{thread}"));
    browser.says("#status", "failed");
    browser.says("#failure", reason);
    browser.says("#questions", "rejected by");
    browser.open("/ui/models/hello");
    browser.says("#history", reason);
    browser.says("#head", "No version is live");
    quiet(&browser);
}
