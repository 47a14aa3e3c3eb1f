//! A real Chromium, spoken to by WebDriver: its own chromedriver on a port of its own, its own profile, ended with the test.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Longest wait for anything on a laden machine.
pub const WITHIN: Duration = Duration::from_secs(120);
/// Keys as WebDriver names them.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Where the server is.
    base: String,
    profile: tempfile::TempDir,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Browser {
    /// One that looks at a server.
    pub fn start(base: &str) -> Self {
        Self::with(base, true)
    }

    /// The same, with scripts or without.
    pub fn with(base: &str, scripts: bool) -> Self {
        let profile = tempfile::Builder::new().prefix("tidegate-browser-").tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut driver = command.spawn().expect("chromedriver, as scripts/test installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("chromedriver says its port").unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // It must not be stopped by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let http = reqwest::Client::builder().timeout(WITHIN).no_proxy().build().unwrap();
        let mut browser = Self { driver, port, session: String::new(), base: base.to_owned(), profile, http, runtime };
        let folder = format!("--user-data-dir={}", browser.profile.path().display());
        let mut options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run", folder,
        ]});
        if !scripts {
            options["prefs"] = json!({"profile.managed_default_content_settings.javascript": 2});
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options,
        }}});
        let session = browser.call("POST", "/session", Some(wanted)).unwrap_or_else(|e| panic!("no browser: {e}"));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.size(1440, 900);
        browser
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let told: Value = self.runtime.block_on(async { request.send().await.unwrap().json().await.unwrap() });
        let value = told["value"].clone();
        if value["error"].is_string() { Err(value) } else { Ok(value) }
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let told = self.call(method, &format!("{}{path}", self.session), body);
        told.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Goes to a page of the server.
    pub fn open(&self, path: &str) {
        self.ask("POST", "/url", Some(json!({"url": format!("{}{path}", self.base)})));
    }

    /// The path of the page that is shown.
    pub fn path(&self) -> String {
        let url = self.ask("GET", "/url", None);
        url.as_str().unwrap().trim_start_matches(&self.base).to_owned()
    }

    /// The width and the height of the page's view.
    pub fn size(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.ask("POST", "/goog/cdp/execute", Some(command));
    }

    /// The system likes dark pages.
    pub fn dark(&self) {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        let command = json!({"cmd": "Emulation.setEmulatedMedia", "params": media});
        self.ask("POST", "/goog/cdp/execute", Some(command));
    }

    /// What a script gives.
    pub fn eval(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", Some(json!({"script": script, "args": []})))
    }

    fn all(&self, css: &str) -> Vec<String> {
        let found = self.ask("POST", "/elements", Some(json!({"using": "css selector", "value": css})));
        let id = |element: &Value| element[ELEMENT].as_str().unwrap().to_owned();
        found.as_array().unwrap().iter().map(id).collect()
    }

    /// Whether something is there.
    pub fn has(&self, css: &str) -> bool {
        !self.all(css).is_empty()
    }

    /// The text of what is there first; empty where nothing is, or where it has just been put in anew.
    pub fn text(&self, css: &str) -> String {
        let Some(id) = self.all(css).into_iter().next() else { return String::new() };
        let told = self.call("GET", &format!("{}/element/{id}/text", self.session), None);
        told.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// A property of an element.
    pub fn property(&self, css: &str, name: &str) -> Value {
        let id = &self.all(css)[0];
        self.ask("GET", &format!("/element/{id}/property/{name}"), None)
    }

    /// Clicks at something, which must be there.
    pub fn click(&self, css: &str) {
        self.at(css, "click", json!({}));
    }

    /// Writes into something.
    pub fn write(&self, css: &str, text: &str) {
        self.at(css, "value", json!({"text": text}));
    }

    /// Does something with an element; once more where the page has just put it in anew.
    fn at(&self, css: &str, what: &str, body: Value) {
        self.until(&format!("{what} at {css}"), || {
            let id = self.all(css).into_iter().next()?;
            self.call("POST", &format!("{}/element/{id}/{what}", self.session), Some(body.clone())).ok()
        });
    }

    /// Presses and releases a key, wherever the focus is.
    pub fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": keys}]});
        self.ask("POST", "/actions", Some(actions));
    }

    /// Presses Tab until an element has the focus.
    pub fn tab_to(&self, id: &str) {
        for _ in 0..80 {
            self.press(TAB);
            if self.eval("return document.activeElement.id") == id {
                return;
            }
        }
        panic!("no Tab leads to #{id}");
    }

    /// Looks until there is something, bounded.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + WITHIN;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "in vain: {what}\nat {}\n{}", self.path(), self.text("body"));
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits for a text in an element.
    pub fn says(&self, css: &str, text: &str) -> String {
        self.until(&format!("{css} says {text}"), || Some(self.text(css)).filter(|told| told.contains(text)))
    }

    /// What went wrong in the page since the last time that this was asked.
    pub fn complaints(&self) -> Vec<String> {
        let told = self.ask("POST", "/se/log", Some(json!({"type": "browser"})));
        let lines = told.as_array().unwrap().iter();
        lines.map(|line| format!("{} {}", line["level"], line["message"])).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.call("DELETE", &self.session, None);
        }
        let _ = killpg(Pid::from_raw(self.driver.id().cast_signed()), Signal::SIGKILL);
        let _ = self.driver.wait();
        // The browser has its profile's folder among its arguments.
        let folder = self.profile.path().as_os_str().as_encoded_bytes().to_owned();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let left = processes_with(&folder);
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn processes_with(argument: &[u8]) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.windows(argument.len()).any(|part| part == argument) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

/// An answer to a plain request.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of a hidden field of a form.
    pub fn field(&self, name: &str) -> String {
        let (_, rest) =
            self.body.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }

    /// The cookie that it sets.
    pub fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_owned()
    }
}

/// A plain request, without following where it leads.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], form: Option<&[(&str, &str)]>) -> Answer {
    let client = reqwest::Client::builder().timeout(WITHIN).no_proxy().redirect(reqwest::redirect::Policy::none());
    let mut request = client.build().unwrap().request(method.parse().unwrap(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(form) = form {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, body: answer.text().await.unwrap() }
    })
}

/// A call of the API; its JSON.
pub fn api(method: &str, url: &str, body: Option<Value>) -> (u16, Value) {
    let client = reqwest::Client::builder().timeout(WITHIN).no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    })
}
