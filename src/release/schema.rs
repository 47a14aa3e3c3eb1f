//! The JSON Schemas of what this room reads and hands back, by name.

use schemars::schema_for;
use serde_json::Value;

use super::contract::{DeploymentEngineerOutput, ModelDeployerOutput};
use super::engineer::EngineerInput;
use super::evidence::Evidence;
use super::plan::DeploymentPlan;
use super::release_file::ReleaseFile;

/// The names that [`schema`] knows.
pub fn names() -> [&'static str; 6] {
    ["request", "release-file", "plan", "output", "engineer-output", "evidence"]
}

/// The JSON Schema (2020-12) of a name; `None` for a name that is not among [`names`]. `request` is the document that people and agents
/// send, not the form it is stored in.
pub fn schema(name: &str) -> Option<Value> {
    let schema = match name {
        "request" => schema_for!(EngineerInput),
        "release-file" => schema_for!(ReleaseFile),
        "plan" => schema_for!(DeploymentPlan),
        "output" => schema_for!(ModelDeployerOutput),
        "engineer-output" => schema_for!(DeploymentEngineerOutput),
        "evidence" => schema_for!(Evidence),
        _ => return None,
    };
    Some(schema.to_value())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::release::fixtures::{facts, plan_of_iris};
    use crate::release::{DeployRequest, Strategies};

    const INPUT: &str = include_str!("../../tests/data/contracts/deployment_engineer_input.schema.json");
    const OUTPUT: &str = include_str!("../../tests/data/contracts/deployment_engineer_output.schema.json");

    fn errors(schema: &Value, document: &Value) -> Vec<String> {
        let validator = jsonschema::validator_for(schema).expect("a schema");
        validator.iter_errors(document).map(|error| error.to_string()).collect()
    }

    #[test]
    fn every_name_has_a_schema_and_no_other() {
        for name in names() {
            let schema = schema(name).expect(name);
            assert!(jsonschema::meta::is_valid(&schema), "{name}");
            assert_eq!(schema["additionalProperties"], json!(false), "{name}");
        }
        assert_eq!(schema("nosuch"), None);
    }

    #[test]
    fn the_output_validates_and_every_key_is_required() {
        let schema = schema("output").expect("schema");
        for live in [None, Some("v1")] {
            let output = crate::release::ModelDeployerOutput::new(&plan_of_iris(live), &facts()).expect("output");
            let document = serde_json::to_value(output).expect("json");
            assert_eq!(errors(&schema, &document), Vec::<String>::new());
            for key in document.as_object().expect("object").keys() {
                let mut without = document.clone();
                without.as_object_mut().expect("object").remove(key);
                assert!(!errors(&schema, &without).is_empty(), "{key} is required");
            }
            let mut more = document.clone();
            more["more"] = json!(1);
            assert!(!errors(&schema, &more).is_empty(), "nothing else is allowed");
        }
    }

    #[test]
    fn documents_validate_by_their_schemas() {
        let plan = plan_of_iris(Some("v1"));
        assert_eq!(errors(&schema("plan").expect("schema"), &plan.to_value()), Vec::<String>::new());
        let output = serde_json::to_value(DeploymentEngineerOutput::new(&plan, &facts())).expect("json");
        assert_eq!(errors(&schema("engineer-output").expect("schema"), &output), Vec::<String>::new());
        let published: Value = serde_json::from_str(OUTPUT).expect("json");
        assert_eq!(errors(&published, &output), Vec::<String>::new());
        let file = json!({
            "model": "iris", "serving": {"latency_p99": "200ms", "availability": 0.999}, "bake": "10s",
            "approval": {"mode": "required", "ttl": "24h"},
            "environments": {"prod": {"bake": {"for": "5m"}, "approval": "none"}},
            "smoke": [{"name": "a", "path": "/predict", "body": {"x": 1}, "expect": [0]}]
        });
        assert_eq!(errors(&schema("release-file").expect("schema"), &file), Vec::<String>::new());
        assert!(!errors(&schema("release-file").expect("schema"), &json!({"model": "Iris"})).is_empty());
    }

    #[test]
    fn the_strategies_of_the_contract_are_known() {
        let published: Value = serde_json::from_str(INPUT).expect("json");
        for word in published["properties"]["deploymentStrategy"]["enum"].as_array().expect("words") {
            let word = word.as_str().expect("a word");
            assert!(crate::release::Strategy::parse(word).is_some(), "{word}");
        }
        assert!(!Strategies::builtin().available().is_empty());
    }

    /// Documents of the published schema without keys beyond it.
    fn documents() -> impl proptest::strategy::Strategy<Value = Value> {
        let text = || proptest::option::of("[a-zA-Z0-9 ./%]{0,8}".prop_map(Value::from));
        let strategy =
            proptest::option::of(proptest::sample::select(vec!["rolling", "canary", "blue-green", "shadow"]));
        let texts = || (text(), text(), text());
        let resources = proptest::option::of(proptest::collection::btree_map("[a-z]{1,4}", any::<i32>(), 0..3));
        (texts(), texts(), strategy, proptest::option::of((text(), text(), resources))).prop_map(
            |(artifact, serving, strategy, infrastructure)| {
                let mut document = json!({
                    "modelArtifact": keys(["path", "framework", "version"], artifact),
                    "servingRequirements": keys(["latencyP99", "throughput", "availability"], serving),
                });
                if let Some(strategy) = strategy {
                    document["deploymentStrategy"] = json!(strategy);
                }
                if let Some((platform, namespace, resources)) = infrastructure {
                    let resources = resources.map(|map| json!(map));
                    document["infrastructure"] =
                        keys(["platform", "namespace", "resources"], (platform, namespace, resources));
                }
                document
            },
        )
    }

    fn keys(names: [&str; 3], values: (Option<Value>, Option<Value>, Option<Value>)) -> Value {
        let values = [values.0, values.1, values.2];
        names.into_iter().zip(values).filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    proptest! {
        #[test]
        fn what_the_published_schema_allows_can_be_read(document in documents()) {
            let published: Value = serde_json::from_str(INPUT).expect("json");
            prop_assert_eq!(errors(&published, &document), Vec::<String>::new());
            prop_assert_eq!(errors(&schema("request").expect("schema"), &document), Vec::<String>::new());
            let input = EngineerInput::parse(&document.to_string()).expect("can be read");
            prop_assert_eq!(serde_json::to_value(&input).expect("json"), document);
            let _ = DeployRequest::from_engineer(&input, None);
        }
    }
}
