//! From a pickled scikit-learn model to predictions, without a line of service code.

#[path = "support/bentoml.rs"]
mod support;

use std::process::Command;

use serde_json::json;
use support::{Home, Serving, request, shared_env};
use tidegate::adapters::bentoml::generate;
use tidegate::ports::ModelArtifact;
use tidegate::ports::{PackageRequest, Packager, Quiet};

async fn save(home: &Home, program: &str) -> ModelArtifact {
    let saved =
        Command::new(shared_env().await.python).args(["-c", program]).current_dir(home.path()).output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    ModelArtifact { path: home.path().join("churn.pkl"), framework: "scikit-learn".into(), name: String::new() }
}

async fn asked(home: &Home, artifact: &ModelArtifact) -> PackageRequest {
    let project = generate(home.path(), artifact).await.unwrap();
    PackageRequest {
        train: Some(project.train),
        needs_models: project.needs_models,
        service: Some(project.service),
        keep_out: vec![],
        expect_name: Some("churn".into()),
        ..request("g", &project.project).await
    }
}

/// In a hidden home, where BentoML would refuse to read a requirements file: the generated service reads it by itself.
#[tokio::test]
async fn a_pickled_model_is_served_from_a_hidden_home() {
    let home = Home::hidden();
    let program = "import pickle\nfrom sklearn.tree import DecisionTreeClassifier\n\
        model = DecisionTreeClassifier().fit([[0], [10]], ['stays', 'leaves'])\npickle.dump(model, open('churn.pkl', 'wb'))";
    let artifact = save(&home, program).await;
    let packager = home.packager();
    let model = packager.package(&asked(&home, &artifact).await, &Quiet).await.unwrap();
    assert_eq!((model.model_name.as_str(), model.routes[0].path.as_str()), ("churn", "/predict"));
    assert!(!model.release_dir.join("src/artifact.pkl").exists(), "the model is not there twice");
    let mut serving = Serving::start(&packager, &model, &home.path().join("slot"));
    serving.ready().await;
    assert_eq!(serving.post("/predict", json!({"features": [[1], [9]]})).await, json!(["stays", "leaves"]));
}

#[tokio::test]
async fn an_artifact_that_cannot_predict_is_refused_with_the_reason() {
    let home = Home::new();
    let artifact = save(&home, "import pickle\npickle.dump({'not': 'a model'}, open('churn.pkl', 'wb'))").await;
    let error = home.packager().package(&asked(&home, &artifact).await, &Quiet).await.unwrap_err();
    assert_eq!(error.code, "train_failed");
    assert!(error.cause.as_ref().unwrap().contains("holds a dict, which has no predict()"), "{error:?}");
}

/// A model saved by another scikit-learn may answer wrongly: it is refused, not served with a warning in a log.
#[tokio::test]
async fn a_model_of_another_scikit_learn_is_refused() {
    let home = Home::new();
    let program = "import pickle, sklearn, sklearn.base\nfrom sklearn.tree import DecisionTreeClassifier\n\
        sklearn.base.__version__ = '0.0.1'\npickle.dump(DecisionTreeClassifier().fit([[0], [1]], [0, 1]), open('churn.pkl', 'wb'))";
    let artifact = save(&home, program).await;
    let error = home.packager().package(&asked(&home, &artifact).await, &Quiet).await.unwrap_err();
    assert!(error.cause.as_ref().unwrap().contains("saved with scikit-learn 0.0.1"), "{error:?}");
}
