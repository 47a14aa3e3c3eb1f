//! What the daemon knows of its slots' secrets: in memory only, and enough to keep what is read of their logs clean of them.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::env::{self, EnvFile};
use super::log_path;
use crate::ports::{Secrets, SlotRequest};

/// All values that stood in the environment files of the slots, as far as this daemon has seen them. By token.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    slots: Mutex<HashMap<String, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    secrets: Secrets,
    /// Whether it is all that the slot's processes were ever given: then their log can be shown.
    whole: bool,
}

impl Memory {
    /// Keeps what a slot's process is about to be given, or what is found in its file. To be called before the process starts.
    pub(crate) fn note(&self, request: &SlotRequest, file: &EnvFile) {
        // The log begins with the first process. Nobody but us has started any since we first looked; before, the file told the same
        // to all of them only if it has not changed since.
        let whole = is_older_than_log(file.changed, &log_path(request));
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slots.entry(request.token.clone()).or_default();
        known.secrets.join(Secrets::new(file.vars.clone()));
        known.whole |= whole;
    }

    /// Looks into a slot's file, where it can be read. Blocks.
    pub(crate) fn recall(&self, request: &SlotRequest) {
        if let Some(Ok(file)) = request.env_file.as_deref().map(env::read_file) {
            self.note(request, &file);
        }
    }

    /// All that was ever seen in this file, for the slots that there are.
    pub(crate) fn of_file<'a>(&self, env_file: &Path, requests: impl Iterator<Item = &'a SlotRequest>) -> Secrets {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Secrets::default();
        let same = requests.filter(|request| request.env_file.as_deref() == Some(env_file));
        same.filter_map(|request| slots.get(&request.token)).for_each(|known| all.join(known.secrets.clone()));
        all
    }

    /// The slot is gone.
    pub(crate) fn forget(&self, token: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// Lines of a slot's log with every value of its file replaced by its name: what a service prints of its secrets must not travel
    /// into answers, states and exports. Where the values are not all known, no line is shown. Blocks.
    pub(crate) fn cleaned(&self, request: &SlotRequest, mut lines: Vec<String>) -> Vec<String> {
        let Some(env_file) = &request.env_file else { return lines };
        // It may have been written anew meanwhile; then both its old and its new values may stand in the log.
        self.recall(request);
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.get(&request.token).filter(|known| known.whole) {
            Some(known) => lines.iter_mut().for_each(|line| known.secrets.clean(line)),
            None if lines.is_empty() => {}
            None => lines = vec![withheld(env_file, &log_path(request))],
        }
        lines
    }
}

fn withheld(env_file: &Path, log: &Path) -> String {
    let (env_file, log) = (env_file.display(), log.display());
    format!(
        "(withheld: {env_file} is gone or has changed, so its earlier values cannot be taken out; the log is {log})"
    )
}

/// Where it cannot be known, it is not.
fn is_older_than_log(changed: SystemTime, log: &Path) -> bool {
    match std::fs::metadata(log).and_then(|meta| meta.created()) {
        Ok(begun) => changed <= begun,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}
