//! Builds that are killed, and builds that meet: nothing goes on unseen, nothing is built twice.

#[path = "support/bentoml.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::{Home, copy_of, gone, hello, request, root};
use tidegate::ports::{PackageRequest, Packager, Quiet};

/// The process that the next test kills in the middle of its training; in the ordinary run nobody names a home, and it has nothing to do.
#[tokio::test]
async fn the_victim() {
    let Some(home) = std::env::var_os("VICTIM_HOME").map(PathBuf::from) else { return };
    let project = PathBuf::from(std::env::var("VICTIM_PROJECT").unwrap());
    let packager = tidegate::adapters::bentoml::BentomlPackager::new(&home).with_model_home(home.join("user-bentoml"));
    let sleep = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)";
    let asked = PackageRequest {
        train: Some(vec!["python".into(), "-c".into(), sleep.into()]),
        needs_models: vec!["nobody:latest".into()],
        ..request("k", &project).await
    };
    let _ = packager.package(&asked, &Quiet).await;
}

#[tokio::test]
async fn a_killed_build_leaves_no_process_and_is_made_anew() {
    let (home, project) = (Home::new(), hello("one"));
    support::shared_env().await;
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_victim"])
        .env("VICTIM_HOME", home.path())
        .env("VICTIM_PROJECT", project.path())
        .spawn()
        .unwrap();
    let pid_file = project.path().join("pid");
    let mut child = None;
    for _ in 0..500 {
        child = fs::read_to_string(&pid_file).ok().and_then(|text| text.parse::<u32>().ok());
        if child.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(gone(child.expect("the training ran")).await, "the training outlived its release");
    assert!(home.path().join("builds/k/process.json").exists(), "it was on record");

    let packager = home.packager();
    assert_eq!(packager.find("k").await.unwrap(), None);
    assert!(!home.path().join("builds/k/process.json").exists(), "`find` has settled the record");
    let model = packager.package(&request("k", project.path()).await, &Quiet).await.unwrap();
    assert_eq!(packager.find("k").await.unwrap(), Some(model));
}

#[tokio::test]
async fn two_callers_of_one_token_get_one_build() {
    let (home, project) = (Home::new(), hello("one"));
    let (packager, asked) = (home.packager(), request("t", project.path()).await);
    let (one, two) = tokio::join!(packager.package(&asked, &Quiet), packager.package(&asked, &Quiet));
    let one = one.unwrap();
    assert_eq!(one, two.unwrap());
    let said = fs::read_to_string(&one.log).unwrap();
    assert_eq!(said.matches("__tag__:").count(), 1, "{said}");
    assert_eq!(fs::read_dir(home.path().join("releases/hello")).unwrap().count(), 3, "folder, archive, card");
}

#[tokio::test]
async fn two_releases_of_one_project_train_once() {
    let (home, project) = (Home::new(), copy_of(&root().join("examples/iris")));
    let packager = home.packager();
    let ask = |token: &'static str| {
        let path = project.path().to_owned();
        async move {
            PackageRequest {
                train: Some(vec!["python".into(), "train.py".into()]),
                needs_models: vec!["iris_clf:latest".into()],
                ..request(token, &path).await
            }
        }
    };
    let (a, b) = (ask("a").await, ask("b").await);
    let (one, two) = tokio::join!(packager.package(&a, &Quiet), packager.package(&b, &Quiet));
    assert_eq!(one.unwrap().models, two.unwrap().models);
    let versions = fs::read_dir(home.path().join("user-bentoml/models/iris_clf")).unwrap();
    assert_eq!(versions.count(), 2, "one version and `latest`");
}

/// Killed between putting the release in place and writing the result.
#[tokio::test]
async fn a_release_without_result_is_cleared_by_its_intent() {
    let home = Home::new();
    let (build, releases) = (home.path().join("builds/x"), home.path().join("releases/hello"));
    fs::create_dir_all(&build).unwrap();
    fs::create_dir_all(releases.join("v1.2")).unwrap();
    for name in ["v1.2.json", "v1.2.bento"] {
        fs::write(releases.join(name), "").unwrap();
    }
    fs::write(build.join("intent.json"), serde_json::to_vec(&releases.join("v1.2")).unwrap()).unwrap();
    home.packager().discard("x").await.unwrap();
    assert_eq!(fs::read_dir(&releases).unwrap().count(), 0);
    assert!(!build.exists());
}
