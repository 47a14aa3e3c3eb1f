//! `doctor`: what is missing on this machine, and how to get it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::DoctorArgs;
use super::out::Out;
use super::{Exit, Failed};
use crate::app::{App, Home, ends_well};

/// Space that an environment, a build and two releases of a small model need, in MB.
const WANTED_FREE_MB: u64 = 2_000;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn new(what: &'static str, ok: bool, found: impl Into<String>, remedy: &str) -> Self {
        Self { what, ok, found: found.into(), remedy: (!ok).then(|| remedy.to_owned()) }
    }
}

/// Looks at the machine, and with `--db` at the database. Exit code 1 when something is missing.
pub async fn run(home: Home, args: DoctorArgs, out: &Out) -> Result<Exit, Failed> {
    let mut findings = vec![python(), venv(), uv(home.dir()), free_space(home.dir()), linux()];
    if args.db {
        findings.extend(database(home).await);
    }
    let ok = findings.iter().all(|f| f.ok);
    out.data(&findings, || {
        let line = |f: &Finding| {
            let mark = if f.ok { "ok  " } else { "MISS" };
            let remedy = f.remedy.as_ref().map(|r| format!("\n       -> {r}")).unwrap_or_default();
            format!("{mark} {:<12} {}{remedy}", f.what, f.found)
        };
        findings.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if ok { Exit::Done } else { Exit::Failed })
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn python() -> Finding {
    match on_path("python3") {
        Some(path) => Finding::new("python3", true, path.display().to_string(), ""),
        None => Finding::new(
            "python3",
            false,
            "not on PATH",
            "install Python 3: `apt-get install python3 python3-venv`, or your system's way",
        ),
    }
}

fn venv() -> Finding {
    let remedy = "install it: `apt-get install python3-venv`, or put `uv` on PATH";
    if on_path("uv").is_some() {
        return Finding::new("venv", true, "not needed: uv is on PATH", remedy);
    }
    let Some(python) = on_path("python3") else { return Finding::new("venv", false, "needs python3", remedy) };
    // Debian ships python3 without ensurepip. Asked rather than looked for: a version manager's wrapper hides what stands behind it.
    match ends_well(&python, &["-c", "import ensurepip, venv"]) {
        Some(true) => Finding::new("venv", true, "python3 -m venv works", remedy),
        Some(false) => Finding::new("venv", false, "python3 has no venv module", remedy),
        None => Finding::new("venv", false, format!("{} does not answer", python.display()), remedy),
    }
}

fn uv(home: &Path) -> Finding {
    let own = home.join("tools/uv/bin/uv");
    match on_path("uv").or_else(|| own.is_file().then_some(own)) {
        Some(path) => Finding::new("uv", true, path.display().to_string(), ""),
        None => Finding::new("uv", true, "not there yet; the first deploy puts it into the home", ""),
    }
}

fn free_space(home: &Path) -> Finding {
    let remedy = "make room, or put the home on another disk with --home";
    match nix::sys::statvfs::statvfs(home) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size()) / 1_000_000;
            Finding::new("disk", free >= WANTED_FREE_MB, format!("{free} MB free in {}", home.display()), remedy)
        }
        Err(error) => Finding::new("disk", false, error.to_string(), remedy),
    }
}

fn linux() -> Finding {
    let there = Path::new("/proc/self/stat").exists();
    Finding::new(
        "linux",
        there,
        if there { "/proc is there" } else { "/proc is missing" },
        "Tidegate's host daemon runs on Linux only",
    )
}

async fn database(home: Home) -> Vec<Finding> {
    let app = match App::open(home, "doctor", None).await {
        Ok(app) => app,
        Err(failure) => {
            let remedy = failure.hint.clone().unwrap_or_default();
            return vec![Finding::new("database", false, failure.message, &remedy)];
        }
    };
    let remedy = "keep a copy of the file, restore the last good one, and report what you did before";
    let integrity = match app.database().check_integrity().await {
        Ok(()) => Finding::new("database", true, "sound", ""),
        Err(error) => Finding::new("database", false, error.to_string(), remedy),
    };
    let audit = match app.database().verify_audit().await {
        Ok(rows) => Finding::new("audit", true, format!("{rows} rows, each hash fits"), ""),
        Err(error) => Finding::new("audit", false, error.to_string(), remedy),
    };
    vec![integrity, audit]
}
