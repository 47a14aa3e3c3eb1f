//! What the end-to-end tests share: a home of its own for each test, the real binary, clients that never stop asking. Nothing survives
//! a test: every process that has its folder in its environment or its arguments is killed at the end, panic or not.

#![allow(dead_code, unused_imports, reason = "every test binary uses a part of it")]

pub mod crash;
pub mod disk;
pub mod load;
pub mod process;
#[path = "../support/scratch.rs"]
mod scratch;
pub mod web;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tidegate::adapters::uv::UvEnvs;
use tidegate::ports::{EnvBackend, EnvRequest, Quiet};

pub use crash::Chain;
pub use disk::Disk;
pub use load::Load;
pub use process::{Ran, Running};

/// Longest wait for anything on two laden cores.
pub const WITHIN: Duration = Duration::from_secs(180);

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The home whose environment and uv all tests share, made once by the adapter itself (it holds a lock meanwhile).
pub fn shared_home() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let home = root().join("target/tidegate-test-env");
        let project = root().join("examples/iris");
        let request = EnvRequest { project, requirements: "requirements.lock".into(), python: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(UvEnvs::new(&home).ensure(&request, &Quiet)).expect("the shared Python environment");
        home
    })
}

/// The interpreter of the shared environment.
pub fn shared_python() -> PathBuf {
    let envs = fs::read_dir(shared_home().join("envs")).unwrap().flatten();
    envs.map(|env| env.path().join("bin/python")).find(|python| python.exists()).unwrap()
}

/// A home for one test, with a model store, a runtime folder and a public port of its own.
pub struct Home {
    dir: tempfile::TempDir,
    home: PathBuf,
}

impl Home {
    /// A home that finds the shared environment.
    pub fn new() -> Self {
        let home = Self::bare();
        home.link_shared();
        home
    }

    /// Lets a bare home find the shared environment.
    pub fn link_shared(&self) {
        for part in ["envs", "tools"] {
            std::os::unix::fs::symlink(shared_home().join(part), self.path().join(part)).unwrap();
        }
    }

    /// A home without anything.
    pub fn bare() -> Self {
        // BentoML refuses to read hidden files, and a temporary folder's usual name begins with a dot.
        let dir = tempfile::Builder::new().prefix("tidegate-e2e-").tempdir().unwrap();
        let home = dir.path().join("home");
        for part in ["home", "run", "bentoml"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        Self { dir, home }
    }

    /// `TIDEGATE_HOME`.
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// A path beside the home, gone with it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of `tests/data/projects/<name>`, beside the home.
    pub fn project(&self, name: &str) -> Project {
        let mut number = 0;
        let path = loop {
            let path = self.beside(&format!("{name}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(_) => number += 1,
            }
        };
        for entry in fs::read_dir(root().join("tests/data/projects").join(name)).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
            }
        }
        Project { path }
    }

    /// The `hello` project, saying `version`.
    pub fn hello(&self, version: &str) -> Project {
        let says = format!("version: {version} }}");
        self.project("hello").change("service.py", "VERSION = \"one\"", &format!("VERSION = \"{version}\"")).change(
            "tidegate.yaml",
            "version: one }",
            &says,
        )
    }

    /// `tidegate` with this home; not started yet.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .args(args)
            .env("TIDEGATE_HOME", self.path())
            .env("TIDEGATE_PUBLIC_ADDR", "127.0.0.1:0")
            .env("BENTOML_HOME", self.beside("bentoml"))
            .env("XDG_RUNTIME_DIR", self.beside("run"))
            .current_dir(self.dir.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Running::start(self.command(args)).end()
    }

