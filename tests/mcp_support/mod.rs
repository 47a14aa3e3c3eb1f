//! A client of MCP for tests: over standard input and output, over HTTP with a session, and over HTTP as of 2026-07-28, without one. What a
//! tool answers is held against the schema that it was listed with.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// Longest wait for an answer on two laden cores.
const WITHIN: Duration = Duration::from_secs(120);
/// The last version with sessions, and the first without.
const WITH_SESSION: &str = "2025-11-25";
const WITHOUT_SESSION: &str = "2026-07-28";

enum Way {
    Stdio { child: Child, stdin: Option<ChildStdin>, lines: Receiver<String> },
    Http { url: String, session: Option<String>, http: reqwest::Client, runtime: tokio::runtime::Runtime },
}

/// A client that has introduced itself.
pub struct Client {
    way: Way,
    capabilities: Value,
    outputs: BTreeMap<String, Value>,
    last_id: u64,
    /// The answer to `initialize` or `server/discover`.
    pub server: Value,
    /// Messages of the progress that was told.
    pub progress: Vec<String>,
    /// What a person at the client was asked.
    pub asked: Vec<String>,
    /// What they say.
    pub says: Value,
}

/// A person who agrees, and one who does not.
pub fn yes() -> Value {
    json!({"action": "accept", "content": {"confirm": true}})
}

pub fn no() -> Value {
    json!({"action": "decline"})
}

impl Client {
    /// Starts `tidegate mcp`.
    pub fn stdio(mut command: Command, capabilities: Value) -> Self {
        command.arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (told, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        let stdin = child.stdin.take();
        Self::new(Way::Stdio { child, stdin, lines }, capabilities, WITH_SESSION)
    }

    /// Speaks to a server, in a session or (`modern`) without one.
    pub fn http(url: &str, modern: bool, capabilities: Value) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let way = Way::Http { url: format!("{url}/mcp"), session: None, http: reqwest::Client::new(), runtime };
        Self::new(way, capabilities, if modern { WITHOUT_SESSION } else { WITH_SESSION })
    }

    fn new(way: Way, capabilities: Value, version: &str) -> Self {
        let mut client = Self {
            way,
            capabilities: capabilities.clone(),
            outputs: BTreeMap::new(),
            last_id: 0,
            server: json!({"protocolVersion": version}),
            progress: Vec::new(),
            asked: Vec::new(),
            says: Value::Null,
        };
        if version == WITHOUT_SESSION {
            let found = client.ok("server/discover", json!({}));
            client.server = found;
            client.server["protocolVersion"] = json!(version);
        } else {
            let about = json!({"name": "test", "version": "1"});
            let hello = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": about});
            client.server = client.ok("initialize", hello);
            assert_eq!(client.server["protocolVersion"], version);
            client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        }
        let tools = client.ok("tools/list", json!({}))["tools"].clone();
        for tool in tools.as_array().unwrap() {
            client.outputs.insert(tool["name"].as_str().unwrap().to_owned(), tool["outputSchema"].clone());
        }
        client
    }

    fn is_modern(&self) -> bool {
        self.server["protocolVersion"] == WITHOUT_SESSION
    }

    /// The answer to a request, an error or not.
    pub fn request(&mut self, method: &str, mut params: Value) -> Value {
        self.last_id += 1;
        if self.is_modern() {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(WITHOUT_SESSION);
            params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        }
        let message = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        let mut pending = self.send(&message);
        loop {
            let told = self.next(&mut pending);
            match (told["method"].as_str(), told.get("id")) {
                (Some("notifications/progress"), _) => {
                    self.progress.push(told["params"]["message"].as_str().unwrap().to_owned());
                }
                (Some("elicitation/create"), Some(id)) => {
                    self.asked.push(told["params"]["message"].as_str().unwrap().to_owned());
                    let answer = json!({"jsonrpc": "2.0", "id": id, "result": self.says});
                    self.send(&answer);
                }
                (None, Some(id)) if *id == json!(self.last_id) => return told,
                _ => {}
            }
        }
    }

    /// The result of a request that must go well.
    pub fn ok(&mut self, method: &str, params: Value) -> Value {
        let answer = self.request(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The code of a request's protocol error.
    pub fn error(&mut self, method: &str, params: Value) -> i64 {
        let answer = self.request(method, params);
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{method} went well: {answer}"))
    }

    /// What calling a tool comes to. Without a session, what the server asks for is answered by calling again.
    pub fn call(&mut self, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments, "_meta": {"progressToken": "p"}});
        let result = self.ok("tools/call", params.clone());
        if result["resultType"] != "input_required" {
            return result;
        }
        let asks = &result["inputRequests"]["confirm"];
        assert_eq!(asks["method"], "elicitation/create");
        self.asked.push(asks["params"]["message"].as_str().unwrap().to_owned());
        let mut again = params;
        again["inputResponses"] = json!({"confirm": self.says});
        again["requestState"] = result["requestState"].clone();
        self.ok("tools/call", again)
    }

    /// What a tool gives, held against its schema.
    #[track_caller]
    pub fn tool(&mut self, name: &str, arguments: Value) -> Value {
        let result = self.call(name, arguments);
        assert_eq!(result["isError"], false, "{name}: {result}");
        self.fits(name, &result)
    }

