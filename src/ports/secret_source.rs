//! Where a secret stands: what a workflow file names instead of the secret itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One secret by reference: exactly one of `env` and `file`. Read where it is used, and written down nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// A variable in the environment of the process that runs the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file whose content it is, without the line break at its end. Relative: beside the workflow file, or below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Put before it, e.g. `'Bearer '`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

impl SecretSource {
    /// Why it names no secret, if it does not.
    pub fn fault(&self) -> Option<&'static str> {
        match (&self.env, &self.file) {
            (Some(name), None) if name.is_empty() || name.contains(['=', '\0']) => Some("`env` is no variable's name"),
            (None, Some(path)) if path.is_empty() || path.contains('\0') => Some("`file` is no path"),
            (Some(_), None) | (None, Some(_)) => None,
            (Some(_), Some(_)) | (None, None) => Some("a secret needs exactly one of `env` and `file`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_place_is_named() {
        let of = |env: Option<&str>, file: Option<&str>| {
            SecretSource { env: env.map(str::to_owned), file: file.map(str::to_owned), prefix: None }.fault().is_none()
        };
        assert!(of(Some("TOKEN"), None) && of(None, Some("token.txt")));
        assert!(!of(None, None) && !of(Some("A"), Some("b")) && !of(Some("A=B"), None) && !of(None, Some("")));
    }
}
