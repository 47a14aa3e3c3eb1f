//! Webhooks: told in order, at least once, signed; after a failure, and after a restart of the server.

mod hook_support;
mod release_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hook_support::Receiver;
use release_support::Home;
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
