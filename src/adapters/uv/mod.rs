//! Python environments by uv: one per digest of locked requirements and interpreter, shared by builds and slots.
//!
//! Layout in Tidegate's home: `envs/<first 16 hex of the digest>/` with the marker [`MARKER`] written last, `envs/<16 hex>.lock`,
//! `locks/<hex>.lock` with the pinned form of requirements that were open, `tools/uv/` when uv is not on PATH.

mod commands;
mod failure;
mod guard;
mod requirements;
mod tool;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::files::{self, Lock, io_error};
use super::process::{CommandLine, Finished};
use crate::ports::{EnvBackend, EnvRequest, PortError, Progress, PythonEnv, Quiet};

pub(crate) use guard::GUARD_VARIABLE;
pub(crate) use tool::{callers_path, find_uv};

/// In an environment's folder once it is complete.
const MARKER: &str = ".tidegate-complete";

/// What the marker says, so that an environment can be found without starting Python.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    format: u32,
    digest: String,
    requirements_digest: String,
    python_version: String,
    python_request: Option<String>,
    /// What `python3` on PATH was: asking it for its version takes longer (a fifth of a second through a shim) than all the rest.
    interpreter: Option<String>,
}

/// The locked requirements of one request.
struct Locked {
    /// A file that `uv pip install -r` takes.
    file: PathBuf,
    /// Its text, normalised.
    text: String,
}

/// Makes environments with uv.
#[derive(Debug, Clone)]
pub struct UvEnvs {
    home: PathBuf,
    search_path: OsString,
}

