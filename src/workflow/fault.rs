//! Errors of a workflow with their path in the document, before they are shown with their place in a file.

use crate::graph::Failure;

/// A path in the document: keys, and positions in lists from 0.
pub(super) type Path = Vec<String>;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub path: Path,
    pub failure: Failure,
}

/// Collects faults, so that one look at a file mends all of them.
#[derive(Debug, Default)]
pub(super) struct Faults(pub Vec<Fault>);

impl Faults {
    pub fn push(&mut self, path: Path, failure: Failure) {
        self.0.push(Fault { path, failure });
    }

    /// Nothing, or all of them as one failure; `show` says how one of them is shown.
    pub fn into_result(self, workflow: &str, show: impl Fn(Fault) -> Failure) -> Result<(), Failure> {
        let mut shown: Vec<Failure> = self.0.into_iter().map(show).collect();
        if shown.len() < 2 {
            return shown.pop().map_or(Ok(()), Err);
        }
        let mut all = String::new();
        for failure in &shown {
            all.push_str(&format!("{}: {}\n", failure.code, failure.message));
            for line in failure.cause.iter().flat_map(|cause| cause.lines()) {
                all.push_str(&format!("  {line}\n"));
            }
            if let Some(hint) = &failure.hint {
                all.push_str(&format!("  -> {hint}\n"));
            }
        }
        let message = format!("workflow `{workflow}` has {} errors", shown.len());
        Err(Failure::new(&shown[0].code, message).because(all.trim_end()))
    }
}

/// `path` with more behind it.
pub(super) fn under<const N: usize>(path: &[String], more: [&str; N]) -> Path {
    path.iter().cloned().chain(more.map(str::to_owned)).collect()
}
