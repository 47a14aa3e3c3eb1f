//! The web page in a real Chromium: questions of workflows, both widths, keyboard, without script, what assistive technology needs; and its
//! forms without a browser.

mod page_support;
mod server_support;

use std::fs;
use std::sync::Arc;

use page_support::{Answer, Browser, ENTER, api, request};
use serde_json::{Value, json};
use server_support::{Serve, workflows};

/// Workflows of the tests, and one whose question is over soon, one with a schema.
fn served() -> Serve {
    let home = Arc::new(tempfile::Builder::new().prefix("tidegate-page-").tempdir().unwrap());
    let folder = home.path().join("own-workflows");
    fs::create_dir(&folder).unwrap();
    fs::copy(workflows().join("approval.yaml"), folder.join("approval.yaml")).unwrap();
    let asks = |name: &str, more: &str| {
        let text = format!(
            "name: {name}\nchannels:\n  about: {{ type: string }}\n  answer: {{ type: any }}\nnodes:\n  ask:\n    type: ask\n    \
             prompt: \"{{'question': has(state.about) ? about : 'Go on?'}}\"\n    into: answer\n    {more}\n  after: {{ type: expr, \
             set: {{ about: \"'done'\" }} }}\nedges:\n  - {{ from: START, to: ask }}\n  - {{ from: ask, to: after }}\n"
        );
        fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    };
    asks("brief", "ttl: 3s");
    asks("typed", "answer: { type: object, properties: { go: { type: boolean } }, required: [go] }");
    Serve::start_in(home, &folder, "127.0.0.1:0")
}

/// A thread that stands at its question, and the question's id.
fn asked(server: &Serve, graph: &str, input: Value) -> (String, String) {
    let thread =
        api("POST", &format!("{}/threads", server.url), Some(json!({}))).1["thread_id"].as_str().unwrap().to_owned();
    let body = json!({"assistant_id": graph, "input": input});
    let values = api("POST", &format!("{}/threads/{thread}/runs/wait", server.url), Some(body)).1;
    let question = values["__interrupt__"][0]["id"].as_str().unwrap_or_else(|| panic!("{values}")).to_owned();
    (thread, question)
}

fn values(server: &Serve, thread: &str) -> Value {
    api("GET", &format!("{}/threads/{thread}/state", server.url), None).1["values"].clone()
}

fn get(server: &Serve, path: &str) -> Answer {
    request("GET", &format!("{}{path}", server.url), &[], None)
}