impl UvEnvs {
    /// Environments live in `home/envs`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), search_path: tool::callers_path() }
    }

    /// Looks for uv and `python3` in these folders (as PATH names them) instead of the caller's PATH.
    #[must_use]
    pub fn with_search_path(mut self, search_path: impl Into<OsString>) -> Self {
        self.search_path = search_path.into();
        self
    }

    /// Runs one command with our PATH.
    async fn run(&self, mut command: CommandLine, progress: &dyn Progress) -> Result<Finished, PortError> {
        command.env.insert("PATH".to_owned(), self.search_path.to_string_lossy().into_owned());
        tool::run(command, progress).await
    }

    fn dir_of(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.home.join("envs").join(&hex[..hex.len().min(16)])
    }

    /// Where the pinned form of open requirements is kept, so that the second release installs what the first one did.
    fn compiled_lock(&self, source: &str, request: &EnvRequest) -> PathBuf {
        let key = requirements::hex(&format!("{}\n{source}", request.python.as_deref().unwrap_or("python3")));
        self.home.join("locks").join(format!("{key}.lock"))
    }

    /// The locked requirements of `request` as far as they are known without starting anything.
    fn known_lock(&self, request: &EnvRequest) -> Result<Option<Locked>, PortError> {
        let file = request.project.join(&request.requirements);
        let text = fs::read_to_string(&file).map_err(|error| missing_requirements(request, &error))?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name == "uv.lock" {
            return Err(PortError::new("requirements_unsupported", "uv.lock is not read as it is").hint(
                "write it as requirements: `uv export --frozen --no-emit-project --no-hashes -o requirements.lock`",
            ));
        }
        if !name.ends_with(".toml") {
            let normalised = requirements::normalise(&text);
            requirements::refuse_indirect(&normalised)?;
            if requirements::is_locked(&normalised) {
                return Ok(Some(Locked { file, text: normalised }));
            }
        }
        let compiled = self.compiled_lock(&text, request);
        Ok(fs::read_to_string(&compiled)
            .ok()
            .map(|text| Locked { file: compiled, text: requirements::normalise(&text) }))
    }

    /// The locked requirements of `request`; open ones are pinned now, once.
    async fn lock(&self, uv: &Path, request: &EnvRequest, progress: &dyn Progress) -> Result<Locked, PortError> {
        if let Some(locked) = self.known_lock(request)? {
            return Ok(locked);
        }
        let source = request.project.join(&request.requirements);
        let text = fs::read_to_string(&source).map_err(|error| missing_requirements(request, &error))?;
        let output = self.compiled_lock(&text, request);
        let _lock = Lock::take(&output.with_extension("making"), "these locked requirements", progress).await?;
        if let Some(locked) = self.known_lock(request)? {
            return Ok(locked);
        }
        progress.line(&format!(
            "pinning {} (keep the result in the project to make releases repeatable)",
            source.display()
        ));
        let beside = output.with_extension("tmp");
        // An output file that exists would be read as a preference.
        files::remove_all(&beside).map_err(|error| io_error("remove", &beside, &error))?;
        let wanted = request.python.as_deref().unwrap_or("python3");
        let ended =
            self.run(commands::compile(uv, wanted, &request.requirements, &beside, &request.project), progress).await?;
        if !ended.ok() {
            return Err(failure::explain(&format!("pin {}", request.requirements.display()), &ended));
        }
        let text = fs::read_to_string(&beside).map_err(|error| io_error("read", &beside, &error))?;
        files::write_atomically(&output, text.as_bytes()).map_err(|error| io_error("write", &output, &error))?;
        let _ = fs::remove_file(&beside);
        Ok(Locked { file: output, text: requirements::normalise(&text) })
    }

    /// The exact version of the wanted interpreter.
    async fn python_version(&self, uv: &Path, request: &EnvRequest) -> Result<String, PortError> {
        let wanted = request.python.as_deref();
        if wanted.is_none() && tool::on_path("python3", &self.search_path).is_none() {
            return Err(failure::python_missing());
        }
        let ask = || self.run(commands::python_version(uv, wanted, &request.project), &Quiet);
        let mut ended = ask().await?;
        if !ended.ok()
            && let Some(wanted) = wanted
        {
            let fetched = self.run(commands::python_install(uv, wanted, &request.project), &Quiet).await?;
            if !fetched.ok() {
                return Err(failure::explain(&format!("get Python {wanted}"), &fetched));
            }
            ended = ask().await?;
        }
        if !ended.ok() {
            return Err(failure::python_missing().because(ended.last_lines(6)));
        }
        // Warnings may come before the version, never after it.
        Ok(ended.last_lines(1))
    }

    /// Makes the environment from nothing. Its lock is held.
    async fn make(
        &self,
        uv: &Path,
        request: &EnvRequest,
        locked: &Locked,
        marker: &Marker,
        progress: &dyn Progress,
    ) -> Result<(), PortError> {
        let dir = self.dir_of(&marker.digest);
        files::remove_all(&dir).map_err(|error| io_error("remove", &dir, &error))?;
        let packages = locked.text.lines().filter(|line| !line.starts_with('-')).count();
        progress.line(&format!("making a Python {} environment with {packages} packages", marker.python_version));
        let wanted = request.python.as_deref().unwrap_or("python3");
        let made = self.run(commands::venv(uv, wanted, &dir, &request.project), &Quiet).await?;
        if !made.ok() {
            return Err(failure::explain("make a Python environment", &made));
        }
        let python = commands::python_of(&dir);
        let installed = self.run(commands::install(uv, &python, &locked.file, &request.project), progress).await?;
        if !installed.ok() {
            return Err(failure::explain(&format!("install {}", request.requirements.display()), &installed));
        }
        guard::install(&dir).map_err(|error| io_error("write into", &dir, &error))?;
        let path = dir.join(MARKER);
        files::write_json(&path, marker).map_err(|error| io_error("write", &path, &error))
    }
}

