//! The service's secrets stay in their file: not in state, logs, exports, answers or the package, whatever the service does with them.

mod release_support;

use std::fs;
use std::path::Path;

use release_support::{Home, Project, version};

const SECRET: &str = "hunter2-sekrit-xyz";

/// A service that does something to its own file of variables before it fails with what stood in it.
fn fails_after(home: &Home, version: &str, its_file: &str) -> Project {
    let project = home.hello(version).with("env_file: s.env");
    let file = project.path.join("s.env");
    fs::write(&file, format!("MY_SECRET={SECRET}\n")).unwrap();
    let fails = format!(
        "    def __init__(self) -> None:\n        import os\n        import pathlib\n\n        file = pathlib.Path({:?})\n        \
         {its_file}\n        raise RuntimeError(\"cannot log in with \" + os.environ[\"MY_SECRET\"])\n\n    @bentoml.api\n",
        file.to_str().unwrap()
    );
    project.change("service.py", "    @bentoml.api\n", &fails)
}

/// Every file below `dir` that holds the secret.
fn holders(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holders(&path, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn a_secret_never_leaves_its_file() {
    let home = Home::new();
    let good = home.hello("one").bake("0s").with("env_file: s.env");
    fs::write(good.path.join("s.env"), format!("MY_SECRET={SECRET}\n")).unwrap();
    let output = home.deploy(&good);
    assert_eq!(version(&output), "one");

    let tells = "    @bentoml.api\n";
    let raises = "    def __init__(self) -> None:\n        import os\n\n        raise RuntimeError(\"cannot log in with \" + \
                  os.environ[\"MY_SECRET\"])\n\n    @bentoml.api\n";
    let bad = home.hello("two").with("env_file: s.env").change("service.py", tells, raises);
    fs::write(bad.path.join("s.env"), format!("MY_SECRET={SECRET}\n")).unwrap();
    let ended = home.run(&["deploy", bad.arg(), "--yes", "--json"]);
    assert_eq!((ended.code, ended.error_code().as_str()), (Some(1), "service_start_failed"), "{ended:?}");
    assert!(ended.error()["cause"].as_str().unwrap().contains("cannot log in with [MY_SECRET]"), "{ended:?}");

    let export = home.ok(&["run", "export", "hello"]);

    // One that says it to whoever asks: in a wrong answer, and in one that differs from the live version's.
    let echoes = |version: &str| {
        let project = home.hello(version).bake("0s").with("env_file: s.env");
        fs::write(project.path.join("s.env"), format!("MY_SECRET={SECRET}\n")).unwrap();
        let import = "import os\n\nimport bentoml\n";
        let greeting = "{\"password\": os.environ[\"MY_SECRET\"]}[\"password\"] * 30 + name";
        project.change("service.py", "import bentoml\n", import).change("service.py", "f\"hello {name}\"", greeting)
    };
    let wrong = home.run(&["deploy", echoes("three").arg(), "--yes", "--json"]);
    assert_eq!((wrong.code, wrong.error_code().as_str()), (Some(1), "validation_failed"), "{wrong:?}");
    assert!(wrong.error()["cause"].as_str().unwrap().contains("[MY_SECRET][MY_SECRET]"), "{wrong:?}");
    let expect = ", expect: { greeting: hello tide, version: four }";
    home.deploy(&echoes("four").change("tidegate.yaml", expect, ""));
    let differs = home.ok(&["run", "export", "hello"]);
    let cases = &differs.json()["checkpoints"];
    assert!(cases.to_string().contains("\"got\":\"[MY_SECRET][MY_SECRET]"), "{cases}");

    for said in [&ended, &export, &wrong, &differs] {
        assert!(!format!("{said:?}").contains(SECRET));
    }
    let mut found = Vec::new();
    holders(home.path(), &mut found);
    // The running slot's own log is the service's own word, beside its process; nothing of ours holds it.
    found.retain(|path| !path.ends_with("slot.log"));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_secret_whose_file_is_gone_or_says_something_else_is_one_still() {
    let home = Home::new();
    for (version, its_file) in [
        ("one", "file.unlink(missing_ok=True)"),
        ("two", "file.write_text('MY_SECRET=another-value\\n')"),
        ("three", "file.write_text('no variables at all')"),
    ] {
        let ended = home.run(&["deploy", fails_after(&home, version, its_file).arg(), "--yes", "--json"]);
        assert_eq!((ended.code, ended.error_code().as_str()), (Some(1), "service_start_failed"), "{ended:?}");
        assert!(ended.error()["cause"].as_str().unwrap().contains("cannot log in with [MY_SECRET]"), "{ended:?}");
        let told = [ended, home.ok(&["run", "export", "hello"]), home.ok(&["run", "events", "hello", "--json"])];
        assert!(!format!("{told:?}").contains(SECRET), "{told:?}");
    }
    // It serves, with what its file said when it was started. While it is built it has no variables.
    let project = home.hello("four").bake("0s").with("env_file: s.env");
    let file = project.path.join("s.env");
    fs::write(&file, format!("MY_SECRET={SECRET}\n")).unwrap();
    let rewrites = format!(
        "import os\nimport pathlib\n\nif \"MY_SECRET\" in os.environ:\n    pathlib.Path({:?}).write_text('MY_SECRET=another-value\\n')\n\nimport bentoml\n",
        file.to_str().unwrap()
    );
    let greeting = "{\"password\": os.environ[\"MY_SECRET\"]}[\"password\"] + name";
    let project =
        project.change("service.py", "import bentoml\n", &rewrites).change("service.py", "f\"hello {name}\"", greeting);
    let wrong = home.run(&["deploy", project.arg(), "--yes", "--json"]);
    assert_eq!((wrong.code, wrong.error_code().as_str()), (Some(1), "validation_failed"), "{wrong:?}");
    assert!(fs::read_to_string(&file).unwrap().contains("another-value"));
    assert!(wrong.error()["cause"].as_str().unwrap().contains("[MY_SECRET]tide"), "{wrong:?}");
    let export = home.ok(&["run", "export", "hello"]);
    assert!(!format!("{wrong:?}{export:?}").contains(SECRET));

    home.ok(&["down"]);
    let mut found = Vec::new();
    holders(home.path(), &mut found);
    assert_eq!(found, Vec::<String>::new());
}
