//! What is run, as data: pure builders, tested as such.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::process::CommandLine;

/// A cold download of a large set of wheels over a slow line.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(1800);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(600);
const QUICK_TIMEOUT: Duration = Duration::from_secs(60);

/// Variables that would make uv or Python look elsewhere than where they are told. All others (certificates, proxies, indexes)
/// are the caller's own business and pass through.
const HIDDEN: [&str; 5] = ["VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT"];

fn command(argv: Vec<String>, cwd: &Path, timeout: Duration) -> CommandLine {
    let plain = [("NO_COLOR", "1"), ("UV_NO_PROGRESS", "1"), ("PIP_DISABLE_PIP_VERSION_CHECK", "1")];
    let env: BTreeMap<String, String> =
        plain.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    CommandLine { argv, cwd: cwd.to_owned(), env, env_remove: HIDDEN.to_vec(), timeout }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn strings(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// A virtual environment for uv itself.
pub(super) fn bootstrap_venv(python3: &Path, dir: &Path, cwd: &Path) -> CommandLine {
    command(strings(&[&text(python3), "-m", "venv", &text(dir)]), cwd, QUICK_TIMEOUT)
}

/// uv into it.
pub(super) fn bootstrap_uv(dir: &Path, cwd: &Path) -> CommandLine {
    let python = text(&dir.join("bin/python"));
    command(strings(&[&python, "-m", "pip", "install", "--quiet", "uv"]), cwd, RESOLVE_TIMEOUT)
}

/// Prints the version of the interpreter that `wanted` (or `python3` on PATH) is.
pub(super) fn python_version(uv: &Path, wanted: Option<&str>, cwd: &Path) -> CommandLine {
    let wanted = wanted.unwrap_or("python3");
    command(strings(&[&text(uv), "python", "find", "--no-project", "--show-version", wanted]), cwd, QUICK_TIMEOUT)
}

/// Lets uv fetch an interpreter.
pub(super) fn python_install(uv: &Path, wanted: &str, cwd: &Path) -> CommandLine {
    command(strings(&[&text(uv), "python", "install", wanted]), cwd, RESOLVE_TIMEOUT)
}

/// Pins open requirements.
pub(super) fn compile(uv: &Path, wanted: &str, requirements: &Path, output: &Path, project: &Path) -> CommandLine {
    let (uv, input, output) = (text(uv), text(requirements), text(output));
    let argv = [&uv, "pip", "compile", &input, "-o", &output, "--python", wanted];
    let quiet = ["--quiet", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"];
    command(strings(&[&argv[..], &quiet[..]].concat()), project, RESOLVE_TIMEOUT)
}

/// An empty environment.
pub(super) fn venv(uv: &Path, wanted: &str, dir: &Path, cwd: &Path) -> CommandLine {
    command(strings(&[&text(uv), "venv", "--no-project", "--python", wanted, &text(dir)]), cwd, RESOLVE_TIMEOUT)
}

/// The locked packages into it. Compiling them to bytecode takes seconds once and saves seconds of every build and start.
pub(super) fn install(uv: &Path, python: &Path, lock: &Path, project: &Path) -> CommandLine {
    let (uv, python, lock) = (text(uv), text(python), text(lock));
    let argv = [&uv, "pip", "install", "--compile-bytecode", "--python", &python, "-r", &lock];
    command(strings(&argv), project, INSTALL_TIMEOUT)
}

/// The environment's interpreter.
pub(super) fn python_of(dir: &Path) -> PathBuf {
    dir.join("bin/python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_as_one_would_type_them() {
        let (uv, dir) = (Path::new("/u/uv"), Path::new("/h/envs/ab"));
        let said = [
            bootstrap_venv(Path::new("/b/python3"), Path::new("/h/tools/uv"), dir),
            bootstrap_uv(Path::new("/h/tools/uv"), dir),
            python_version(uv, None, dir),
            python_install(uv, "3.12", dir),
            compile(uv, "python3", Path::new("requirements.txt"), Path::new("/h/locks/x"), dir),
            venv(uv, "3.11", dir, dir),
            install(uv, &python_of(dir), Path::new("/p/requirements.lock"), dir),
        ]
        .map(|command| command.argv.join(" "));
        insta::assert_snapshot!(said.join("\n"), @r"
        /b/python3 -m venv /h/tools/uv
        /h/tools/uv/bin/python -m pip install --quiet uv
        /u/uv python find --no-project --show-version python3
        /u/uv python install 3.12
        /u/uv pip compile requirements.txt -o /h/locks/x --python python3 --quiet --no-header --no-annotate --no-emit-index-url --no-emit-find-links
        /u/uv venv --no-project --python 3.11 /h/envs/ab
        /u/uv pip install --compile-bytecode --python /h/envs/ab/bin/python -r /p/requirements.lock
        ");
    }

    #[test]
    fn the_callers_environment_passes_but_for_what_misleads() {
        let command = venv(Path::new("uv"), "3.11", Path::new("/e"), Path::new("/"));
        assert!(command.env_remove.contains(&"VIRTUAL_ENV") && !command.env_remove.contains(&"SSL_CERT_FILE"));
        assert_eq!(command.env["NO_COLOR"], "1");
    }
}
