//! A real `tidegate serve` for a test: its own home, its own port, ended with the test.

#![allow(dead_code)]

pub mod made;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The workflow files that behave like the reference's graphs.
pub fn workflows() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/workflows")
}

/// A server that runs.
pub struct Serve {
    child: Option<Child>,
    pub home: std::sync::Arc<tempfile::TempDir>,
    pub url: String,
    http: reqwest::Client,
}

impl Serve {
    /// Starts one in a home of its own, with `tests/workflows`.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("tidegate-serve-").tempdir().unwrap();
        Self::start_in(std::sync::Arc::new(home), &workflows(), "127.0.0.1:0")
    }

    /// Starts one in a home that is there.
    pub fn start_in(home: std::sync::Arc<tempfile::TempDir>, workflows: &Path, listen: &str) -> Self {
        let mut command = tidegate(home.path());
        command.args(["--json", "serve", "--listen", listen, "--workflows"]).arg(workflows);
        Self::start_as(home, command)
    }

    /// Starts the one that a command is, in its home.
    pub fn start_as(home: std::sync::Arc<tempfile::TempDir>, mut command: Command) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(home.path().join("serve.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let log = || std::fs::read_to_string(home.path().join("serve.log")).unwrap();
        let url = told_url(&mut child).unwrap_or_else(|| panic!("the server did not start: {}", log()));
        Self { child: Some(child), home, url, http: reqwest::Client::new() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Kills it where it stands.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> i32 {
        let Some(mut child) = self.child.take() else { return 0 };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        child.wait().unwrap().code().unwrap_or(-1)
    }

    pub async fn request(&self, method: &str, path: &str, body: Option<Value>) -> reqwest::Response {
        let method: reqwest::Method = method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// The answer's JSON, which must be of status 200.
    pub async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let response = self.request(method, path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, Some(body)).await
    }

    /// A new thread's id.
    pub async fn thread(&self) -> String {
        self.post("/threads", json!({})).await["thread_id"].as_str().unwrap().to_owned()
    }

    /// Looks until `path` answers something that fits.
    pub async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let response = self.request("GET", path, None).await;
            let seen: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
            if fits(&seen) {
                return seen;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "GET {path} still says {seen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address that a server tells when it has started; `None`: it ended first.
pub fn told_url(child: &mut Child) -> Option<String> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = String::new();
    while serde_json::from_str::<Value>(&said).is_err() {
        said.push_str(&lines.next()?.unwrap());
    }
    let said: Value = serde_json::from_str(&said).unwrap();
    Some(said["url"].as_str().unwrap().to_owned())
}

/// The program, in a home, without what its user has set.
pub fn tidegate(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_remove("TIDEGATE_PUBLIC_ADDR").env_remove("TIDEGATE_CRASH_AT").arg("--home").arg(home);
    command
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub event: String,
    pub data: Value,
    pub id: Option<String>,
}

/// The events of a whole stream.
pub fn events(text: &str) -> Vec<Sent> {
    let mut all = Vec::new();
    for block in text.split("\r\n\r\n") {
        let mut sent = Sent { event: String::new(), data: Value::Null, id: None };
        for line in block.split("\r\n") {
            match line.split_once(": ") {
                Some(("event", event)) => sent.event = event.to_owned(),
                Some(("data", data)) => sent.data = serde_json::from_str(data).unwrap(),
                Some(("id", id)) => sent.id = Some(id.to_owned()),
                _ => {}
            }
        }
        if !sent.event.is_empty() {
            all.push(sent);
        }
    }
    all
}

/// A workflow `waits` whose first node waits for a file, and says by others that it has begun and ended. It outlives no test: it ends with its folder, too.
pub fn waiting(go: &Path) -> String {
    let (begun, ended) = (go.with_extension("begun"), go.with_extension("ended"));
    let (go, begun, ended) = (go.display(), begun.display(), ended.display());
    format!(
        "name: waits
channels:
  out: {{ type: any }}
  n:   {{ type: integer }}
nodes:
  wait:
    type: command
    with: {{ run: [sh, -c, 'touch {begun}; until [ -e {go} ] || [ ! -e {begun} ]; do sleep 0.05; done; touch {ended}; echo 1'], into: out, repeat: true }}
  after: {{ type: expr, set: {{ n: \"1\" }} }}
edges:
  - {{ from: START, to: wait }}
  - {{ from: wait, to: after }}
"
    )
}

/// Waits until a file is there.
pub async fn until_there(path: &Path) {
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "{} is not there", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