    /// The structured content of a result.
    #[track_caller]
    pub fn fits(&self, name: &str, result: &Value) -> Value {
        let content = result["structuredContent"].clone();
        let schema = jsonschema::validator_for(&self.outputs[name]).unwrap();
        let wrong: Vec<String> = schema.iter_errors(&content).map(|e| e.to_string()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}\n{content}");
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, content, "the text says the same");
        content
    }

    /// The error of a tool that refuses.
    #[track_caller]
    pub fn refused(&mut self, name: &str, arguments: Value) -> Value {
        let result = self.call(name, arguments);
        assert_eq!(result["isError"], true, "{name}: {result}");
        assert!(result.get("structuredContent").is_none(), "it would have to fit the schema");
        let document: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert!(document["error"]["message"].is_string(), "{document}");
        document["error"].clone()
    }

    /// The JSON of a resource.
    pub fn read(&mut self, uri: &str) -> Value {
        let read = self.ok("resources/read", json!({"uri": uri}));
        let content = &read["contents"][0];
        assert_eq!((&content["uri"], &content["mimeType"]), (&json!(uri), &json!("application/json")));
        serde_json::from_str(content["text"].as_str().unwrap()).unwrap()
    }

    /// Opens the stream on which a server speaks in a session.
    pub fn listen(&self) -> reqwest::Response {
        let Way::Http { url, session: Some(session), http, runtime } = &self.way else { panic!("no session") };
        let stream = http.get(url).header("accept", "text/event-stream").header("mcp-session-id", session);
        let response = runtime.block_on(stream.send()).unwrap();
        assert_eq!(response.status(), 200);
        response
    }

    /// What is left of a stream, to its end.
    pub fn rest(&self, stream: reqwest::Response) -> String {
        let Way::Http { runtime, .. } = &self.way else { panic!("no stream") };
        runtime.block_on(stream.text()).unwrap()
    }

    /// Kills the process of a client over standard input and output where it stands.
    pub fn kill(mut self) {
        let Way::Stdio { child, .. } = &mut self.way else { panic!("no process") };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Closes its end, and waits until the process has gone.
    pub fn close(mut self) -> Option<i32> {
        let Way::Stdio { child, stdin, .. } = &mut self.way else { panic!("no process") };
        drop(stdin.take());
        child.wait().unwrap().code()
    }

    fn send(&mut self, message: &Value) -> Option<Pending> {
        let modern = self.is_modern();
        match &mut self.way {
            Way::Stdio { stdin, .. } => {
                let stdin = stdin.as_mut().unwrap();
                writeln!(stdin, "{message}").unwrap();
                stdin.flush().unwrap();
                None
            }
            Way::Http { url, session, http, runtime } => {
                let mut request =
                    http.post(&*url).header("accept", "application/json, text/event-stream").json(message);
                if let Some(session) = session {
                    request = request.header("mcp-session-id", &*session).header("mcp-protocol-version", WITH_SESSION);
                }
                if modern {
                    let params = &message["params"];
                    let name = ["name", "uri", "taskId"].into_iter().find_map(|key| params[key].as_str());
                    request = request.header("mcp-protocol-version", WITHOUT_SESSION);
                    request = request.header("mcp-method", message["method"].as_str().unwrap());
                    request = name.into_iter().fold(request, |request, name| request.header("mcp-name", name));
                }
                let response = runtime.block_on(request.send()).unwrap();
                if let Some(given) = response.headers().get("mcp-session-id") {
                    *session = Some(given.to_str().unwrap().to_owned());
                }
                Some(Pending { response, text: String::new() })
            }
        }
    }

    fn next(&mut self, pending: &mut Option<Pending>) -> Value {
        match (&self.way, pending) {
            (Way::Stdio { lines, .. }, _) => {
                let line = lines.recv_timeout(WITHIN).expect("a message");
                serde_json::from_str(&line).unwrap_or_else(|_| panic!("only messages are on stdout, not: {line}"))
            }
            (Way::Http { runtime, .. }, Some(pending)) => {
                runtime.block_on(async { tokio::time::timeout(WITHIN, pending.next()).await }).expect("a message")
            }
            (Way::Http { .. }, None) => unreachable!(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Way::Stdio { child, .. } = &mut self.way {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An answer over HTTP that is being read.
struct Pending {
    response: reqwest::Response,
    text: String,
}

impl Pending {
    async fn next(&mut self) -> Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data =
                    event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim).collect::<String>();
                let rest = rest.to_owned();
                self.text = rest;
                if data.is_empty() {
                    continue;
                }
                return serde_json::from_str(&data).unwrap();
            }
            match self.response.chunk().await.unwrap() {
                Some(chunk) => self.text.push_str(&String::from_utf8_lossy(&chunk).replace("\r\n", "\n")),
                None => {
                    let text = std::mem::take(&mut self.text);
                    return serde_json::from_str(&text)
                        .unwrap_or_else(|_| panic!("{}: {text:?}", self.response.status()));
                }
            }
        }
    }
}