    /// Runs a command that must end well.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "tidegate {}: {ran:?}\n{}", args.join(" "), self.logs());
        ran
    }

    /// Starts a command.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// What a command prints with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        self.ok(&[args, &["--json"]].concat()).json()
    }

    /// Releases a project; returns the contract.
    pub fn deploy(&self, project: &Project) -> Value {
        self.json(&["deploy", project.arg(), "--yes"])
    }

    /// The thread that a command advances.
    pub fn thread_of(&self, running: &Running) -> String {
        self.until("the command has its thread", || {
            let runs = self.json(&["runs"]);
            let own = runs.as_array().unwrap().iter().find(|run| run["owner"]["pid"] == running.pid())?;
            Some(own["thread"].as_str().unwrap().to_owned())
        })
    }

    /// Events of a model's newest thread or of a thread; empty where there is none yet.
    pub fn events(&self, thread: &str) -> Vec<Value> {
        let ran = self.run(&["run", "events", thread, "--json"]);
        if ran.code == Some(0) { ran.json().as_array().cloned().unwrap() } else { Vec::new() }
    }

    /// Waits for an event; `fits` gets its kind and its content.
    pub fn event(&self, thread: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.until(what, || self.events(thread).into_iter().map(|row| row["event"].clone()).find(&fits))
    }

    /// Waits until an effect is intended.
    pub fn intended(&self, thread: &str, effect: &str) {
        let what = format!("{effect} is intended");
        self.event(thread, &what, |e| e["type"] == "effect_intended" && e["effect"] == effect);
    }

    /// Waits until a node has started.
    pub fn started(&self, thread: &str, node: &str) {
        self.event(thread, &format!("{node} has started"), |e| e["type"] == "node_started" && e["node"] == node);
    }

    /// Looks until there is something, bounded.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + WITHIN;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "in vain: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A model's releases, newest first; none before the first one.
    pub fn history(&self, model: &str) -> Vec<Value> {
        let ran = self.run(&["history", model, "--json"]);
        if ran.code != Some(0) {
            assert_eq!(ran.error_code(), "model_unknown", "{ran:?}\n{}", self.logs());
            return Vec::new();
        }
        ran.json().as_array().cloned().unwrap()
    }

    /// How the host daemon fares; null when none runs.
    pub fn host(&self) -> Value {
        let status = self.json(&["host", "status"]);
        if status["running"] == true { status } else { Value::Null }
    }

    /// Tokens of the slots that are there.
    pub fn slots(&self) -> Vec<String> {
        let host = self.host();
        let slots = host["slots"].as_array().cloned().unwrap_or_default();
        slots.iter().map(|slot| slot["token"].as_str().unwrap().to_owned()).collect()
    }

    /// How many workers of BentoML's answer in all slots.
    pub fn workers(&self) -> usize {
        let is_worker = |pid: &u32| process::command_line(*pid).contains("_bentoml_impl.worker.service");
        self.processes().into_iter().filter(is_worker).count()
    }

    /// Names in a folder of the home; empty where it is not there.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path().join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Folders of builds.
    pub fn builds(&self) -> Vec<String> {
        self.names("builds").into_iter().filter(|name| !name.ends_with(".lock")).collect()
    }

    /// Folders of releases, as `name/version`.
    pub fn releases(&self) -> Vec<String> {
        let models = self.names("releases").into_iter().filter(|name| !name.ends_with(".lock"));
        let folder = |path: &String| self.path().join("releases").join(path).is_dir();
        let versions = models.flat_map(|model| {
            let versions = self.names(&format!("releases/{model}"));
            versions.into_iter().map(move |version| format!("{model}/{version}"))
        });
        versions.filter(folder).collect()
    }

    /// Logs of everything that runs here, for a failed assertion.
    pub fn logs(&self) -> String {
        let mut files = vec![self.path().join("host/host.log"), self.path().join("runner.log")];
        let slots = fs::read_dir(self.path().join("slots")).into_iter().flatten().flatten();
        files
            .extend(slots.flat_map(|slot| fs::read_dir(slot.path()).into_iter().flatten().flatten().map(|f| f.path())));
        let mut text = String::new();
        for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "log")) {
            let log = fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("(status=200")).collect();
            text += &format!("--- {}\n{}\n", file.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        text
    }

    /// Processes of this home: keeper, daemon, slots, builds, commands, and what they started.
    pub fn processes(&self) -> Vec<u32> {
        process::of_folder(self.dir.path())
    }

    /// Nothing serves, nothing runs but the host daemon and its keeper, no slot has a folder.
    pub fn assert_clean(&self) {
        assert_eq!(self.slots(), Vec::<String>::new());
        assert_eq!(self.names("slots"), Vec::<String>::new());
        self.assert_only(&[]);
    }

    /// Of the processes of this home only the host daemon, its keeper and those of `slots` are left.
    pub fn assert_only(&self, slots: &[&str]) {
        let foreign = || -> Vec<String> {
            let known = |pid: &u32| {
                let line = process::command_line(*pid);
                let host = ["host-keeper", "host-daemon"].iter().any(|name| line.contains(name));
                let of_slot = slots.iter().any(|token| process::environment(*pid).contains(*token));
                host || of_slot || line.is_empty()
            };
            self.processes().into_iter().filter(|pid| !known(pid)).map(process::command_line).collect()
        };
        // A process that was just killed may take a moment to be gone.
        let end = Instant::now() + Duration::from_secs(10);
        while !foreign().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(foreign(), Vec::<String>::new(), "orphans\n{}", self.logs());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        scratch::remove_scratch(&self.home);
    }
}

