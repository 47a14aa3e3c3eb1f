//! The main job through the real binary: what it prints is the contract, and what it prints works.

mod release_support;

use std::process::Command;

use release_support::{Home, greet, shared_python, web};
use serde_json::{Value, json};

/// `ModelDeployerOutput` as tests/data/contracts describes it: exactly these keys.
fn contract() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": [
            "deployment_id", "endpoint_url", "deployment_strategy", "previous_version", "deployment_timestamp",
            "health_check_passed", "metrics_baseline"
        ],
        "properties": {
            "deployment_id": {"type": "string", "minLength": 1},
            "endpoint_url": {"type": "string", "pattern": "^http://"},
            "deployment_strategy": {"enum": ["rolling", "canary", "blue-green", "shadow", "ab-test", "recreate"]},
            "previous_version": {"type": ["string", "null"]},
            "deployment_timestamp": {"type": "string", "format": "date-time"},
            "health_check_passed": {"type": "boolean"},
            "metrics_baseline": {"type": "object", "additionalProperties": {"type": "number"}}
        }
    })
}

fn assert_contract(output: &Value) {
    let validator = jsonschema::options().should_validate_formats(true).build(&contract()).unwrap();
    let errors: Vec<String> = validator.iter_errors(output).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {output}");
}

#[test]
fn a_deploy_prints_the_contract_and_bentomls_own_client_works() {
    let home = Home::new();
    let output = home.deploy(&home.hello("one"));
    assert_contract(&output);
    assert_eq!((&output["previous_version"], &output["health_check_passed"]), (&Value::Null, &json!(true)));
    assert_eq!(output["deployment_strategy"], "blue-green");
    assert!(!output["metrics_baseline"].as_object().unwrap().is_empty(), "{output}");
    assert_eq!(greet(&output), json!({"greeting": "hello tide", "version": "one"}));

    let row = &home.history("hello")[0];
    assert_eq!((&row["status"], &row["live"]), (&json!("COMPLETED"), &json!(true)));
    assert_eq!(row["deployment_id"], output["deployment_id"]);

    let program =
        "import sys, bentoml\nwith bentoml.SyncHTTPClient(sys.argv[1]) as c: print(c.greet(name='tide')['version'])";
    let url = output["endpoint_url"].as_str().unwrap();
    let client = Command::new(shared_python())
        .args(["-c", program, url])
        .env("BENTOML_HOME", home.beside("bentoml"))
        .env("BENTOML_DO_NOT_TRACK", "True")
        .output()
        .unwrap();
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    assert_eq!(String::from_utf8_lossy(&client.stdout).trim(), "one");
}

#[test]
fn the_printed_curl_line_works_literally() {
    let home = Home::new();
    let ran = home.ok(&["deploy", home.hello("it's").bake("0s").arg(), "--yes"]);
    assert_contract(&ran.json());
    let line = ran.stderr.lines().map(str::trim).find(|line| line.starts_with("curl ")).expect(&ran.stderr);
    let said = Command::new("sh").args(["-c", line]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&said).unwrap(),
        json!({"greeting": "hello tide", "version": "it's"}),
        "{line}"
    );
}

/// A request that names nothing but a model: the service is written for it, whatever it takes as features.
#[test]
fn a_bare_model_is_released_with_a_service_of_its_own() {
    let home = Home::new();
    let program = "import pickle\nfrom sklearn.tree import DecisionTreeClassifier\n\
        model = DecisionTreeClassifier().fit([[0, 1, 2], [10, 1, 2]], ['stays', 'leaves'])\n\
        pickle.dump(model, open('churn.pkl', 'wb'))";
    let folder = home.beside("bare");
    std::fs::create_dir(&folder).unwrap();
    let saved = Command::new(shared_python()).args(["-c", program]).current_dir(&folder).output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    let request = folder.join("request.json");
    let text = json!({
        "modelArtifact": {"path": "churn.pkl", "framework": "scikit-learn", "version": "2.0.0"},
        "servingRequirements": {"latencyP99": "500ms", "throughput": "1rps", "availability": "99%"},
        "deploymentStrategy": "blue-green",
        "infrastructure": {"platform": "local", "namespace": "default", "resources": {}},
    });
    std::fs::write(&request, text.to_string()).unwrap();
    let output = home.json(&["deploy", request.to_str().unwrap(), "--yes"]);
    assert_contract(&output);
    let url = format!("{}/predict", output["endpoint_url"].as_str().unwrap());
    let (status, body) = web::post(&url, &json!({"features": [[1, 1, 2], [9, 1, 2]]})).unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, answer), (200, json!(["stays", "leaves"])));
}
