//! `doctor`: what is missing on this machine, and how to get it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::DoctorArgs;
use super::out::Out;
use super::{Exit, Failed};
use crate::app::{
    App, Checkup, Home, Repaired, TableState, ends_well, examine_database, repair_database, salvage_database,
};
use crate::graph::Failure;

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
        findings.extend(database(home, &args).await);
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

async fn database(home: Home, args: &DoctorArgs) -> Vec<Finding> {
    // Brings it up to this version, or makes it.
    match App::open(home.clone(), "doctor", None).await {
        Ok(app) => drop(app),
        // Looked at closely below.
        Err(failure) if failure.code == "store_damaged" => {}
        Err(failure) => {
            let remedy = failure.hint.clone().unwrap_or_default();
            return vec![Finding::new("database", false, failure.into_details().message, &remedy)];
        }
    }
    if let Some(into) = &args.salvage {
        return vec![salvage(&home, into)];
    }
    let (mended, looked) = if args.repair {
        match repair_database(&home) {
            Ok(repaired) => (Some(repair(&repaired)), Ok(repaired.left)),
            Err(failure) => (Some(refused("repair", &failure)), examine_database(&home)),
        }
    } else {
        (None, examine_database(&home))
    };
    let looked = looked.map_or_else(|failure| vec![refused("database", &failure)], |checkup| found(&checkup));
    mended.into_iter().chain(looked).collect()
}

fn refused(what: &'static str, failure: &Failure) -> Finding {
    Finding::new(what, false, failure.message.clone(), failure.hint.as_deref().unwrap_or_default())
}

fn found(checkup: &Checkup) -> Vec<Finding> {
    const KEEP: &str = "keep a copy of the file, restore the last good one, and report what you did before";
    let said = |lines: &[String]| lines.join("\n       ");
    let mut findings = vec![match (checkup.is_whole(), checkup.only_indexes()) {
        (true, _) => Finding::new("database", true, "sound", ""),
        (false, true) => Finding::new(
            "database",
            false,
            format!("only indexes are damaged: {}", said(&checkup.damage)),
            "`tidegate doctor --db --repair` builds them anew",
        ),
        (false, false) => Finding::new(
            "database",
            false,
            format!("{}\n       {}", said(&checkup.damage), tables(checkup)),
            "restore the last good copy; or `tidegate doctor --db --salvage FILE` takes what can be read into a new file",
        ),
    }];
    if !checkup.orphans.is_empty() || !checkup.gaps.is_empty() {
        let missing = [checkup.orphans.clone(), checkup.gaps.clone()].concat();
        findings.push(Finding::new("records", false, said(&missing), KEEP));
    }
    findings.push(match &checkup.audit {
        Ok(rows) => Finding::new("audit", true, format!("{rows} rows, each hash fits"), ""),
        Err(why) => Finding::new("audit", false, why.clone(), KEEP),
    });
    let (dead, expired) = (checkup.dead_leases.len(), checkup.expired_cache);
    if dead > 0 || expired > 0 {
        let what = format!("{dead} leases of dead owners, {expired} cached results whose time is over");
        findings.push(Finding::new("leftovers", true, format!("{what}: `--repair` clears them"), ""));
    }
    findings
}

/// How far each table can be read.
fn tables(checkup: &Checkup) -> String {
    let state = |table: &TableState| match &table.error {
        None => format!("{} is readable, {} rows", table.name, table.rows),
        Some(error) => format!("{} is readable for {} rows only ({error})", table.name, table.rows),
    };
    checkup.tables.iter().map(state).collect::<Vec<_>>().join("\n       ")
}

fn repair(repaired: &Repaired) -> Finding {
    let Some(backup) = &repaired.backup else {
        let hopeless = !repaired.left.is_whole();
        let what = if hopeless { "nothing can be mended in place" } else { "there is nothing to mend" };
        return Finding::new("repair", !hopeless, what, "restore the last good copy, or use --salvage FILE");
    };
    let ok = repaired.left.is_whole();
    let done = format!("{}\n       the file as it was: {}", repaired.done.join("\n       "), backup.display());
    Finding::new("repair", ok, done, "restore the last good copy, or use --salvage FILE")
}

fn salvage(home: &Home, into: &Path) -> Finding {
    let salvaged = match salvage_database(home, into) {
        Ok(salvaged) => salvaged,
        Err(failure) => return refused("salvage", &failure),
    };
    let mut lines: Vec<String> = salvaged
        .tables
        .iter()
        .map(|(name, rows, all)| format!("{name}: {rows} rows{}", if *all { "" } else { ", some are lost" }))
        .collect();
    lines.extend(salvaged.dropped.iter().map(|what| format!("left out: {what}")));
    lines.push(format!(
        "now: keep {} and put {} in its place, with no `-wal` and `-shm` beside it",
        home.database().display(),
        into.display()
    ));
    Finding::new("salvage", true, lines.join("\n       "), "")
}
