//! What is run, as data: pure builders, tested as such.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::process::CommandLine;
use super::super::uv::GUARD_VARIABLE;
use crate::ports::{PackageRequest, ServeCommand};

/// A build with a package lock over a slow line.
const BUILD_TIMEOUT: Duration = Duration::from_secs(1800);
/// Training is the user's own program: bounded, so that a release cannot hang for ever, and generously.
const TRAIN_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Variables of the caller's shell that would make Python or BentoML look elsewhere.
const HIDDEN: [&str; 6] = ["PYTHONHOME", "PYTHONPATH", "CONDA_PREFIX", "BENTOML_CONFIG", CONFIG_OPTIONS, "BENTO_PATH"];

/// Settings, separated by blanks, that BentoML lays over those of the service's code.
const CONFIG_OPTIONS: &str = "BENTOML_CONFIG_OPTIONS";

/// Folders that a command needs on PATH, before the caller's own.
pub(super) fn search_path(env_dir: &Path, uv: Option<&Path>, callers: &str) -> String {
    let mut folders = vec![env_dir.join("bin")];
    // `bentoml build` runs uv, and installs it with pip where it finds none: our environments have no pip.
    folders.extend(uv.and_then(Path::parent).map(Path::to_owned));
    let ours: Vec<String> = folders.iter().map(|folder| folder.to_string_lossy().into_owned()).collect();
    format!("{}:{callers}", ours.join(":"))
}

