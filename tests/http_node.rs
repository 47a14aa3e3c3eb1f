//! `http` nodes through the binary, against a real server that remembers what it was asked.

mod release_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use release_support::{Home, Ran, Running};
use serde_json::{Value, json};

/// One request as it arrived.
#[derive(Debug, Clone)]
struct Asked {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// What a path answers: raw HTTP, one for each request, the last one for ever. An empty one closes the connection.
type Script = BTreeMap<&'static str, Vec<String>>;

struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = asked.clone();
        let script = Arc::new(Mutex::new(script));
        // It ends with the test's process: it holds nothing but its port.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (seen.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &seen, &script));
            }
        });
        Self { addr, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Asked>>, script: &Mutex<Script>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let path = line.split(' ').nth(1)?.split('?').next()?.to_owned();
    let answer = {
        let mut script = script.lock().unwrap();
        let answers = script.get_mut(path.as_str());
        match answers {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => answer(404, "text/plain", "nothing here"),
        }
    };
    seen.lock().unwrap().push(Asked { line, headers, body: String::from_utf8(body).ok()? });
    if answer == HANG {
        // Until the other side gives up.
        let _ = stream.read(&mut [0]);
    }
    stream.write_all(answer.as_bytes()).ok()
}

/// An answer that never comes.
const HANG: &str = "hang";

