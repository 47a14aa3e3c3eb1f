//! `langgraph dev` with the trivial graph.
//!
//! Its queue waits half a second before it looks for a run where it found none (`Runs.next`), so one client alone gets one or two runs a
//! second. *Patched* means that this wait is a millisecond; what is compared is the patched one.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// One that runs.
pub struct Rival {
    child: Child,
    pub url: String,
    _dir: tempfile::TempDir,
}

const GRAPH: &str = "\
from typing import TypedDict
from langgraph.graph import StateGraph, START, END

class State(TypedDict, total=False):
    x: int

def inc(state: State):
    return {\"x\": state.get(\"x\", 0) + 1}

builder = StateGraph(State)
builder.add_node(\"inc\", inc)
builder.add_edge(START, \"inc\")
builder.add_edge(\"inc\", END)
trivial = builder.compile()
";

/// Python reads this before anything else.
const PATCH: &str = "\
import asyncio
_sleep = asyncio.sleep
async def sleep(delay, result=None):
    return await _sleep(0.001 if delay == 0.5 else delay, result)
asyncio.sleep = sleep
";

/// Starts one; `None`: it cannot be had here.
pub fn start(patched: bool) -> Option<Rival> {
    use std::os::unix::process::CommandExt;
    let bin = installed()?;
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
    write("graphs.py", GRAPH);
    write("langgraph.json", r#"{"dependencies": ["."], "graphs": {"trivial": "./graphs.py:trivial"}}"#);
    if patched {
        write("sitecustomize.py", PATCH);
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let mut command = Command::new(bin.join("langgraph"));
    command.args(["dev", "--no-browser", "--no-reload", "--server-log-level", "error", "--port", &port.to_string()]);
    command.env("PYTHONPATH", dir.path()).env("LANGSMITH_TRACING", "false").env("LANGGRAPH_CLI_NO_ANALYTICS", "1");
    let log = std::fs::File::create(dir.path().join("log")).expect("a log");
    let err = log.try_clone().expect("a log");
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log).stderr(err).process_group(0);
    let mut child = command.spawn().expect("langgraph dev");
    let (began, url) = (Instant::now(), format!("http://127.0.0.1:{port}"));
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = child.try_wait().expect("a state");
        if ended.is_some() || began.elapsed() > Duration::from_secs(120) {
            let said = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            println!("langgraph dev does not start, and is left out: {said}");
            let _ = killpg(group(&child), Signal::SIGKILL);
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Some(Rival { child, url, _dir: dir })
}

fn group(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id"))
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = killpg(group(&self.child), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Where its programs are; made the first time.
fn installed() -> Option<PathBuf> {
    let env = Path::new(env!("CARGO_TARGET_TMPDIR")).join("langgraph");
    let bin = env.join("bin");
    if !bin.join("langgraph").exists() {
        let ran = |command: &mut Command| command.stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        let made = ran(Command::new("python3").args(["-m", "venv"]).arg(&env))
            && ran(Command::new(bin.join("pip")).args(["install", "-q", "langgraph-cli[inmem]==0.4.40"]));
        if !made {
            println!("langgraph dev cannot be installed, and is left out");
            return None;
        }
    }
    Some(bin)
}
