//! What tests get from the registries: made once for all runs of the tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program that must end well; what it said.
pub fn run(command: &mut Command) -> String {
    let ended = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{command:?}\n{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    said
}

/// A folder that all runs of the tests share, made once: whoever comes second waits.
pub fn made_once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tidegate-test-clients").join(name);
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("made").exists() {
        make(&folder);
        fs::write(folder.join("made"), "").unwrap();
    }
    folder
}
