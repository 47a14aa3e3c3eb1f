//! Processes: started, signalled, killed, found again.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::WITHIN;

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// What it printed, as JSON and nothing else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The error document's error; a document must be there.
    #[track_caller]
    pub fn error(&self) -> Value {
        let document = self.json();
        assert!(document["error"]["code"].is_string(), "no error document: {self:?}");
        document["error"].clone()
    }

    /// The error's code.
    #[track_caller]
    pub fn error_code(&self) -> String {
        self.error()["code"].as_str().unwrap().to_owned()
    }

    /// The thread that it names.
    #[track_caller]
    pub fn thread(&self) -> String {
        self.json()["thread"].as_str().unwrap_or_else(|| panic!("no thread: {self:?}")).to_owned()
    }
}

/// A command that runs; killed when the test gives it up.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Gather,
    stderr: Gather,
    ended: Option<ExitStatus>,
}

struct Gather {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Gather {
    fn from(mut source: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = source.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// All of it. A grandchild that holds the pipe open must not hold the test.
    fn whole(&mut self) -> String {
        let end = Instant::now() + Duration::from_secs(5);
        while self.reader.as_ref().is_some_and(|r| !r.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.so_far()
    }
}

impl Running {
    /// Starts a command with its streams caught and no terminal.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = Gather::from(child.stdout.take().unwrap());
        let stderr = Gather::from(child.stderr.take().unwrap());
        Self { child, stdin, stdout, stderr, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGKILL, and its end.
    pub fn kill9(mut self) -> Ran {
        let _ = self.child.kill();
        self.take_end()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Writes to its standard input.
    pub fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for its end, bounded.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        drop(self.stdin.take());
        let end = Instant::now() + WITHIN;
        while self.runs() {
            assert!(Instant::now() < end, "it does not end:\n{}\n{}", self.stdout.so_far(), self.stderr.so_far());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.take_end()
    }

    fn take_end(&mut self) -> Ran {
        let status = self.ended.take().unwrap_or_else(|| self.child.wait().unwrap());
        self.ended = Some(status);
        Ran { code: status.code(), stdout: self.stdout.whole(), stderr: self.stderr.whole() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every process that has a folder in its arguments or its environment.
pub fn of_folder(dir: &Path) -> Vec<u32> {
    let needle = dir.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| command_line(*pid).contains(needle) || environment(*pid).contains(needle))
        .collect()
}

/// A process's arguments; empty when it is gone.
pub fn command_line(pid: u32) -> String {
    read(&format!("/proc/{pid}/cmdline"))
}

/// A process's environment; empty when it is gone.
pub fn environment(pid: u32) -> String {
    read(&format!("/proc/{pid}/environ"))
}

fn read(path: &str) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
