//! Who may ask the server: keys with roles, tokens of an identity provider, limits; and nobody else.

mod server_support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use server_support::{Serve, tidegate, workflows};

type Home = Arc<tempfile::TempDir>;

fn home() -> Home {
    Arc::new(tempfile::Builder::new().prefix("tidegate-keys-").tempdir().unwrap())
}

fn keys(home: &Home, args: &[&str]) -> Value {
    let ended = tidegate(home.path()).args(["--json", "keys"]).args(args).output().unwrap();
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{args:?}: {ended:?}"))
}

fn key(home: &Home, holder: &str, role: &str) -> (String, String) {
    let made = keys(home, &["create", holder, "--role", role]);
    (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

struct Asked {
    status: u16,
    body: Value,
    retry_after: Option<u64>,
}

async fn ask(url: &str, key: Option<&str>, method: &str, path: &str, body: Value) -> Asked {
    let mut request = reqwest::Client::new().request(method.parse().unwrap(), format!("{url}{path}"));
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    if method != "GET" {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let retry_after = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().parse().unwrap());
    let status = answer.status().as_u16();
    let body = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
    Asked { status, body, retry_after }
}

async fn status(url: &str, key: Option<&str>, method: &str, path: &str, body: Value) -> u16 {
    ask(url, key, method, path, body).await.status
}

async fn until_status(url: &str, key: Option<&str>, path: &str, wanted: u16) {
    for _ in 0..500 {
        if status(url, key, "GET", path, Value::Null).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("GET {path} never was {wanted}");
}

#[tokio::test]
async fn each_key_does_what_its_roles_allow() {
    let home = home();
    let server = Serve::start_in(home.clone(), &workflows(), "127.0.0.1:0");
    let url = server.url.clone();
    let thread = server.thread().await;
    // From the first key on nobody is let in without one; a server that is there says so to everybody.
    let (_, viewer) = key(&home, "vera", "viewer");
    until_status(&url, None, &format!("/threads/{thread}"), 401).await;
    assert_eq!(status(&url, None, "GET", "/ok", Value::Null).await, 200);
    assert_eq!(status(&url, Some("tgk_0_0"), "GET", "/ok", Value::Null).await, 401, "a wrong key is told at once");
    let (id, deployer) = key(&home, "agent", "deployer");
    let (_, approver) = key(&home, "ann", "approver");
    let runs = format!("/threads/{thread}/runs/wait");
    let run = json!({"assistant_id": "approval", "input": {"model": "iris"}});
    assert_eq!(status(&url, Some(&viewer), "GET", &format!("/threads/{thread}"), Value::Null).await, 200);
    for key in [&viewer, &approver] {
        let refused = ask(&url, Some(key), "POST", &runs, run.clone()).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
        assert!(refused.body["detail"].as_str().unwrap().contains("deployer"), "{}", refused.body);
    }
    let asked = ask(&url, Some(&deployer), "POST", &runs, run).await;
    assert!(asked.status == 200 && asked.body["__interrupt__"].is_array(), "{}", asked.body);
    // Answering, changing a state and going past a gate is the approver's, by whatever way.
    let state = format!("/threads/{thread}/state");
    for (path, body) in [
        (&runs, json!({"assistant_id": "approval", "command": {"resume": true}})),
        (&runs, json!({"assistant_id": "approval", "command": {"goto": "deploy"}})),
        (&state, json!({"values": {"decision": true}, "as_node": "approve"})),
    ] {
        assert_eq!(status(&url, Some(&deployer), "POST", path, body.clone()).await, 403, "{path} {body}");
    }
    let both = keys(&home, &["create", "eve", "--role", "approver", "--role", "deployer"]);
    let resume = json!({"assistant_id": "approval", "command": {"resume": "yes"}});
    let ended = ask(&url, both["key"].as_str(), "POST", &runs, resume).await;
    assert_eq!(ended.body["decision"], json!("yes"), "{}", ended.body);

    // A revoked key counts no more, whoever remembers it.
    assert_eq!(keys(&home, &["revoke", &id])["state"], "revoked");
    until_status(&url, Some(&deployer), &format!("/threads/{thread}"), 401).await;
    let short = keys(&home, &["create", "guest", "--role", "viewer", "--expires", "1ms"]);
    until_status(&url, short["key"].as_str(), &format!("/threads/{thread}"), 401).await;

    // No secret is anywhere in the home, and the audit tells who was given what.
    drop(server);
    for key in [&viewer, &deployer, &approver] {
        let secret = key.rsplit('_').next().unwrap();
        assert!(!holds(home.path(), secret.as_bytes()), "a secret was kept");
    }
    let audit = tidegate(home.path()).args(["audit", "export"]).output().unwrap();
    let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
    let told: Vec<&Value> = audit["rows"].as_array().unwrap().iter().map(|row| &row["event"]["type"]).collect();
    assert!(told.contains(&&json!("key_created")) && told.contains(&&json!("key_revoked")), "{told:?}");
    assert!(tidegate(home.path()).args(["audit", "verify"]).status().unwrap().success());
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

#[test]
fn a_key_that_makes_no_sense_is_refused() {
    let home = home();
    for args in [
        &["create", "ann", "--role", "aprover"][..],
        &["create", "ann"],
        &["create", " ", "--role", "viewer"],
        &["create", "a\nb", "--role", "viewer"],
        &["create", "ann", "--role", "viewer", "--group", ""],
        &["revoke", "nobody"],
    ] {
        let ended = tidegate(home.path()).args(["--json", "keys"]).args(args).output().unwrap();
        assert!(matches!(ended.status.code(), Some(1 | 2 | 4)), "{args:?}: {ended:?}");
    }
    assert_eq!(keys(&home, &["list"]), json!([]));
    let made = keys(&home, &["create", "Änne 🦉", "--role", "viewer"]);
    assert_eq!(made["holder"], "Änne 🦉");
}

/// A server with further arguments.
fn serve(home: &Home, args: &[&str]) -> (Server, String) {
    let mut command = tidegate(home.path());
    command.args(["--json", "serve"]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let url = server_support::told_url(&mut child).expect("it serves");
    (Server(child), url)
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn others_reach_it_only_with_keys() {
    let home = home();
    let refused = tidegate(home.path()).args(["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() != Some(0) && said.contains("tidegate keys create"), "{said}");
    let (_, admin) = key(&home, "root", "admin");
    let (_server, url) = serve(&home, &["--listen", "0.0.0.0:0", "--allow-origin", "https://inbox.example.org"]);
    let url = url.replace("0.0.0.0", "127.0.0.1");
    let asked = |host: &'static str, origin: Option<&'static str>| {
        let (url, admin) = (url.clone(), admin.clone());
        async move {
            let mut request = reqwest::Client::new().get(format!("{url}/info")).header("host", host);
            request = request.header("authorization", format!("Bearer {admin}"));
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            request.send().await.unwrap().status().as_u16()
        }
    };
    assert_eq!(asked("tidegate.example.org", None).await, 200, "it has whatever name it is reached by");
    assert_eq!(asked("tidegate.example.org", Some("https://tidegate.example.org")).await, 200);
    assert_eq!(asked("tidegate.example.org", Some("https://inbox.example.org")).await, 200);
    assert_eq!(asked("tidegate.example.org", Some("https://evil.example.org")).await, 403);
}

#[tokio::test]
async fn nobody_asks_too_often_or_tries_keys() {
    let home = home();
    let (_, viewer) = key(&home, "vera", "viewer");
    let (_, other) = key(&home, "otto", "viewer");
    let (_server, url) = serve(&home, &["--listen", "127.0.0.1:0", "--rate-limit", "1"]);
    let mut refused = None;
    for _ in 0..50 {
        let asked = ask(&url, Some(&viewer), "GET", "/info", Value::Null).await;
        if asked.status == 429 {
            refused = Some(asked);
            break;
        }
    }
    let refused = refused.expect("a caller is held to the limit");
    assert!(refused.retry_after.is_some_and(|seconds| seconds >= 1), "{}", refused.body);
    assert_eq!(status(&url, Some(&other), "GET", "/info", Value::Null).await, 200, "others are not");
    let mut told = Vec::new();
    for n in 0..60 {
        told.push(status(&url, Some(&format!("tgk_{n}_{n}")), "GET", "/info", Value::Null).await);
    }
    assert!(told[0] == 401 && told.contains(&429), "{told:?}");
}

/// An identity provider: its documents over HTTP, and tokens by its key.
struct Provider {
    url: String,
    key: Arc<Mutex<(String, ring::signature::EcdsaKeyPair)>>,
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let n = u32::from(chunk[0]) << 16
            | u32::from(*chunk.get(1).unwrap_or(&0)) << 8
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for place in 0..=chunk.len() {
            text.push(char::from(LETTERS[(n >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

fn fresh_key() -> ring::signature::EcdsaKeyPair {
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as HOW, EcdsaKeyPair};
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&HOW, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&HOW, document.as_ref(), &random).unwrap()
}

impl Provider {
    fn start() -> Self {
        use ring::signature::KeyPair;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key = Arc::new(Mutex::new(("first".to_owned(), fresh_key())));
        let (issuer, keys) = (url.clone(), key.clone());
        listener.set_nonblocking(true).unwrap();
        let router = axum::Router::new()
            .route(
                "/.well-known/openid-configuration",
                axum::routing::get(move || {
                    let issuer = issuer.clone();
                    async move { axum::Json(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")})) }
                }),
            )
            .route(
                "/keys",
                axum::routing::get(move || {
                    let keys = keys.clone();
                    async move {
                        let keys = keys.lock().unwrap();
                        let point = keys.1.public_key().as_ref().to_vec();
                        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
                        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": keys.0, "x": x, "y": y});
                        axum::Json(json!({"keys": [{"kty": "odd", "kid": "odd"}, key]}))
                    }
                }),
            );
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, key }
    }

    fn token(&self, claims: &Value) -> String {
        let key = self.key.lock().unwrap();
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": key.0});
        let text = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        let signed = key.1.sign(&ring::rand::SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", base64url(signed.as_ref()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_identity_provider() {
    let home = home();
    let provider = Provider::start();
    let settings = json!({"oidc": {
        "issuer": provider.url, "audience": "tidegate", "name_claim": "email",
        "roles": {"approver": ["ml-leads"], "viewer": ["*"]},
    }});
    std::fs::write(home.path().join("config.yaml"), settings.to_string()).unwrap();
    let (_server, url) = serve(&home, &["--listen", "127.0.0.1:0"]);
    let now = chrono::Utc::now().timestamp();
    let claims = |change: Value| {
        let mut claims = json!({
            "iss": provider.url, "aud": "tidegate", "sub": "1", "email": "ann@example.org", "exp": now + 600,
            "groups": ["ml-leads"],
        });
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    };
    let asked = |token: String| {
        let url = url.clone();
        async move {
            let get = reqwest::Client::new()
                .get(format!("{url}/approvals"))
                .header("authorization", format!("Bearer {token}"));
            get.send().await.unwrap().status().as_u16()
        }
    };
    assert_eq!(status(&url, None, "GET", "/approvals", Value::Null).await, 401, "nobody is let in without");
    let good = provider.token(&claims(json!({})));
    assert_eq!(asked(good.clone()).await, 200);
    for wrong in [
        json!({"aud": "another"}),
        json!({"iss": "https://another.example.org"}),
        json!({"exp": now - 3_600}),
        json!({"nbf": now + 3_600}),
        json!({"email": " "}),
    ] {
        assert_eq!(asked(provider.token(&claims(wrong.clone()))).await, 401, "{wrong}");
    }
    let body = good.split('.').nth(1).unwrap();
    let unsigned = format!("{}.{body}.", base64url(br#"{"alg":"none","typ":"JWT"}"#));
    let shared =
        format!("{}.{body}.{}", base64url(br#"{"alg":"HS256","typ":"JWT","kid":"first"}"#), base64url(&[0; 32]));
    let other = Provider { url: provider.url.clone(), key: Arc::new(Mutex::new(("first".to_owned(), fresh_key()))) };
    for token in [unsigned, shared, other.token(&claims(json!({}))), "a.b.c".to_owned()] {
        assert_eq!(asked(token.clone()).await, 401, "{token}");
    }
    // Roles come from groups: everybody looks, nobody of them starts runs.
    let bearer = |token: &str| format!("Bearer {token}");
    let run =
        reqwest::Client::new().post(format!("{url}/runs/wait")).json(&json!({"assistant_id": "rollback", "input": {}}));
    assert_eq!(run.header("authorization", bearer(&good)).send().await.unwrap().status(), 403);
    // Keys of our own count beside.
    let (_, admin) = key(&home, "root", "admin");
    assert_eq!(status(&url, Some(&admin), "GET", "/approvals", Value::Null).await, 200);
}

#[tokio::test]
async fn a_run_that_waits_does_not_outlive_its_callers_key() {
    let home = home();
    let (_, admin) = key(&home, "root", "admin");
    let (id, deployer) = key(&home, "agent", "deployer");
    let server = Serve::start_in(home.clone(), &workflows(), "127.0.0.1:0");
    let url = server.url.clone();
    let begin = async |key: &str, after: u64| {
        let thread = ask(&url, Some(key), "POST", "/threads", json!({})).await.body["thread_id"].clone();
        let runs = format!("/threads/{}/runs", thread.as_str().unwrap());
        let body = json!({
            "assistant_id": "trivial", "input": {"x": 1}, "after_seconds": after, "stream_resumable": true,
        });
        let run = ask(&url, Some(key), "POST", &runs, body).await.body["run_id"].clone();
        format!("{runs}/{}", run.as_str().unwrap())
    };
    let (at_once, others) = (begin(&deployer, 0).await, begin(&admin, 2).await);
    let waits = begin(&deployer, 2).await;
    assert_eq!(ask(&url, Some(&admin), "GET", &format!("{at_once}/join"), Value::Null).await.body, json!({"x": 2}));
    keys(&home, &["revoke", &id]);

    let refused = ask(&url, Some(&admin), "GET", &format!("{waits}/join"), Value::Null).await.body;
    assert_eq!(refused["__error__"]["error"], "caller_refused", "{refused}");
    assert_eq!(ask(&url, Some(&admin), "GET", &waits, Value::Null).await.body["status"], "error");
    let request = reqwest::Client::new().get(format!("{url}{waits}/stream")).header("x-api-key", &admin);
    let told = request.send().await.unwrap().text().await.unwrap();
    assert!(told.contains("event: error") && told.contains("was revoked"), "{told}");
    let of_others = ask(&url, Some(&admin), "GET", &format!("{others}/join"), Value::Null).await.body;
    assert_eq!(of_others, json!({"x": 2}));
}

#[tokio::test]
async fn a_key_that_is_revoked_while_its_request_comes_in_decides_nothing() {
    use std::io::{Read, Write};
    let home = home();
    let server = Serve::start_in(home.clone(), &workflows(), "127.0.0.1:0");
    let (_, admin) = key(&home, "eve", "admin");
    let made = keys(&home, &["create", "ann", "--role", "approver", "--role", "deployer"]);
    let [id, ann] = ["id", "key"].map(|part| made[part].as_str().unwrap().to_owned());
    let url = server.url.clone();
    until_status(&url, None, "/assistants/approval/schemas", 401).await;
    let thread = ask(&url, Some(&admin), "POST", "/threads", json!({})).await.body["thread_id"].clone();
    let thread = thread.as_str().unwrap().to_owned();
    let run = json!({"assistant_id": "approval", "input": {"model": "m"}});
    let asked = ask(&url, Some(&admin), "POST", &format!("/threads/{thread}/runs/wait"), run).await;
    let question = asked.body["__interrupt__"][0]["id"].as_str().unwrap().to_owned();
    let requests = [
        (format!("/approvals/{question}"), json!({"verdict": "approve", "digest": "sha256:0"})),
        (format!("/threads/{thread}/runs"), json!({"assistant_id": "approval", "command": {"resume": "yes"}})),
    ];
    // The heads with the key that counts; the bodies when it does not any more.
    let half: Vec<_> = requests
        .iter()
        .map(|(path, body)| {
            let body = body.to_string();
            let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {ann}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            let (first, rest) = body.split_at(4);
            stream.write_all(first.as_bytes()).unwrap();
            (stream, rest.to_owned())
        })
        .collect();
    assert_eq!(status(&url, Some(&ann), "GET", "/approvals", Value::Null).await, 200);
    keys(&home, &["revoke", &id]);
    until_status(&url, Some(&ann), "/approvals", 401).await;
    for (mut stream, rest) in half {
        stream.write_all(rest.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 401"), "{said}");
    }
    let now = ask(&url, Some(&admin), "GET", &format!("/threads/{thread}/state"), Value::Null).await;
    assert_eq!(now.body["next"], json!(["approve"]), "nothing was decided");
}
