//! The service's secrets stay in their file: not in state, logs, exports, answers or the package, whatever the service does with them.

mod release_support;

use std::fs;
use std::path::Path;

use release_support::{Home, version};

const SECRET: &str = "hunter2-sekrit-xyz";

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
    for said in [&ended, &export] {
        assert!(!format!("{said:?}").contains(SECRET));
    }
    let mut found = Vec::new();
    holders(home.path(), &mut found);
    // The running slot's own log is the service's own word, beside its process; nothing of ours holds it.
    found.retain(|path| !path.ends_with("slot.log"));
    assert_eq!(found, Vec::<String>::new());
}
