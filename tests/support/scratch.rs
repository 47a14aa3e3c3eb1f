//! The folders for temporary files of a home's slots, which lie beside everybody's: their daemon cannot remove them once it was killed.

use std::path::Path;

use sha2::{Digest, Sha256};

/// Removes those of the slots that are on record.
pub fn remove_scratch(home: &Path) {
    let Ok(text) = std::fs::read_to_string(home.join("host/state.json")) else { return };
    let state: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    for token in state["slots"].as_object().into_iter().flat_map(|slots| slots.keys()) {
        let mut hash = Sha256::new();
        for part in [home.as_os_str().as_encoded_bytes(), token.as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("tidegate-{digest}")));
    }
}
