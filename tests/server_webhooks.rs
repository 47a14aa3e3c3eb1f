//! Webhooks: told in order, at least once, signed; after a failure, and after a restart of the server.

mod release_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use release_support::Home;
use serde_json::{Value, json};

/// What one request said.
#[derive(Debug, Clone)]
struct Told {
    path: String,
    id: String,
    at: String,
    signature: Option<String>,
    body: String,
}

/// Takes what it is told; answers 500 as often as it is asked to.
struct Receiver {
    url: String,
    told: Arc<Mutex<Vec<Told>>>,
    refuses: Arc<Mutex<u32>>,
    _runtime: tokio::runtime::Runtime,
}

impl Receiver {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let refuses = Arc::new(Mutex::new(0_u32));
        let (all, no) = (told.clone(), refuses.clone());
        let take = move |uri: axum::http::Uri, headers: axum::http::HeaderMap, body: String| {
            let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let mut no = no.lock().unwrap();
            let refused = *no > 0;
            *no -= u32::from(refused);
            let (id, at) = (text("webhook-id").unwrap(), text("webhook-timestamp").unwrap());
            let signature = text("webhook-signature");
            if !refused {
                all.lock().unwrap().push(Told { path: uri.path().to_owned(), id, at, signature, body });
            }
            let status = if refused { 500 } else { 204 };
            async move { axum::http::StatusCode::from_u16(status).unwrap() }
        };
        let url = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let router = axum::Router::new().fallback(take);
            tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
            url
        });
        Self { url, told, refuses, _runtime: runtime }
    }

    fn told(&self, path: &str) -> Vec<Told> {
        let mut all: Vec<Told> = self.told.lock().unwrap().iter().filter(|told| told.path == path).cloned().collect();
        // At least once: whoever was killed after it had told tells it again, under the same id.
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|told| seen.insert(told.id.clone()));
        all
    }

    fn kinds(&self, path: &str) -> Vec<String> {
        let of = |told: &Told| serde_json::from_str::<Value>(&told.body).unwrap()["type"].as_str().unwrap().to_owned();
        self.told(path).iter().map(of).collect()
    }
}

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
            {"name": "ops", "url": format!("{}/ops", receiver.url), "secret": {"file": home.beside("hook.key")}},
            {"name": "chat", "url_from": {"env": "CHAT_HOOK"}, "format": "slack",
             "events": ["approval.requested", "approval.reminder", "release.failed"]},
        ],
    });
    fs::write(home.path().join("config.yaml"), settings.to_string()).unwrap();
    let server = serve(&home);
    *receiver.refuses.lock().unwrap() = 1;
    let waiting = home.run(&["deploy", home.hello("one").arg()]);
    assert_eq!(waiting.code, Some(3), "{waiting:?}");
    home.until("a reminder comes", || receiver.kinds("/ops").contains(&"approval.reminder".to_owned()).then_some(()));
    assert_eq!(receiver.kinds("/ops"), ["release.started", "approval.requested", "approval.reminder"]);
    end(server);
    // What happens meanwhile is told afterwards.
    let rejected = home.run(&["reject", "hello", "--reason", "<old> labels & more"]);
    assert_eq!(rejected.code, Some(0), "{rejected:?}");
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
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a secret of the test's own");
    for told in &told {
        let signed = told.signature.as_deref().unwrap().strip_prefix("v1,").unwrap();
        let what = format!("{}.{}.{}", told.id, told.at, told.body);
        ring::hmac::verify(&key, what.as_bytes(), &STANDARD.decode(signed).unwrap()).expect("it is signed");
    }
    let asked: Value = serde_json::from_str(&told[1].body).unwrap();
    let url = asked["data"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://tidegate.example.org/ui/approvals/"), "{asked}");
    assert_eq!((&asked["data"]["model"], &asked["data"]["approval"]["rule"]), (&json!("hello"), &json!("a look")));
    let chat = receiver.told("/chat");
    assert!(chat.iter().all(|told| told.signature.is_none()));
    let last: Value = serde_json::from_str(&chat[2].body).unwrap();
    let text = last["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(text.contains("&lt;old&gt; labels &amp; more"), "{text}");
    // The address is a secret; it is in no log and no record.
    assert!(!home.logs().contains("/chat"), "{}", home.logs());
}