/// A project that a test may change.
pub struct Project {
    pub path: PathBuf,
}

impl Project {
    /// Its folder as an argument.
    pub fn arg(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// With `from` replaced by `to` in a file; `from` must be there.
    pub fn change(self, file: &str, from: &str, to: &str) -> Self {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        fs::write(&path, text.replace(from, to)).unwrap();
        self
    }

    /// With a line more in its release file.
    pub fn with(self, line: &str) -> Self {
        let path = self.path.join("tidegate.yaml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{line}\n")).unwrap();
        self
    }

    /// Whose service fails every call once the file `flag` is there.
    pub fn worn_out_by(self, flag: &Path) -> Self {
        let flag = flag.to_str().unwrap();
        let fail =
            format!("if os.path.exists(\"{flag}\"):\n            raise RuntimeError(\"worn out\")\n        return {{");
        self.change("service.py", "return {", &fail).change(
            "service.py",
            "import bentoml\n",
            "import os\n\nimport bentoml\n",
        )
    }

    /// Whose service takes so many seconds more to start.
    pub fn starts_in(self, seconds: u32) -> Self {
        let init = format!(
            "    def __init__(self) -> None:\n        import time\n\n        time.sleep({seconds})\n\n    @bentoml.api\n"
        );
        self.change("service.py", "    @bentoml.api\n", &init)
    }

    /// Whose service takes so many seconds for each call.
    pub fn answers_in(self, seconds: u32) -> Self {
        self.change(
            "service.py",
            "        return {",
            &format!("        import time\n\n        time.sleep({seconds})\n        return {{"),
        )
    }

    /// Released without asking anybody.
    pub fn unasked(self) -> Self {
        self.with("approval: none")
    }

    /// Of another model.
    pub fn model(self, name: &str) -> Self {
        self.change("tidegate.yaml", "model: hello", &format!("model: {name}"))
    }

    /// Watched for so long only.
    pub fn bake(self, time: &str) -> Self {
        self.change("tidegate.yaml", "bake: 1s", &format!("bake: {time}"))
    }
}

/// The answer of the `hello` service at a release's URL.
pub fn greet(output: &Value) -> Value {
    let url = output["endpoint_url"].as_str().unwrap();
    let (status, body) = web::post(&format!("{url}/greet"), &json!({"name": "tide"})).unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The version that answers.
pub fn version(output: &Value) -> String {
    greet(output)["version"].as_str().unwrap().to_owned()
}