fn answer(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn json_answer(body: &Value) -> String {
    answer(200, "application/json; charset=utf-8", &body.to_string())
}

fn redirect(status: u16, to: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

struct Flows {
    home: Home,
}

impl Flows {
    fn new() -> Self {
        Self { home: Home::bare() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.beside(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A workflow of `http` nodes one after the other, by what stands under `with` and beside it.
    fn workflow(&self, nodes: &[(&str, &str)]) -> String {
        let mut text =
            "name: flow\nchannels: { x: { type: any }, r: { type: any }, s: { type: any } }\nnodes:\n".to_owned();
        for (with, beside) in nodes {
            let name = format!("n{}", text.lines().count() - 2);
            text += &format!("  {name}: {{ type: http, {beside} with: {{ {with} }} }}\n");
        }
        text += "edges:\n  - { from: START, to: n1 }\n";
        for n in 1..nodes.len() {
            text += &format!("  - {{ from: n{n}, to: n{} }}\n", n + 1);
        }
        self.file("flow.yaml", &text).to_str().unwrap().to_owned()
    }

    fn start(&self, nodes: &[(&str, &str)], input: &Value) -> Ran {
        self.home.run(&["run", "start", &self.workflow(nodes), "--input", &input.to_string(), "--json"])
    }

    #[track_caller]
    fn values(&self, with: &str, input: &Value) -> Value {
        let ran = self.start(&[(with, "")], input);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.json()["values"].clone()
    }
}

#[test]
fn an_answer_goes_into_a_channel() {
    let server = Server::start(Script::from([
        ("/json", vec![json_answer(&json!({"ü": [1, 2.5, "🌊"]}))]),
        ("/text", vec![answer(200, "text/plain", "1")]),
        ("/made", vec![answer(201, "text/plain", "")]),
    ]));
    let flows = Flows::new();
    let get =
        format!("url: {}, query: \"{{'q': 'a b&c', 'n': [1, 2], 'no': null}}\", into: r", server.url("/json?k=v"));
    let input = json!({"x": {"a": "q\"🌊"}});
    assert_eq!(flows.values(&get, &input)["r"], json!({"status": 200, "body": {"ü": [1, 2.5, "🌊"]}}));
    let by_expression =
        format!("url_expr: \"'{}' + 'xt'\", into: r, keep_headers: [Content-Type, etag]", server.url("/te"));
    let text = json!({"status": 200, "body": "1", "headers": {"content-type": "text/plain"}});
    assert_eq!(flows.values(&by_expression, &input)["r"], text);
    let post = format!("method: POST, url: {}, body: x, into: r", server.url("/made"));
    assert_eq!(flows.values(&post, &input)["r"], json!({"status": 201, "body": null}));
    let form = format!(
        "method: PUT, url: {}, body: \"'a=1'\", headers: {{ Content-Type: text/x, X-Y: z }}",
        server.url("/made")
    );
    flows.values(&form, &input);

    let asked = server.asked();
    assert_eq!(asked[0].line, "GET /json?k=v&n=1&n=2&q=a+b%26c");
    assert_eq!((asked[0].headers.get("idempotency-key"), asked[0].body.as_str()), (None, ""));
    assert_eq!((asked[2].line.as_str(), asked[2].body.as_str()), ("POST /made", "{\"a\":\"q\\\"🌊\"}"));
    assert_eq!(asked[2].headers["content-type"], "application/json");
    assert_eq!(asked[2].headers["idempotency-key"].len(), 24);
    assert_eq!((asked[3].body.as_str(), asked[3].headers["x-y"].as_str()), ("a=1", "z"));
}

#[test]
fn what_is_worth_repeating_is_repeated_and_counted() {
    let gone = answer(503, "text/plain", "later");
    let server = Server::start(Script::from([
        ("/flaky", vec![gone.clone(), answer(429, "text/plain", "slow down"), String::new(), json_answer(&json!(1))]),
        ("/post", vec![gone.clone(), gone, json_answer(&json!(2))]),
        ("/broken", vec![answer(502, "text/plain", "half"), json_answer(&json!(3))]),
        ("/teapot", vec![answer(418, "application/json", "{\"error\": \"short and stout\"}")]),
    ]));
    let flows = Flows::new();
    let retry = "retry: { max_attempts: 5, initial: 10ms },";
    let run = |with: String| flows.start(&[(&with, retry)], &json!({}));
    let flaky = run(format!("url: {}, into: r", server.url("/flaky")));
    assert_eq!(flaky.json()["values"]["r"]["body"], 1, "{flaky:?}");
    let post = run(format!("method: POST, url: {}, into: r", server.url("/post")));
    assert_eq!(post.json()["values"]["r"]["body"], 2, "{post:?}");
    let careful = run(format!("method: POST, url: {}", server.url("/broken")));
    assert_eq!((careful.code, careful.error_code().as_str()), (Some(1), "http_server_error"), "{careful:?}");
    assert!(careful.error()["hint"].as_str().unwrap().contains("repeat: true"), "{careful:?}");
    let again = run(format!("method: POST, url: {}, repeat: true, into: r", server.url("/broken")));
    assert_eq!(again.json()["values"]["r"]["body"], 3, "{again:?}");
    let no = run(format!("method: POST, url: {}", server.url("/teapot")));
    assert_eq!((no.code, no.error_code().as_str()), (Some(1), "http_refused"));
    assert!(no.error()["cause"].as_str().unwrap().contains("short and stout"), "{no:?}");
    let fine = run(format!("url: {}, expect: [2xx, 418], into: r", server.url("/teapot")));
    assert_eq!(fine.json()["values"]["r"]["status"], 418, "{fine:?}");

    let asked = server.asked();
    let keys: Vec<&str> =
        asked.iter().filter(|a| a.line == "POST /post").map(|a| a.headers["idempotency-key"].as_str()).collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(asked.iter().filter(|a| a.line == "GET /flaky").count(), 4);
}

#[test]
fn bad_answers_and_bad_addresses_are_told() {
    let large = answer(200, "text/plain", &"x".repeat(1_100_000));
    let server = Server::start(Script::from([
        ("/large", vec![large]),
        ("/liar", vec![answer(200, "application/json", "{")]),
        ("/half", vec!["HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nx".to_owned()]),
        ("/round", vec![redirect(302, "/round")]),
        ("/moved", vec![redirect(307, "/large")]),
    ]));
    let flows = Flows::new();
    let closed = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    for (with, code, part) in [
        (format!("url: {}", server.url("/large")), "http_answer_unreadable", "1048576"),
        (format!("url: {}", server.url("/liar")), "http_answer_unreadable", "JSON"),
        (format!("url: {}", server.url("/half")), "http_broken", "GET"),
        (format!("url: {}", server.url("/round")), "http_refused", "redirects"),
        (format!("url: {}", server.url("/none")), "http_refused", "nothing here"),
        (format!("method: POST, url: {}", server.url("/moved")), "http_refused", "leads to"),
        (format!("url: http://{closed}/"), "http_unreachable", "refused"),
        ("url: http://no-such-host.invalid/".to_owned(), "http_unreachable", "no-such-host"),
        ("url: 'http://me:hunter2@h/'".to_owned(), "http_bad_url", "headers_from"),
        ("url_expr: \"'ftp://h/'\"".to_owned(), "http_bad_url", "ftp"),
        ("url_expr: \"1\"".to_owned(), "expression_type", "url_expr"),
        (format!("url: {}, headers: {{ 'a b': c }}", server.url("/")), "http_bad_header", "a b"),
    ] {
        let ran = flows.start(&[(&with, "")], &json!({}));
        let told = ran.error().to_string();
        assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), code), "{with}: {told}");
        assert!(told.contains(part) && !told.contains("hunter2"), "{with}: {told}");
    }
}

#[test]
fn bad_parameters_are_refused_with_their_place() {
    let flows = Flows::new();
    for (with, key, part) in [
        ("url: http://h, methd: GET", "methd", "methd"),
        ("url: http://h, method: FETCH", "method", "FETCH"),
        ("url: http://h, url_expr: x", "", "one of"),
        ("url: h/x", "url", "url_expr"),
        ("url: http://h, expect: 6xx", "expect", "6xx"),
        ("url: http://h, body: x", "body", "GET"),
        ("url: http://h, undo: { method: DELETE }", "undo", "GET"),
        ("method: POST, url: http://h, body: 'x +'", "body", "x +"),
        ("method: POST, url: http://h, body: answer", "body", "`answer`"),
        ("method: POST, url: http://h, undo: { method: DELETE, url_expr: nope }", "undo", "`nope`"),
        ("url: http://h, headers_from: { A: { } }", "headers_from", "exactly one"),
    ] {
        let ran = flows.start(&[(with, "")], &json!({}));
        let told = ran.error().to_string();
        assert!(told.contains("flow.yaml:4:") && told.contains(part), "{with}: {told}");
        assert!(ran.code == Some(2) || !told.contains("bad_parameters"), "{with} ({key}): {ran:?}");
    }
}

#[test]
fn only_who_looks_is_led_elsewhere_and_takes_no_secret_along() {
    let other = Server::start(Script::from([("/there", vec![json_answer(&json!("there"))])]));
    let to = other.url("/there");
    let server = Server::start(Script::from([
        ("/near", vec![redirect(302, "/next")]),
        ("/next", vec![json_answer(&json!("next"))]),
        ("/far", vec![redirect(301, &to)]),
    ]));
    let flows = Flows::new();
    flows.file("key", "sekrit-key");
    let with = |path: &str| format!("url: {}, into: r, headers_from: {{ X-Key: {{ file: key }} }}", server.url(path));
    assert_eq!(flows.values(&with("/near"), &json!({}))["r"]["body"], "next");
    assert_eq!(flows.values(&with("/far"), &json!({}))["r"]["body"], "there");
    assert!(server.asked().iter().all(|asked| asked.headers["x-key"] == "sekrit-key"));
    assert!(!other.asked()[0].headers.contains_key("x-key"));
}

#[test]
fn a_failure_takes_back_what_was_made_newest_first() {
    let made = |id: u32| json_answer(&json!({"id": id}));
    let server = Server::start(Script::from([
        ("/orders", vec![made(1), made(2)]),
        ("/orders/1", vec![answer(404, "text/plain", "gone")]),
        ("/orders/2", vec![answer(200, "text/plain", "removed")]),
    ]));
    let flows = Flows::new();
    let undo = format!(
        "undo: {{ method: DELETE, url_expr: \"'{}/' + string(answer.body.id)\", query: \"{{'why': x}}\" }}",
        server.url("/orders")
    );
    let make = format!("method: POST, url: {}, body: x, {undo}", server.url("/orders"));
    let fail = format!("url: {}", server.url("/none"));
    let ran = flows.start(&[(&make, ""), (&make, ""), (&fail, "")], &json!({"x": "w"}));
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "http_refused"), "{ran:?}");
    let lines = ["POST /orders", "POST /orders", "GET /none", "DELETE /orders/2?why=w", "DELETE /orders/1?why=w"];
    assert_eq!(server.lines(), lines);
    let keys: Vec<String> = server.asked().iter().filter_map(|a| a.headers.get("idempotency-key").cloned()).collect();
    assert_eq!(
        (keys[2].as_str(), keys[3].as_str()),
        (format!("{}-undo", keys[1]).as_str(), format!("{}-undo", keys[0]).as_str())
    );
}