#[test]
fn a_question_is_answered_in_a_form_and_the_page_goes_on_by_itself() {
    let server = served();
    let browser = Browser::start(&server.url);
    browser.open("/ui/approvals");
    browser.says("h2", "Nothing waits for a decision");
    browser.eval("window.sameDocument = true");
    let (thread, question) = asked(&server, "typed", json!({"about": "Shall it <b>go</b> on?"}));
    // It appears without a reload, is counted in the menu, and is said aloud.
    browser.says("#list a", "Shall it <b>go</b> on?");
    assert_eq!(browser.eval("return window.sameDocument === true"), json!(true));
    browser.says("#waiting .badge", "1");
    browser.until("it is said", || {
        (browser.eval("return document.getElementById('news').textContent") == "1 decision waits").then_some(())
    });
    browser.click("#list a");
    browser.says("h1", "Shall it <b>go</b> on?");
    assert_eq!(browser.path(), format!("/ui/approvals/{question}"));

    // What is no answer is refused, and what was written stays.
    browser.write("#answer", "yes, please");
    browser.click("#send");
    browser.says(".note[role=alert] strong", "the answer is no JSON");
    assert_eq!(browser.property("#answer", "value"), "yes, please");
    browser.eval("document.getElementById('answer').value = ''");
    browser.write("#answer", r#"{"go": "perhaps"}"#);
    browser.click("#send");
    browser.says(".note[role=alert]", "does not meet the question's schema");
    // What a refusal of ours makes the browser say is its status, and nothing else.
    assert!(browser.complaints().iter().all(|line| line.contains("status of 422")));

    // While somebody writes, what happens elsewhere does not take the text away.
    browser.open(&format!("/ui/approvals/{question}"));
    browser.write("#answer", r#"{"go": true}"#);
    let (_, other) = asked(&server, "approval", json!({}));
    browser.says("#waiting .badge", "1");
    assert_eq!(browser.property("#answer", "value"), r#"{"go": true}"#);
    browser.click("#send");
    browser.says("#outcome strong", "answered by");
    browser.until("the run has gone on", || (values(&server, &thread)["about"] == "done").then_some(()));
    assert_eq!(values(&server, &thread)["answer"], json!({"go": true}));

    // A run's page stands at the question, and goes on when somebody else answers.
    let thread =
        api("GET", &format!("{}/approvals/{other}", server.url), None).1["thread_id"].as_str().unwrap().to_owned();
    browser.open(&format!("/ui/runs/{thread}"));
    browser.says("#status", "waits for a person");
    browser.says("#steps", "approve");
    assert!(browser.has("#picture svg rect.here") && browser.has("#picture svg path.taken"));
    browser.eval("window.sameDocument = true");
    let body = json!({"assistant_id": "approval", "command": {"resume": "yes"}});
    api("POST", &format!("{}/threads/{thread}/runs/wait", server.url), Some(body));
    browser.says("#status", "succeeded");
    browser.until("it is said", || {
        browser.eval("return document.getElementById('news').textContent").as_str()?.contains("succeeded").then_some(())
    });
    assert_eq!(browser.eval("return window.sameDocument === true"), json!(true));
    assert!(!browser.has("#picture svg rect.here"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_question_whose_time_is_over_says_so() {
    let server = served();
    let browser = Browser::start(&server.url);
    let (thread, question) = asked(&server, "brief", json!({}));
    let path = format!("/ui/approvals/{question}");
    let early = get(&server, &path);
    browser.open(&path);
    browser.says("#outcome", "It has expired");
    browser.until("the form is gone", || (!browser.has("form")).then_some(()));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // Who still has the form is told the same.
    let (token, digest) = (early.field("token"), early.field("digest"));
    let form = [("token", token.as_str()), ("digest", digest.as_str()), ("answer", "1")];
    let cookie = early.cookie();
    let late = request("POST", &format!("{}{path}", server.url), &[("cookie", &cookie)], Some(&form));
    assert!(
        late.status == 409 && late.body.contains("It has expired") && !late.body.contains("<form"),
        "{}",
        late.body
    );
    let failed =
        || (get(&server, &format!("/ui/runs/{thread}")).body.contains("nobody answered question")).then_some(());
    browser.until("the run has failed", failed);
}

#[test]
fn every_page_fits_both_widths_and_says_what_it_shows() {
    let server = served();
    let browser = Browser::start(&server.url);
    let look = |path: &str| {
        for width in [1440, 390] {
            browser.size(width, 900);
            browser.open(path);
            let [inner, outer] = ["innerWidth", "document.documentElement.scrollWidth"]
                .map(|of| browser.eval(&format!("return {of}")).as_u64().unwrap());
            assert!(outer <= inner, "{path} is {outer} wide at {width}");
        }
        assert_eq!(browser.eval(WRONG), json!([]), "{path}");
    };
    for empty in ["/ui/", "/ui/runs", "/ui/runs?show=failed", "/ui/approvals"] {
        look(empty);
        assert!(browser.has(".empty"), "{empty}");
    }
    let long = "w".repeat(400);
    let (thread, question) = asked(&server, "typed", json!({"about": long}));
    let (_, other) =
        asked(&server, "approval", json!({"model": "<script>document.title='x'</script> \u{202e}ünïcode 模型 🌊"}));
    for path in ["/ui/", "/ui/runs", "/ui/approvals"] {
        look(path);
    }
    look(&format!("/ui/runs/{thread}"));
    look(&format!("/ui/approvals/{question}"));
    look(&format!("/ui/approvals/{other}"));
    assert!(browser.text("#what pre").contains("<script>document.title='x'</script>"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // Light and dark are told apart by what the system says.
    let ground = || browser.eval("return getComputedStyle(document.body).backgroundColor");
    let light = ground();
    browser.dark();
    assert_ne!(ground(), light);
}

/// What a page lacks that assistive technology needs; everything of it is in every page.
const WRONG: &str = r#"
const wrong = [];
const one = (css) => document.querySelectorAll(css).length === 1 || wrong.push(`${css}: ${document.querySelectorAll(css).length}`);
["h1", "main", "header.top", "nav[aria-label]", "footer", "html[lang]", "[role=status][aria-live]", "a.skip[href='#main']"].forEach(one);
document.querySelectorAll("input:not([type=hidden]), textarea, select").forEach((field) => {
  if (!field.labels || field.labels.length === 0) wrong.push(`no label: ${field.outerHTML}`);
});
document.querySelectorAll("main svg").forEach((svg) => {
  const title = svg.querySelector("title");
  if (svg.getAttribute("role") !== "img" || !title || !title.textContent.trim()) wrong.push(`no title: ${svg.outerHTML.slice(0, 80)}`);
});
document.querySelectorAll("img:not([alt])").forEach((img) => wrong.push(img.outerHTML));
document.querySelectorAll("table").forEach((table) => { if (!table.querySelector("th[scope]")) wrong.push("a table without heads"); });
document.querySelectorAll("a, button").forEach((link) => { if (!link.textContent.trim()) wrong.push(link.outerHTML); });
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => wrong.push(`twice: ${id}`));
document.querySelectorAll("[aria-labelledby], [aria-describedby]").forEach((e) => {
  const id = e.getAttribute("aria-labelledby") || e.getAttribute("aria-describedby");
  if (!document.getElementById(id)) wrong.push(`nothing is ${id}`);
});
let level = 1;
document.querySelectorAll("h1, h2, h3").forEach((h) => { const n = Number(h.tagName[1]); if (n > level + 1) wrong.push(`a gap before ${h.textContent}`); level = n; });
return wrong;
"#;

#[test]
fn a_question_is_answered_by_keys_alone() {
    let server = served();
    let browser = Browser::start(&server.url);
    let (thread, question) = asked(&server, "approval", json!({}));
    browser.open("/ui/");
    // The first Tab is the way past the menu.
    browser.press(page_support::TAB);
    assert_eq!(browser.eval("return document.activeElement.className"), "skip");
    browser.press(ENTER);
    browser.press(page_support::TAB);
    assert_eq!(
        browser.eval("return document.activeElement.getAttribute('href')"),
        json!(format!("/ui/approvals/{question}"))
    );
    // The focus can be seen.
    assert_eq!(browser.eval("return getComputedStyle(document.activeElement).outlineStyle"), "solid");
    browser.press(ENTER);
    browser.says("h1", "Deploy?");
    browser.tab_to("answer");
    for key in ["\"", "y", "e", "s", "\""] {
        browser.press(key);
    }
    browser.tab_to("send");
    browser.press(ENTER);
    browser.says("#outcome strong", "answered by");
    browser.until("the run has gone on", || (values(&server, &thread)["decision"] == "yes").then_some(()));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn without_script_everything_is_read_and_answered() {
    let server = served();
    let browser = Browser::with(&server.url, false);
    let (thread, question) = asked(&server, "approval", json!({"model": "m"}));
    browser.open("/ui/");
    assert_eq!(browser.text("h1"), "Models");
    browser.click("#open a");
    browser.says("h1", "Deploy?");
    browser.click(".head a");
    browser.says("h1", "Run of approval");
    assert!(browser.has("#picture svg rect.here"));
    browser.click("#questions a");
    browser.write("#answer", "\"no\"");
    browser.click("#send");
    browser.says("#outcome strong", "answered by");
    assert_eq!(browser.path(), format!("/ui/approvals/{question}"));
    browser.until("the run has gone on", || (values(&server, &thread)["decision"] == "no").then_some(()));
    browser.click("#outcome a");
    browser.says("#status", "succeeded");
}
