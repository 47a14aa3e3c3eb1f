//! Builds with a real BentoML: what a package is, twice the same token, training, the failures.

#[path = "support/bentoml.rs"]
mod support;

use std::fs;
use std::process::Command;

use serde_json::json;
use support::{Home, Serving, copy_of, hello, package, project, request, root, shared_env};
use tidegate::ports::{PackageRequest, Packager, Quiet};

#[tokio::test]
async fn iris_is_trained_built_served_and_imported() {
    let (home, project) = (Home::new(), copy_of(&root().join("examples/iris")));
    let asked = PackageRequest {
        train: Some(vec!["python".into(), "train.py".into()]),
        needs_models: vec!["iris_clf:latest".into()],
        service: Some("service:IrisClassifier".into()),
        keep_out: vec![],
        expect_name: Some("iris_classifier".into()),
        ..request("iris-1", project.path()).await
    };
    let packager = home.packager();
    let model = packager.package(&asked, &Quiet).await.unwrap();
    assert_eq!((model.model_name.as_str(), model.service.as_str()), ("iris_classifier", "IrisClassifier"));
    assert_eq!(model.routes[0].path, "/predict");
    assert_eq!(model.routes[0].input["required"], json!(["features"]));
    assert!(model.models[0].starts_with("iris_clf:") && model.size_bytes > 1000);
    assert_eq!(packager.find("iris-1").await.unwrap().unwrap(), model);

    // Self-contained: the model store it was built from may go.
    fs::remove_dir_all(home.path().join("user-bentoml")).unwrap();
    let mut serving = Serving::start(&packager, &model, &home.path().join("slot"));
    serving.ready().await;
    let body = json!({"features": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]});
    assert_eq!(serving.post("/predict", body).await, json!([0, 2]));

    // Sprung: the same folder without its models, as BentoML's own store keeps it, finds none from another home.
    let bare = home.path().join("bare");
    assert!(Command::new("cp").arg("-r").arg(&model.release_dir).arg(&bare).status().unwrap().success());
    fs::remove_dir_all(bare.join("models")).unwrap();
    let without = tidegate::ports::PackagedModel { release_dir: bare, ..model.clone() };
    let mut failing = Serving::start(&packager, &without, &home.path().join("bare-slot"));
    assert!(!failing.child.wait().unwrap().success());
    let log = failing.log_lines().join("\n");
    assert!(log.contains("iris_clf") && log.to_lowercase().contains("not"), "{log}");

    let import = Command::new(&model.env.python)
        .args(["-m", "bentoml", "import"])
        .arg(&model.archive)
        .env("BENTOML_HOME", home.path().join("other"))
        .env("BENTOML_DO_NOT_TRACK", "True")
        .output()
        .unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    let bento = home.path().join("other/bentos/iris_classifier").join(&model.model_version);
    let imported_model = home.path().join("other/models").join(model.models[0].replace(':', "/"));
    assert!(bento.join("src/service.py").is_file() && imported_model.join("saved_model.pkl").is_file());
}

#[tokio::test]
async fn one_token_is_one_build_and_discard_undoes_it() {
    let (home, project) = (Home::new(), hello("one"));
    let first = package(&home, "t1", project.path()).await;
    let again = package(&home, "t1", project.path()).await;
    assert_eq!(first, again);
    let packager = home.packager();
    packager.discard("t1").await.unwrap();
    packager.discard("t1").await.unwrap();
    assert_eq!(packager.find("t1").await.unwrap(), None);
    assert!(!first.release_dir.exists() && !first.archive.exists() && !home.path().join("builds/t1").exists());
}

#[tokio::test]
async fn the_same_sources_have_the_same_digest_and_others_are_refused_under_their_version() {
    let (home, one, two) = (Home::new(), hello("one"), hello("two"));
    let packager = home.packager();
    let v1 = |token: &'static str, project: std::path::PathBuf| async move {
        PackageRequest { version: Some("v1".into()), ..request(token, &project).await }
    };
    let first = packager.package(&v1("a", one.path().into()).await, &Quiet).await.unwrap();
    let second = packager.package(&v1("b", one.path().into()).await, &Quiet).await.unwrap();
    assert_eq!((&first.content_digest, &first.release_dir), (&second.content_digest, &second.release_dir));
    let refused = packager.package(&v1("c", two.path().into()).await, &Quiet).await.unwrap_err();
    assert_eq!(refused.code, "version_exists");
    // Two builds share the release: it goes with the last of them. The refused one owns nothing.
    packager.discard("c").await.unwrap();
    packager.discard("a").await.unwrap();
    assert!(second.release_dir.exists());
    packager.discard("b").await.unwrap();
    assert!(!second.release_dir.exists());
}

#[tokio::test]
async fn a_failed_build_names_its_cause_and_leaves_no_release() {
    let home = Home::new();
    let packager = home.packager();
    for (name, code, cause) in [
        ("missing_dependency", "dependency_missing", "a_module_nobody_installed"),
        ("syntax_error", "service_syntax_error", "service.py\", line 9"),
    ] {
        let project = project(name);
        let token = name.replace('_', "-");
        let error = packager.package(&request(&token, project.path()).await, &Quiet).await.unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.cause.as_ref().unwrap().contains(cause) && error.hint.is_some(), "{error:?}");
        assert_eq!(packager.find(&token).await.unwrap(), None);
        assert!(home.path().join("builds").join(&token).join("build.log").is_file());
        packager.discard(&token).await.unwrap();
    }
    assert!(!home.path().join("releases").exists());
}

#[tokio::test]
async fn a_missing_model_is_said_with_what_to_do() {
    let (home, project) = (Home::new(), hello("one"));
    let packager = home.packager();
    let needs = PackageRequest { needs_models: vec!["nobody:latest".into()], ..request("m1", project.path()).await };
    let error = packager.package(&needs, &Quiet).await.unwrap_err();
    assert_eq!(error.code, "model_missing");
    let useless = PackageRequest { token: "m2".into(), train: Some(vec!["true".into()]), ..needs.clone() };
    let error = packager.package(&useless, &Quiet).await.unwrap_err();
    assert!(error.code == "model_missing" && error.hint.unwrap().contains("did not save it"));
    let raising = vec!["python".into(), "-c".into(), "raise ValueError('no data')".into()];
    let error = packager.package(&PackageRequest { token: "m3".into(), train: Some(raising), ..needs }, &Quiet).await;
    let error = error.unwrap_err();
    assert!(error.code == "train_failed" && error.cause.unwrap().ends_with("ValueError: no data"));
}

#[tokio::test]
async fn another_name_than_expected_is_refused() {
    let (home, project) = (Home::new(), hello("one"));
    let asked = PackageRequest { expect_name: Some("other".into()), ..request("n1", project.path()).await };
    assert_eq!(home.packager().package(&asked, &Quiet).await.unwrap_err().code, "bento_name_mismatch");
    assert!(!shared_env().await.created);
}

#[tokio::test]
async fn a_hidden_home_is_refused_before_it_fails_in_the_slot() {
    let (home, project) = (Home::hidden(), hello("one"));
    let error = home.packager().package(&request("h1", project.path()).await, &Quiet).await.unwrap_err();
    assert_eq!(error.code, "home_hidden", "{error:?}");
}