fn environment(env_dir: &Path, bentoml_home: &Path, search_path: &str) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    [
        ("BENTOML_DO_NOT_TRACK", "True".to_owned()),
        ("BENTOML_HOME", text(bentoml_home)),
        ("NO_COLOR", "1".to_owned()),
        ("PATH", search_path.to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("VIRTUAL_ENV", text(env_dir)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// `bentoml build`, which prints `__tag__:name:version`.
pub(super) fn build(request: &PackageRequest, bentoml_home: &Path, search_path: &str) -> CommandLine {
    let python = request.env.python.to_string_lossy().into_owned();
    let mut argv: Vec<String> =
        [&python, "-m", "bentoml", "build", "-o", "tag"].iter().map(|part| (*part).to_owned()).collect();
    if let Some(version) = &request.version {
        argv.extend(["--version".to_owned(), version.clone()]);
    }
    argv.extend(request.service.clone());
    CommandLine {
        argv,
        cwd: request.project.clone(),
        env: environment(&request.env.dir, bentoml_home, search_path),
        env_remove: HIDDEN.to_vec(),
        timeout: BUILD_TIMEOUT,
    }
}

/// The project's own command that makes its models; it saves them into the user's model store.
pub(super) fn train(request: &PackageRequest, argv: &[String], user_home: &Path, search_path: &str) -> CommandLine {
    let mut argv = argv.to_vec();
    if let Some(program) = argv.first_mut()
        && (program == "python" || program == "python3")
    {
        *program = request.env.python.to_string_lossy().into_owned();
    }
    CommandLine {
        argv,
        cwd: request.project.clone(),
        env: environment(&request.env.dir, user_home, search_path),
        env_remove: HIDDEN.to_vec(),
        timeout: TRAIN_TIMEOUT,
    }
}

/// How a release is served. `python -m bentoml`, not the `bentoml` script: a script's first line has a length limit.
pub(super) fn serve(python: &Path, env_dir: &Path, release_dir: &Path, slot_dir: &Path) -> ServeCommand {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let argv = [&text(python), "-m", "bentoml", "serve", &text(release_dir), "-p", "{port}", "--host", "127.0.0.1"]
        .map(str::to_owned)
        .to_vec();
    let env = [
        ("BENTOML_DO_NOT_TRACK", "True".to_owned()),
        // A home per slot: every `serve` wipes the metrics in its home, and two slots of one home would share them.
        ("BENTOML_HOME", text(slot_dir)),
        ("NO_COLOR", "1".to_owned()),
        // A release's folder stays as its digest says.
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        (GUARD_VARIABLE, "arm".to_owned()),
        ("VIRTUAL_ENV", text(env_dir)),
    ];
    ServeCommand {
        argv,
        cwd: PathBuf::from(release_dir),
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// The variable that gives a service so many workers, whatever its code says. Its name is quoted: BentoML reads dots and dashes as its own.
/// `bentoml serve --api-workers` is ignored without a word.
pub(super) fn workers(service: &str, workers: u32) -> (String, String) {
    (CONFIG_OPTIONS.to_owned(), format!(r#"services."{service}".workers={workers}"#))
}

/// The tag in `bentoml build -o tag`'s output.
pub(super) fn parse_tag(lines: &[String]) -> Option<(String, String)> {
    let tag = lines.iter().rev().find_map(|line| line.trim().strip_prefix("__tag__:"))?;
    let (name, version) = tag.split_once(':')?;
    (!name.is_empty() && !version.is_empty()).then(|| (name.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::PythonEnv;

    fn request() -> PackageRequest {
        PackageRequest {
            token: "t".into(),
            project: "/p".into(),
            env: PythonEnv {
                dir: "/h/envs/ab".into(),
                python: "/h/envs/ab/bin/python".into(),
                digest: "sha256:ab".into(),
                created: false,
            },
            train: None,
            needs_models: vec![],
            service: Some("service:Iris".into()),
            version: Some("v1".into()),
            keep_out: vec![],
            expect_name: None,
        }
    }

    #[test]
    fn commands_read_as_one_would_type_them() {
        let path = search_path(Path::new("/h/envs/ab"), Some(Path::new("/h/tools/uv/bin/uv")), "/usr/bin");
        let train_argv = ["python", "train.py"].map(str::to_owned);
        let said = [
            build(&request(), Path::new("/h/builds/t/bentoml"), &path),
            build(&PackageRequest { service: None, version: None, ..request() }, Path::new("/b"), &path),
            train(&request(), &train_argv, Path::new("/u/bentoml"), &path),
        ]
        .map(|command| {
            format!("{} | {} | {}", command.argv.join(" "), command.env["BENTOML_HOME"], command.env["PATH"])
        });
        insta::assert_snapshot!(said.join("\n"), @r"
        /h/envs/ab/bin/python -m bentoml build -o tag --version v1 service:Iris | /h/builds/t/bentoml | /h/envs/ab/bin:/h/tools/uv/bin:/usr/bin
        /h/envs/ab/bin/python -m bentoml build -o tag | /b | /h/envs/ab/bin:/h/tools/uv/bin:/usr/bin
        /h/envs/ab/bin/python train.py | /u/bentoml | /h/envs/ab/bin:/h/tools/uv/bin:/usr/bin
        ");
    }

    #[test]
    fn a_slot_has_its_own_home() {
        let served =
            serve(Path::new("/e/bin/python"), Path::new("/e"), Path::new("/h/releases/iris/v1"), Path::new("/s"));
        assert_eq!(
            served.argv.join(" "),
            "/e/bin/python -m bentoml serve /h/releases/iris/v1 -p {port} --host 127.0.0.1"
        );
        insta::assert_json_snapshot!(served.env, @r#"
        {
          "BENTOML_DO_NOT_TRACK": "True",
          "BENTOML_HOME": "/s",
          "NO_COLOR": "1",
          "PYTHONDONTWRITEBYTECODE": "1",
          "PYTHONUNBUFFERED": "1",
          "TIDEGATE_SLOT_GUARD": "arm",
          "VIRTUAL_ENV": "/e"
        }
        "#);
    }

    #[test]
    fn the_tag_is_found_among_other_lines() {
        let lines = ["warning: x", "__tag__:iris_classifier:abc", ""].map(str::to_owned);
        assert_eq!(parse_tag(&lines), Some(("iris_classifier".into(), "abc".into())));
        assert_eq!(parse_tag(&["__tag__:x".to_owned()]), None);
    }
}
