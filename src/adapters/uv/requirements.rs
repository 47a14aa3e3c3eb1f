//! Which packages exactly: the lock's text, normalised, and its digest.

use sha2::{Digest, Sha256};

use crate::ports::PortError;

/// Changes when the way environments are made changes, so that old ones are not taken for new ones.
const ENV_FORMAT: &str = "tidegate-env-1";

/// The requirements without comments, blank lines and order: two locks that install the same are the same.
pub(super) fn normalise(text: &str) -> String {
    let mut lines: Vec<String> = joined_lines(text).iter().map(|line| strip_comment(line)).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines.dedup();
    lines.join("\n")
}

/// Lines continued with a backslash (hashes are written so) are one line.
fn joined_lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    joined.lines().map(str::to_owned).collect()
}

/// A `#` begins a comment at the line's start or after white space; elsewhere it is part of a URL.
fn strip_comment(line: &str) -> String {
    let end = line
        .char_indices()
        .find(|&(at, c)| c == '#' && (at == 0 || line[..at].ends_with(char::is_whitespace)))
        .map_or(line.len(), |(at, _)| at);
    line[..end].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether every requirement names one version, so that installing it twice installs the same.
pub(super) fn is_locked(normalised: &str) -> bool {
    normalised.lines().filter(|line| !line.starts_with('-')).all(|line| {
        let requirement = line.split(';').next().unwrap_or(line);
        requirement.contains("==") || requirement.contains(" @ ")
    })
}

/// What cannot be told from the text of the file alone, and so cannot be cached by its digest.
pub(super) fn refuse_indirect(normalised: &str) -> Result<(), PortError> {
    let indirect = |line: &&str| {
        ["-r", "-c", "-e", "--requirement", "--constraint", "--editable", "./", "../", "/", "file:"]
            .iter()
            .any(|start| line.starts_with(start))
            || line.contains("@ file:")
    };
    match normalised.lines().find(indirect) {
        None => Ok(()),
        Some(line) => Err(PortError::new(
            "requirements_unsupported",
            format!("the requirement `{line}` points at another file"),
        )
        .because("an environment is shared by the digest of its requirements, which must therefore all be in one file")
        .hint("write one locked file with `uv pip compile requirements.txt -o requirements.lock`")),
    }
}

/// Hex of the SHA-256 of `text`.
pub(super) fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digest of an environment: what is installed, for which Python.
pub(super) fn env_digest(normalised: &str, python_version: &str) -> String {
    format!("sha256:{}", hex(&format!("{ENV_FORMAT}\n{python_version}\n{normalised}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_order_and_spaces_do_not_matter() {
        let one = "# made by uv\nb==2   # via a\n\na==1 ; python_version < '3.11'\n";
        let two = "a==1  ; python_version < '3.11'\r\nb==2\n";
        assert_eq!(normalise(one), normalise(two));
        assert_eq!(
            normalise("a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"),
            "a==1 --hash=sha256:00 --hash=sha256:11"
        );
        assert_eq!(normalise("a @ https://x/y#egg=a"), "a @ https://x/y#egg=a");
    }

    #[test]
    fn the_python_and_every_version_matter() {
        assert_ne!(env_digest("a==1", "3.11.7"), env_digest("a==1", "3.12.0"));
        assert_ne!(env_digest("a==1", "3.11.7"), env_digest("a==2", "3.11.7"));
    }

    #[test]
    fn locked_and_open_requirements_are_told_apart() {
        assert!(is_locked("a==1\nb==2 ; python_version < '3'\nc @ https://x/c.whl\n--no-binary b"));
        assert!(!is_locked("a==1\nb>=2"));
        assert!(!is_locked("a ; python_version == '3.11'"));
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["-r more.txt", "-e .", "./wheels/x.whl", "x @ file:///y"] {
            assert_eq!(refuse_indirect(text).unwrap_err().code, "requirements_unsupported", "{text}");
        }
        assert!(refuse_indirect("a==1").is_ok());
    }
}