/// Starts a request that is never answered, kills who waits for it, and takes the run up again.
fn killed(flows: &Flows, server: &Server, more: &str) -> Ran {
    let with = format!("method: POST, url: {}, into: r{more}", server.url("/hang"));
    let running = flows.home.start(&["run", "start", &flows.workflow(&[(&with, "")]), "--json"]);
    let thread = flows.home.thread_of(&running);
    flows.home.until("the request arrives", || (server.lines() == ["POST /hang"]).then_some(()));
    running.kill9();
    flows.home.run(&["run", "resume", &thread, "--json"])
}

#[test]
fn who_was_killed_while_waiting_does_not_ask_twice_unless_told_so() {
    for (more, probe, code, body) in [
        ("", 200, Some(6), Value::Null),
        (", repeat: true", 200, Some(0), json!("done")),
        ("probe", 200, Some(0), json!("found")),
        ("probe", 404, Some(0), json!("done")),
        ("probe", 500, Some(6), Value::Null),
    ] {
        let found = answer(probe, "application/json", "\"found\"");
        let server = Server::start(Script::from([
            ("/hang", vec![HANG.to_owned(), json_answer(&json!("done"))]),
            ("/found", vec![found]),
        ]));
        let flows = Flows::new();
        let asks = format!(", probe: {{ url_expr: \"'{}?key=' + token\" }}", server.url("/found"));
        let ran = killed(&flows, &server, if more == "probe" { &asks } else { more });
        assert_eq!(ran.code, code, "{more} {probe}: {ran:?}");
        if code == Some(0) {
            assert_eq!(ran.json()["values"]["r"]["body"], body, "{more} {probe}");
        } else {
            assert_eq!(ran.error_code(), "effect_unknown", "{ran:?}");
        }
        let asked = server.asked();
        let posts: Vec<&Asked> = asked.iter().filter(|a| a.line == "POST /hang").collect();
        assert_eq!(posts.len(), if body == "done" { 2 } else { 1 }, "{more} {probe}");
        let key = &posts[0].headers["idempotency-key"];
        assert!(posts.iter().all(|post| post.headers["idempotency-key"] == *key));
        let probed = asked.iter().any(|a| a.line == format!("GET /found?key={key}"));
        assert_eq!(probed, more == "probe", "{asked:?}");
    }
}

