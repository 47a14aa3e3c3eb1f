//! The built-in workflows, embedded in the binary; a file of the same name in the home's `workflows/` replaces one.

use std::path::Path;

use crate::graph::Failure;

/// The workflow that releases a model.
pub const MODEL_DEPLOYER: &str = "model_deployer";
/// The workflow that goes back.
pub const ROLLBACK: &str = "rollback";

const EMBEDDED: [(&str, &str); 8] = [
    ("rolling.yaml", include_str!("../../workflows/rolling.yaml")),
    ("ab_test.yaml", include_str!("../../workflows/ab_test.yaml")),
    ("shadow.yaml", include_str!("../../workflows/shadow.yaml")),
    ("recreate.yaml", include_str!("../../workflows/recreate.yaml")),
    ("canary.yaml", include_str!("../../workflows/canary.yaml")),
    ("model_deployer.yaml", include_str!("../../workflows/model_deployer.yaml")),
    ("blue_green.yaml", include_str!("../../workflows/blue_green.yaml")),
    ("rollback.yaml", include_str!("../../workflows/rollback.yaml")),
];

/// The names of the built-in workflows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| name.trim_end_matches(".yaml"))
}

/// The text of `file`: the home's own, else the embedded one.
pub(super) fn text(overrides: &Path, file: &str) -> Result<String, Failure> {
    if file.contains('/') || file.contains("..") {
        return Err(Failure::new("workflow_unknown", format!("`{file}` is no name of a built-in workflow file")));
    }
    let own = overrides.join(file);
    match std::fs::read_to_string(&own) {
        Ok(text) => return Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(
                Failure::new("workflow_unreadable", format!("{} cannot be read", own.display())).because(e.to_string())
            );
        }
    }
    let found = EMBEDDED.iter().find(|(name, _)| *name == file);
    found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| {
        let known: Vec<&str> = names().collect();
        Failure::new("workflow_unknown", format!("there is no workflow `{file}`"))
            .hint(format!("name a file, or one of: {}", known.join(", ")))
    })
}
