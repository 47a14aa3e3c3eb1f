//! Python environments made by a real uv.

#[path = "support/bentoml.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::{Home, folder, shared_env, shared_home};
use tidegate::adapters::uv::UvEnvs;
use tidegate::ports::{EnvBackend, EnvRequest, PortError, Progress, Quiet};

fn project(requirements: &str) -> tempfile::TempDir {
    let project = folder();
    fs::write(project.path().join("requirements.lock"), requirements).unwrap();
    project
}

fn asked(project: &Path, file: &str) -> EnvRequest {
    EnvRequest { project: project.to_owned(), requirements: file.into(), python: None }
}

async fn refused(home: &Path, requirements: &str) -> PortError {
    let project = project(requirements);
    UvEnvs::new(home).ensure(&asked(project.path(), "requirements.lock"), &Quiet).await.unwrap_err()
}

/// A home that has uv already, if the machine has none on PATH.
async fn home() -> Home {
    shared_env().await;
    Home::new()
}

#[tokio::test]
async fn an_environment_is_made_once_and_found_without_starting_anything() {
    let (home, project) = (home().await, project("six==1.17.0  # one small package\n"));
    let envs = UvEnvs::new(home.path());
    let request = asked(project.path(), "requirements.lock");
    assert_eq!(envs.find(&request).await.unwrap(), None);
    let (one, two) = tokio::join!(envs.ensure(&request, &Quiet), envs.ensure(&request, &Quiet));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.created != two.created && one.dir == two.dir, "two at once make one");
    assert!(one.python.exists() && one.dir.ends_with(&one.digest["sha256:".len()..][..16]));
    assert_eq!(envs.find(&request).await.unwrap().unwrap().dir, one.dir);

    // Comments do not matter; half an environment does.
    fs::write(project.path().join("requirements.lock"), "six==1.17.0\n").unwrap();
    assert!(!envs.ensure(&request, &Quiet).await.unwrap().created);
    fs::remove_file(one.dir.join(".tidegate-complete")).unwrap();
    fs::write(one.dir.join("junk"), "").unwrap();
    assert_eq!(envs.find(&request).await.unwrap(), None);
    assert!(envs.ensure(&request, &Quiet).await.unwrap().created && !one.dir.join("junk").exists());
}

#[tokio::test]
async fn open_requirements_are_pinned_once() {
    let (home, project) = (home().await, project(""));
    fs::write(project.path().join("requirements.txt"), "six<1.17\n").unwrap();
    let envs = UvEnvs::new(home.path());
    let request = asked(project.path(), "requirements.txt");
    let env = envs.ensure(&request, &Quiet).await.unwrap();
    let locks: Vec<_> = fs::read_dir(home.path().join("locks")).unwrap().flatten().collect();
    let lock = locks.iter().find(|lock| lock.path().extension().is_some_and(|end| end == "lock")).unwrap();
    assert_eq!(fs::read_to_string(lock.path()).unwrap().trim(), "six==1.16.0");
    assert_eq!(envs.find(&request).await.unwrap().unwrap().dir, env.dir);
}

#[tokio::test]
async fn what_cannot_be_installed_is_said_in_uvs_own_words() {
    let home = home().await;
    let unknown = refused(home.path(), "six==99.99.99\n").await;
    assert_eq!((unknown.code.as_str(), unknown.retryable), ("requirements_unsatisfiable", false), "{unknown:?}");
    assert!(unknown.cause.unwrap().contains("six==99.99.99"));
    let offline = refused(home.path(), "--index-url http://127.0.0.1:9/\ntidegate-nothing==1\n").await;
    assert_eq!((offline.code.as_str(), offline.retryable), ("network_unavailable", true), "{offline:?}");
    assert_eq!(refused(home.path(), "-e .\n").await.code, "requirements_unsupported");
}

#[tokio::test]
async fn a_missing_lock_is_said_with_the_command_that_makes_it() {
    let (home, project) = (folder(), folder());
    fs::write(project.path().join("pyproject.toml"), "").unwrap();
    let request = asked(project.path(), "requirements.lock");
    let error = UvEnvs::new(home.path()).ensure(&request, &Quiet).await.unwrap_err();
    assert_eq!(error.code, "requirements_missing");
    assert!(error.hint.unwrap().contains("uv pip compile pyproject.toml -o requirements.lock"));
}

#[tokio::test]
async fn without_python_the_error_says_how_to_get_it() {
    let (home, empty, project) = (folder(), folder(), project("six==1.17.0\n"));
    let envs = UvEnvs::new(home.path()).with_search_path(empty.path());
    let request = asked(project.path(), "requirements.lock");
    let error = envs.ensure(&request, &Quiet).await.unwrap_err();
    assert!(error.code == "python_missing" && error.hint.unwrap().contains("apt install python3"));

    // As Debian without python3-venv.
    let python3 = empty.path().join("python3");
    fs::write(&python3, "#!/bin/sh\necho 'ensurepip is not available' >&2\nexit 1\n").unwrap();
    fs::set_permissions(&python3, fs::Permissions::from_mode(0o755)).unwrap();
    let error = envs.ensure(&request, &Quiet).await.unwrap_err();
    assert!(error.code == "python_venv_missing" && error.cause.unwrap().contains("ensurepip"));
}

#[tokio::test]
async fn progress_is_streamed() {
    struct Lines(std::sync::Mutex<Vec<String>>);
    impl Progress for Lines {
        fn line(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
    let (home, project, lines) = (home().await, project("six==1.16.0\n"), Lines(Default::default()));
    UvEnvs::new(home.path()).ensure(&asked(project.path(), "requirements.lock"), &lines).await.unwrap();
    let said = lines.0.into_inner().unwrap();
    assert!(said.iter().any(|line| line.contains("six==1.16.0")), "{said:?}");
    assert!(shared_home().exists());
}