/// The environment in `dir` if it is complete and its interpreter still exists.
fn complete(dir: &Path) -> Option<(Marker, PythonEnv)> {
    let marker: Marker = files::read_json(&dir.join(MARKER)).ok()??;
    let python = commands::python_of(dir);
    // `exists` follows the link: an interpreter that was removed from the machine leaves a broken environment.
    let env = PythonEnv { dir: dir.to_owned(), python, digest: marker.digest.clone(), created: false };
    env.python.exists().then_some((marker, env))
}

fn missing_requirements(request: &EnvRequest, error: &std::io::Error) -> PortError {
    let file = request.project.join(&request.requirements);
    if error.kind() != std::io::ErrorKind::NotFound {
        return io_error("read", &file, error);
    }
    let source = ["requirements.txt", "pyproject.toml", "requirements.in"]
        .into_iter()
        .find(|name| request.project.join(name).exists())
        .unwrap_or("requirements.txt");
    PortError::new("requirements_missing", format!("there is no {}", file.display()))
        .because("a release installs exactly the packages that its lock names")
        .hint(format!("make it: `uv pip compile {source} -o {}`", request.requirements.display()))
}

#[async_trait]
impl EnvBackend for UvEnvs {
    async fn ensure(&self, request: &EnvRequest, progress: &dyn Progress) -> Result<PythonEnv, PortError> {
        // A missing or unusable file is said before anything is installed.
        if let Some(env) = self.find(request).await? {
            return Ok(env);
        }
        fs::create_dir_all(&self.home).map_err(|error| io_error("make", &self.home, &error))?;
        let uv = tool::ensure_uv(&self.home, &self.search_path, progress).await?;
        let locked = self.lock(&uv, request, progress).await?;
        let python_version = self.python_version(&uv, request).await?;
        let digest = requirements::env_digest(&locked.text, &python_version);
        let dir = self.dir_of(&digest);
        if let Some((_, env)) = complete(&dir) {
            return Ok(env);
        }
        let _lock = Lock::take(&dir.with_extension("lock"), "this Python environment", progress).await?;
        if let Some((_, env)) = complete(&dir) {
            return Ok(env);
        }
        let marker = Marker {
            format: 1,
            digest: digest.clone(),
            requirements_digest: requirements::hex(&locked.text),
            python_version,
            python_request: request.python.clone(),
            interpreter: tool::interpreter_stamp(&self.search_path),
        };
        self.make(&uv, request, &locked, &marker, progress).await?;
        Ok(PythonEnv { python: commands::python_of(&dir), dir, digest, created: true })
    }

    async fn find(&self, request: &EnvRequest) -> Result<Option<PythonEnv>, PortError> {
        let Some(locked) = self.known_lock(request)? else { return Ok(None) };
        let wanted = requirements::hex(&locked.text);
        let Ok(entries) = fs::read_dir(self.home.join("envs")) else { return Ok(None) };
        let mut found: Vec<_> = entries
            .flatten()
            .filter_map(|entry| complete(&entry.path()))
            .filter(|(marker, env)| {
                marker.requirements_digest == wanted
                    && serves(marker, request.python.as_deref(), &self.search_path)
                    && env.dir == self.dir_of(&marker.digest)
            })
            .collect();
        // Several when the machine's Python was upgraded in between: the newest is the one that `ensure` would give.
        found.sort_by_key(|(_, env)| fs::metadata(env.dir.join(MARKER)).and_then(|meta| meta.modified()).ok());
        Ok(found.pop().map(|(_, env)| env))
    }
}

/// Whether an environment is what a request for `python` would get.
fn serves(marker: &Marker, python: Option<&str>, search_path: &OsStr) -> bool {
    let same_version =
        |wanted: &str| marker.python_version == wanted || marker.python_version.starts_with(&format!("{wanted}."));
    match python {
        // A shim that leads elsewhere today is not noticed: the environment is then one version behind, complete all the same.
        None => marker.python_request.is_none() && marker.interpreter == tool::interpreter_stamp(search_path),
        Some(wanted) => marker.python_request.as_deref() == python || same_version(wanted),
    }
}
