//! An export replays on another home, with nothing but itself; a changed one says where it leaves the record.

mod release_support;

use std::path::Path;

use release_support::{Home, Ran, Running};
use serde_json::{Value, json};

/// Replays a file in a home without Python, network or model store.
fn replay(home: &Home, file: &Path) -> Ran {
    let mut command = home.command(&["run", "replay", file.to_str().unwrap(), "--json"]);
    command.env_clear().env("TIDEGATE_HOME", home.path()).env("PATH", home.beside("empty"));
    Running::start(command).end()
}

fn written(home: &Home, name: &str, export: &Value) -> std::path::PathBuf {
    let path = home.beside(name);
    std::fs::write(&path, export.to_string()).unwrap();
    path
}

/// The first place in the journal with a name in a node.
fn entry<'a>(export: &'a mut Value, node: &str, name: &str) -> &'a mut Value {
    let journal = export["journal"].as_array_mut().unwrap();
    journal.iter_mut().find(|e| e["key"]["node"] == node && e["key"]["name"] == name).unwrap()
}

fn exports() -> Vec<(&'static str, Value)> {
    let home = Home::new();
    home.deploy(&home.hello("one").bake("0s"));
    let first = home.json(&["run", "export", "hello"]);
    home.deploy(&home.hello("two").bake("0s"));
    let second = home.json(&["run", "export", "hello"]);
    home.run(&["deploy", home.project("wrong_answers").arg(), "--yes", "--json"]);
    let failed = home.json(&["run", "export", "hello"]);
    home.json(&["rollback", "hello"]);
    let back = home.json(&["run", "export", "hello"]);
    let waits = home.run(&["deploy", home.hello("three").arg(), "--json"]).thread();
    let open = home.json(&["run", "export", &waits]);
    vec![("first", first), ("second", second), ("failed", failed), ("rollback", back), ("open", open)]
}

#[test]
fn exports_replay_elsewhere_and_changed_ones_name_the_first_difference() {
    let exports = exports();
    let other = Home::bare();
    for (name, export) in &exports {
        let ran = replay(&other, &written(&other, &format!("{name}.json"), export));
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
        let said = ran.json();
        assert_eq!((&said["replayed"], &said["status"]), (&json!(true), &export["thread"]["status"]), "{name}");
        assert_eq!(said["checkpoints"], export["checkpoints"].as_array().unwrap().len(), "{name}");
    }
    assert!(
        other.processes().is_empty()
            && other.names("slots").is_empty()
            && !other.path().join("host/state.json").exists()
    );

    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut export = exports[1].1.clone();
        change(&mut export);
        let ran = replay(&other, &written(&other, "changed.json", &export));
        assert_eq!((ran.code, ran.error_code().as_str()), (Some(1), "replay_diverged"), "{name}: {ran:?}");
        let error = ran.error();
        format!("{}\n{}", error["message"].as_str().unwrap(), error["cause"].as_str().unwrap())
    };
    // A node that asks for something else than the record has.
    let said = changed("effect", &|e| entry(e, "traffic_shift", "switch")["input"]["live"] = json!("another"));
    assert!(said.contains("traffic_shift") && said.contains("switch") && said.contains("another"), "{said}");
    // A node that came to another result.
    let said = changed("state", &|e| {
        let of = |c: &&mut Value| c["ns"] == "" && !c["values"]["validated"].is_null();
        let checkpoint = e["checkpoints"].as_array_mut().unwrap().iter_mut().find(of).unwrap();
        checkpoint["values"]["validated"]["checks"][0]["passed"] = json!(false);
    });
    assert!(said.contains("superstep") && said.contains("validated"), "{said}");
    // A node that asks something else.
    let said = changed("question", &|e| e["interrupts"][0]["value"]["version"] = json!("v0"));
    assert!(said.contains("approval_gate"), "{said}");
    // A node of another version, and another workflow.
    let said = changed("version", &|e| {
        e["thread"]["node_versions"]["validation"] = json!(2);
        e["thread"]["fingerprint"] = json!("another");
    });
    assert!(said.contains("`validation`: recorded with version 2"), "{said}");
    let said = changed("workflow", &|e| {
        let text = e["thread"]["document"].to_string();
        let skips = text.replace("\"from\":\"finalise\",\"to\":\"retire\"", "\"from\":\"finalise\",\"to\":\"END\"");
        assert_ne!(text, skips, "{text}");
        e["thread"]["document"] = serde_json::from_str(&skips).unwrap();
    });
    assert!(!said.is_empty());
    // What a node wrote, the chain of checkpoints, a question's digest.
    let checkpoint = |e: &mut Value, key: &str, value: Value| e["checkpoints"][6][key] = value;
    changed("written", &|e| checkpoint(e, "written", json!({"plan": 1})));
    changed("visits", &|e| checkpoint(e, "visits", json!({"packager": 7})));
    changed("parent", &|e| checkpoint(e, "parent", json!("another")));
    changed("digest", &|e| e["interrupts"][0]["digest"] = json!("sha256:0"));
    changed("versions", &|e| e["thread"]["node_versions"]["packager"] = json!(7));

    // The workflow as it is today goes the same way; one without a validation does not.
    let file = written(&other, "second.json", &exports[1].1);
    let today = other.run(&["run", "replay", file.to_str().unwrap(), "--workflow", "model_deployer", "--json"]);
    assert_eq!(today.code, Some(0), "{today:?}");
    let folder = other.path().join("workflows");
    std::fs::create_dir(&folder).unwrap();
    let text = include_str!("../workflows/model_deployer.yaml");
    let skips =
        text.replace("from: deployment_executor, to: validation", "from: deployment_executor, to: approval_gate");
    assert_ne!(text, skips);
    std::fs::write(folder.join("model_deployer.yaml"), skips).unwrap();
    let changed = other.run(&["run", "replay", file.to_str().unwrap(), "--workflow", "model_deployer", "--json"]);
    assert_eq!((changed.code, changed.error_code().as_str()), (Some(1), "replay_diverged"), "{changed:?}");
    assert!(changed.error()["cause"].as_str().unwrap().contains("approval_gate"), "{changed:?}");
}
