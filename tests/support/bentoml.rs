//! What the tests with a real BentoML share: one Python environment, copies of the small projects, slots that end with their test.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::adapters::bentoml::BentomlPackager;
use tidegate::adapters::uv::UvEnvs;
use tidegate::ports::{
    EnvBackend, EnvRequest, PackageRequest, PackagedModel, Packager, PythonEnv, Quiet, ServeCommand,
};

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The home of the environment that all tests share. The uv adapter's own lock lets one test make it and the others wait.
pub fn shared_home() -> PathBuf {
    root().join("target/tidegate-test-env")
}

/// The shared environment: iris's requirements, which are everybody's.
pub async fn shared_env() -> PythonEnv {
    let request =
        EnvRequest { project: root().join("examples/iris"), requirements: "requirements.lock".into(), python: None };
    UvEnvs::new(shared_home()).ensure(&request, &Quiet).await.expect("the shared Python environment")
}

/// A folder for one test. Not `tempfile::tempdir()`: its names begin with a dot, and BentoML refuses to read hidden files.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("tidegate-test-").tempdir().unwrap()
}

/// A home of its own for one test, with the shared home's uv.
pub struct Home {
    pub dir: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self::in_folder(folder())
    }

    /// One whose path has a part that begins with a dot.
    pub fn hidden() -> Self {
        Self::in_folder(tempfile::Builder::new().prefix(".tidegate-test-").tempdir().unwrap())
    }

    fn in_folder(dir: tempfile::TempDir) -> Self {
        // Also before the shared environment is made: the folder may fill later.
        fs::create_dir_all(shared_home().join("tools")).unwrap();
        std::os::unix::fs::symlink(shared_home().join("tools"), dir.path().join("tools")).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A packager whose model store is the test's own.
    pub fn packager(&self) -> BentomlPackager {
        BentomlPackager::new(self.path()).with_model_home(self.path().join("user-bentoml"))
    }
}

/// A copy of a folder, so that a test may change it.
pub fn copy_of(from: &Path) -> tempfile::TempDir {
    let copy = folder();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

/// A copy of `tests/data/projects/<name>`.
pub fn project(name: &str) -> tempfile::TempDir {
    copy_of(&root().join("tests/data/projects").join(name))
}

/// A copy of `hello` that says `version`.
pub fn hello(version: &str) -> tempfile::TempDir {
    let project = project("hello");
    let service = project.path().join("service.py");
    let text = fs::read_to_string(&service).unwrap();
    fs::write(&service, text.replace("VERSION = \"one\"", &format!("VERSION = \"{version}\""))).unwrap();
    project
}

/// A request to build `project`.
pub async fn request(token: &str, project: &Path) -> PackageRequest {
    PackageRequest {
        token: token.to_owned(),
        project: project.to_owned(),
        env: shared_env().await,
        train: None,
        needs_models: vec![],
        service: None,
        version: None,
        keep_out: vec![],
        expect_name: None,
    }
}

/// Builds `project` in `home`.
pub async fn package(home: &Home, token: &str, project: &Path) -> PackagedModel {
    home.packager().package(&request(token, project).await, &Quiet).await.expect("a package")
}

/// A port that is free now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A serving process, in a group of its own as the host daemon starts it; ended with the test.
pub struct Serving {
    pub child: Child,
    pub port: u16,
    pub log: PathBuf,
}

impl Serving {
    /// Starts `model` in `slot_dir`.
    pub fn start(packager: &BentomlPackager, model: &PackagedModel, slot_dir: &Path) -> Self {
        Self::run(&packager.serve_command(model, slot_dir, None), slot_dir)
    }

    /// Starts any serve command.
    pub fn run(command: &ServeCommand, slot_dir: &Path) -> Self {
        fs::create_dir_all(slot_dir).unwrap();
        let port = free_port();
        let argv: Vec<String> = command.argv.iter().map(|part| part.replace("{port}", &port.to_string())).collect();
        let log = slot_dir.with_extension("log");
        let out = fs::File::create(&log).unwrap();
        let minimal: BTreeMap<String, String> =
            ["PATH", "HOME", "LANG"].iter().filter_map(|n| Some(((*n).to_owned(), std::env::var(n).ok()?))).collect();
        let child = Command::new(&argv[0])
            .args(&argv[1..])
            .current_dir(&command.cwd)
            .env_clear()
            .envs(minimal)
            .envs(&command.env)
            .env("TMPDIR", slot_dir)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, port, log }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The status of a GET; `None` when nobody answers.
    pub async fn get(&self, path: &str) -> Option<u16> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).no_proxy().build().unwrap();
        client.get(self.url(path)).send().await.ok().map(|answer| answer.status().as_u16())
    }

    /// The body of a GET.
    pub async fn text(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(self.url(path)).send().await.unwrap().text().await.unwrap()
    }

    /// The JSON answer to a POST.
    pub async fn post(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(self.url(path)).json(&body).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until `path` answers 200.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        while self.get("/readyz").await != Some(200) {
            let gone = self.child.try_wait().unwrap();
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(!late && gone.is_none(), "not ready ({gone:?}):\n{}", self.log_lines().join("\n"));
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub fn log_lines(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// SIGKILL to the arbiter alone, as an out-of-memory killer would.
    pub fn kill_arbiter(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Children of a process, now.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = |entry: &str| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{entry}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| parent(name) == Some(pid)).filter_map(|name| name.parse().ok()).collect()
}

/// Whether a process is there and not a zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// Waits up to five seconds for a process to end.
pub async fn gone(pid: u32) -> bool {
    for _ in 0..250 {
        if !alive(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}
