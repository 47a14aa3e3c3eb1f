//! Webhooks: told in order, at least once, signed; after a failure, and after a restart of the server.

mod hook_support;
mod release_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hook_support::Receiver;
use release_support::{Home, web};
use serde_json::{Value, json};

fn serve(home: &Home) -> Child {
    let mut child = home
        .command(&["--json", "serve", "--listen", "127.0.0.1:0"])
        .env("CHAT_HOOK", fs::read_to_string(home.beside("chat")).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while serde_json::from_str::<Value>(&said).is_err() {
        said.push_str(&lines.next().expect("the server tells its address").unwrap());
    }
    child
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_release_is_told_of_once_in_order_and_signed() {
    let home = Home::new();
    let receiver = Receiver::start();
    let secret = format!("whsec_{}", STANDARD.encode(b"a secret of the test's own"));
    fs::write(home.beside("hook.key"), format!("{secret}\n")).unwrap();
    fs::write(home.beside("chat"), format!("{}/chat", receiver.url)).unwrap();
    let settings = json!({
        "public_url": "https://tidegate.example.org/",
        "policy": {"gates": [{"name": "a look", "own_requests": "allowed", "remind_after": "1s"}]},
        "webhooks": [
            // It never answers, and holds up nobody else.
            {"name": "silent", "url": format!("{}/silent", receiver.url)},
            {"name": "ops", "url": format!("{}/ops", receiver.url), "secret": {"file": home.beside("hook.key")},
             "links_for": ["ann", "nobody"]},
            {"name": "chat", "url_from": {"env": "CHAT_HOOK"}, "format": "slack",
             "events": ["approval.requested", "approval.reminder", "release.failed"]},
        ],
    });
    fs::write(home.path().join("config.yaml"), settings.to_string()).unwrap();
    let ann = home.json(&["keys", "create", "ann", "--role", "approver"]);
    let server = serve(&home);
    *receiver.refuses.lock().unwrap() = 1;
    let waiting = home.run(&["deploy", home.hello("one").arg()]);
    assert_eq!(waiting.code, Some(3), "{waiting:?}");
    home.until("a reminder comes", || receiver.kinds("/ops").contains(&"approval.reminder".to_owned()).then_some(()));
    assert_eq!(receiver.kinds("/ops"), ["release.started", "approval.requested", "approval.reminder"]);
    assert_eq!(receiver.told("/silent/").len(), 0);
    assert_eq!(receiver.kinds("/silent"), ["release.started"], "it is still waited for");
    // The message carries a link for each who can have one; with it they decide.
    let links = receiver.told("/ops")[1].json()["data"]["links"].clone();
    assert_eq!(links.as_object().unwrap().len(), 1, "{links}");
    let link = links["ann"].as_str().unwrap();
    let token = link.strip_prefix("https://tidegate.example.org/l/").unwrap_or_else(|| panic!("{link}"));
    end(server);
    // What happens meanwhile is told afterwards.
    let rejected = home.run(&["reject", "hello", "--reason", "<old> labels & more"]);
    assert_eq!(rejected.code, Some(0), "{rejected:?}");
    let late = home.run(&["approvals", "link", "hello", "--for", "ann"]);
    assert_eq!(late.code, Some(2), "{late:?}");
    let server = serve(&home);
    home.until("it tells the end", || receiver.kinds("/ops").contains(&"release.failed".to_owned()).then_some(()));
    home.until("the chat has all of its own", || (receiver.told("/chat").len() == 3).then_some(()));
    end(server);
    let kinds = receiver.kinds("/ops");
    assert_eq!(
        kinds,
        ["release.started", "approval.requested", "approval.reminder", "approval.decided", "release.failed"],
        "each, in order"
    );
    let told = receiver.told("/ops");
    assert!(told.iter().all(|told| told.is_signed_with(b"a secret of the test's own")), "{told:?}");
    let asked: Value = serde_json::from_str(&told[1].body).unwrap();
    let url = asked["data"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://tidegate.example.org/ui/approvals/"), "{asked}");
    assert_eq!((&asked["data"]["model"], &asked["data"]["approval"]["rule"]), (&json!("hello"), &json!("a look")));
    let chat = receiver.told("/chat");
    assert!(chat.iter().all(|told| told.signature.is_none()));
    let last: Value = serde_json::from_str(&chat[2].body).unwrap();
    let text = last["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(text.contains("&lt;old&gt; labels &amp; more"), "{text}");
    // What lets somebody decide is kept nowhere.
    let secret = token.rsplit('_').next().unwrap();
    assert!(!home.logs().contains(secret) && !ann["key"].as_str().unwrap().contains(secret));
    // The address is a secret; it is in no log and no record.
    assert!(!home.logs().contains("/chat"), "{}", home.logs());
}

#[test]
fn a_release_goes_on_by_the_link_of_a_message() {
    let home = Home::new();
    let receiver = Receiver::start();
    fs::write(home.beside("chat"), format!("{}/chat", receiver.url)).unwrap();
    let settings = json!({
        "policy": {"gates": [{"name": "a look"}]},
        "webhooks": [{"name": "chat", "url_from": {"env": "CHAT_HOOK"}, "format": "slack", "links_for": ["ann"],
                      "events": ["approval.requested", "approval.decided", "release.succeeded"]}],
    });
    fs::write(home.path().join("config.yaml"), settings.to_string()).unwrap();
    home.json(&["keys", "create", "ann", "--role", "approver"]);
    let server = serve(&home);
    let waiting = home.run(&["deploy", home.hello("one").arg()]);
    assert_eq!(waiting.code, Some(3), "{waiting:?}");
    let text = |told: &hook_support::Told| told.json()["blocks"][0]["text"]["text"].as_str().unwrap().to_owned();
    home.until("it is asked for", || (receiver.told("/chat").len() == 1).then_some(()));
    let asked = text(&receiver.told("/chat")[0]);
    let (link, _) = asked.split_once("|Decide as ann>").unwrap_or_else(|| panic!("{asked}"));
    let link = link.rsplit('<').next().unwrap();
    for _ in 0..2 {
        let (status, page) = web::get(link).unwrap();
        assert!(status == 200 && page.contains("Release hello ") && page.contains("sha256:"), "{status} {page}");
    }
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
    let said = web::block_on(async {
        let form = client.post(link).header("content-type", "application/x-www-form-urlencoded");
        form.body("verdict=approve&reason=looks+well").send().await.unwrap().status()
    });
    assert_eq!(said, 303);
    home.until("it is told of its end", || (receiver.told("/chat").len() == 3).then_some(()));
    let told: Vec<String> = receiver.told("/chat").iter().map(text).collect();
    assert!(told[1].contains("is decided by ann: approve") && told[2].contains("is complete"), "{told:?}");
    let release = &home.history("hello")[0];
    assert_eq!((&release["status"], &release["live"]), (&json!("COMPLETED"), &json!(true)), "{release}");
    home.ok(&["audit", "verify"]);
    let record = home.json(&["run", "export", release["deployment_id"].as_str().unwrap()]);
    let votes = &record["interrupts"][0]["answer"]["value"]["votes"];
    assert_eq!((&votes[0]["by"], &votes[0]["via"]), (&json!("ann"), &json!("link")), "{votes}");
    end(server);
}