#[test]
fn a_timeout_gives_up_and_cancelling_is_no_question() {
    let server =
        Server::start(Script::from([("/hang", vec![HANG.to_owned()]), ("/back", vec![answer(204, "text/plain", "")])]));
    let flows = Flows::new();
    let slow = format!("method: POST, url: {}", server.url("/hang"));
    let ran = flows.start(&[(&slow, "timeout: 300ms,")], &json!({}));
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "node_timeout"), "{ran:?}");
    // What was perhaps done is taken back; nobody saw an answer.
    let undo = format!("{slow}, undo: {{ method: POST, url: {}, body: answer }}", server.url("/back"));
    let ran = flows.start(&[(&undo, "timeout: 300ms,")], &json!({}));
    assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "node_timeout"), "{ran:?}");
    assert_eq!(server.asked().last().unwrap().body, "null");
}

#[test]
fn secrets_go_to_the_service_and_nowhere_else() {
    const SECRET: &str = "hunter2-sekrit-xyz";
    let echo = json_answer(&json!({"you said": format!("Bearer {SECRET}")}));
    let refuses = answer(401, "text/plain", &format!("{SECRET} is no key"));
    let server = Server::start(Script::from([("/echo", vec![echo]), ("/refuses", vec![refuses])]));
    let flows = Flows::new();
    let with = |path: &str| {
        let from = "{ Authorization: { env: MY_TOKEN, prefix: 'Bearer ' } }";
        format!("url: {}, headers_from: {from}, into: r", server.url(path))
    };
    let (get, post) = (with("/echo"), format!("method: POST, {}", with("/refuses")));
    let mut command = flows.home.command(&["run", "start", &flows.workflow(&[(&get, ""), (&post, "")]), "--json"]);
    command.env("MY_TOKEN", SECRET);
    let ran = Running::start(command).end();
    assert_eq!((ran.code, ran.error()["cause"].as_str()), (Some(1), Some("[Authorization] is no key")), "{ran:?}");
    assert!(server.asked().iter().all(|asked| asked.headers["authorization"] == format!("Bearer {SECRET}")));
    let export = flows.home.ok(&["run", "export", &ran.thread()]).stdout;
    assert!(
        export.contains("Bearer [Authorization]") && !export.contains(SECRET) && !format!("{ran:?}").contains(SECRET)
    );
    let database = fs::read(flows.home.path().join("tidegate.db")).unwrap();
    assert!(!database.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
}

#[test]
fn a_replay_asks_nobody() {
    let server = Server::start(Script::from([("/a", vec![json_answer(&json!(1)), json_answer(&json!(2))])]));
    let flows = Flows::new();
    let (get, post) =
        (format!("url: {}, into: r", server.url("/a")), format!("method: POST, url: {}, into: s", server.url("/a")));
    let thread = flows.start(&[(&get, ""), (&post, "")], &json!({})).thread();
    let export = flows.file("export.json", &flows.home.ok(&["run", "export", &thread]).stdout);
    let ran = Home::bare().run(&["run", "replay", export.to_str().unwrap(), "--json"]);
    assert_eq!((ran.code, &ran.json()["replayed"]), (Some(0), &json!(true)), "{ran:?}");
    assert_eq!(server.lines(), ["GET /a", "POST /a"]);
}

/// Answers `{"tls": true}` to everybody, on a port that it writes to `port`.
const TLS_SERVER: &str = "
import http.server, os, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', '13')
        self.end_headers()
        self.wfile.write(b'{\"tls\": true}')

server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
open('port.new', 'w').write(str(server.server_port))
os.rename('port.new', 'port')
server.serve_forever()
";

#[test]
fn tls_is_spoken_with_whom_the_system_trusts() {
    let flows = Flows::new();
    let folder = flows.home.beside("");
    let mut make = Command::new("openssl");
    make.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2",
    ]);
    make.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    let made = make.args(["-addext", "basicConstraints=critical,CA:FALSE"]).current_dir(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut python = Command::new("python3");
    python.args(["-c", TLS_SERVER]).current_dir(&folder);
    let _server = Running::start(python);
    let port = flows.home.until("the server listens", || fs::read_to_string(folder.join("port")).ok());
    let start = |trusted: bool| {
        let workflow = flows.workflow(&[(&format!("url: 'https://localhost:{port}/', into: r"), "")]);
        let mut command = flows.home.command(&["run", "start", &workflow, "--json"]);
        if trusted {
            command.env("SSL_CERT_FILE", folder.join("cert.pem"));
        }
        Running::start(command).end()
    };
    let trusted = start(true);
    assert_eq!((trusted.code, &trusted.json()["values"]["r"]["body"]), (Some(0), &json!({"tls": true})), "{trusted:?}");
    let unknown = start(false);
    assert_eq!((unknown.code, unknown.error_code().as_str()), (Some(1), "http_unreachable"), "{unknown:?}");
    assert!(unknown.error()["cause"].as_str().unwrap().contains("certificate"), "{unknown:?}");
}
