//! MCP's own conformance suite and inspector, as npm gives them, with the Node that they need.

mod server_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use server_support::Serve;
use server_support::made::{made_once, run};

const NODE: &str = "22.23.3";
const SUITE: &str = "@modelcontextprotocol/conformance@0.1.16";
const INSPECTOR: &str = "@modelcontextprotocol/inspector@2.12.0";

/// The folder with both, and its Node.
fn suites() -> (PathBuf, PathBuf) {
    let arch = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "x64" };
    let package = format!("node-linux-{arch}");
    let bin = PathBuf::from("node_modules").join(&package).join("bin");
    let folder = made_once("mcp-0.1.16-2.12.0", |folder| {
        fs::write(folder.join("package.json"), r#"{"name": "suites", "private": true}"#).unwrap();
        let install = ["install", "--silent", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(install).arg(format!("{package}@{NODE}")).current_dir(folder));
        // By the new Node: under an older one npm would choose what that one can run.
        run(Command::new("npm")
            .args(install)
            .args([SUITE, INSPECTOR])
            .env("PATH", path(&folder.join(&bin)))
            .current_dir(folder));
    });
    let bin = folder.join(bin);
    (folder, bin)
}

fn path(first: &Path) -> String {
    format!("{}:{}", first.display(), std::env::var("PATH").unwrap())
}

fn script(name: &str, beside: &Path) -> Command {
    let (folder, bin) = suites();
    let mut command = Command::new(bin.join("node"));
    command.arg(folder.join("node_modules/.bin").join(name)).env("PATH", path(&bin));
    // Settings and results go beside the test's home, not into that of whoever runs it.
    command.env("HOME", beside).current_dir(beside);
    command
}

#[test]
fn the_conformance_suite() {
    let server = Serve::start();
    let beside = tempfile::tempdir().unwrap();
    let expected = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/mcp/expected-failures.yml");
    let mut suite = script("conformance", beside.path());
    suite.args(["server", "--suite", "all", "--url"]).arg(format!("{}/mcp", server.url));
    let said = run(suite.arg("--expected-failures").arg(expected));
    for scenario in [
        "server-initialize",
        "ping",
        "completion-complete",
        "tools-list",
        "server-sse-multiple-streams",
        "resources-list",
        "prompts-list",
        "dns-rebinding-protection",
    ] {
        assert!(said.contains(&format!("✓ {scenario}: ")), "{scenario}\n{said}");
    }
}

/// Asks the inspector; its exit code and what it printed.
fn inspect(target: &[&str], args: &[&str], beside: &Path) -> (Option<i32>, Value) {
    let mut inspector = script("mcp-inspector", beside);
    inspector.args(["--cli", "--format", "json"]).args(args);
    // A command stands behind two dashes, so that its flags are not taken for the inspector's.
    let Output { status, stdout, stderr } = match target {
        [url] => inspector.args(["--server-url", url]),
        command => inspector.arg("--").args(command),
    }
    .output()
    .unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{args:?}: {said}\n{complaints}"));
    (status.code(), value)
}

#[test]
fn the_inspector() {
    let server = Serve::start();
    let beside = tempfile::tempdir().unwrap();
    let home = beside.path().join("home");
    let url = format!("{}/mcp", server.url);
    let stdio = [env!("CARGO_BIN_EXE_tidegate"), "--home", home.to_str().unwrap(), "mcp"];
    let ways: [(&[&str], &str); 3] = [(&[&url], "legacy"), (&[&url], "modern"), (&stdio, "legacy")];
    for (target, era) in ways {
        let ask = |args: &[&str]| inspect(target, &[&["--protocol-era", era], args].concat(), beside.path());
        // Strict: no schema that a client could refuse.
        let (code, listed) = ask(&["--method", "tools/list", "--strict"]);
        let tools = listed["result"]["tools"].as_array().unwrap();
        assert_eq!((code, tools.len()), (Some(0), 7), "{era} {target:?}: {listed}");
        let (code, called) = ask(&["--method", "tools/call", "--tool-name", "list_releases", "--tool-arg", "limit=3"]);
        assert_eq!((code, &called["result"]["structuredContent"]["more"]), (Some(0), &Value::Bool(false)), "{called}");
        let (code, refused) =
            ask(&["--method", "tools/call", "--tool-name", "deploy_status", "--tool-arg", "thread_id=none"]);
        assert_eq!((code, &refused["result"]["isError"]), (Some(5), &Value::Bool(true)), "{refused}");
        let (code, read) = ask(&["--method", "resources/read", "--uri", "tidegate://schemas/output"]);
        assert_eq!((code, &read["result"]["contents"][0]["mimeType"]), (Some(0), &"application/json".into()), "{read}");
    }
}
