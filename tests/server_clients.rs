//! The clients that people have, as their registries give them: the Python SDK, `RemoteGraph`, the JavaScript SDK.

mod server_support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use server_support::Serve;
use server_support::made::{made_once, run};

const PYTHON: [&str; 2] = ["langgraph-sdk==0.4.14", "langgraph==1.2.22"];
const JAVASCRIPT: &str = "@langchain/langgraph-sdk@2.0.0";

fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/clients")
}

/// A Python with the clients.
fn python() -> PathBuf {
    let folder = made_once("python-0.4.14-1.2.22", |folder| {
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder));
        run(Command::new(folder.join("venv/bin/pip")).args(["install", "-q"]).args(PYTHON));
    });
    folder.join("venv/bin/python")
}

fn ran_well(script: &str) {
    let server = Serve::start();
    run(Command::new(python()).arg(scripts().join(script)).arg(&server.url));
}

#[test]
fn the_python_sdk() {
    ran_well("sdk.py");
}

#[test]
fn remote_graph_by_itself_and_as_a_node() {
    ran_well("remote_graph.py");
}

#[test]
fn the_javascript_sdk() {
    let folder = made_once("javascript-2.0.0", |folder| {
        fs::write(folder.join("package.json"), r#"{"name": "clients", "private": true}"#).unwrap();
        run(Command::new("npm").args(["install", "--silent", JAVASCRIPT]).current_dir(folder));
    });
    let server = Serve::start();
    // Node looks for packages beside the script.
    fs::copy(scripts().join("sdk.mjs"), folder.join("sdk.mjs")).unwrap();
    run(Command::new("node").arg(folder.join("sdk.mjs")).arg(&server.url));
}
