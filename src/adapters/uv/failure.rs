//! What uv's last lines mean.

use super::super::process::Finished;
use crate::ports::PortError;

/// Lines of uv's output worth showing: its resolver explains itself in about this many.
const SHOWN_LINES: usize = 14;

/// Signs that stand beside "no matching distribution" where only the network is missing: uv's, and pip's.
const SURELY_NETWORK: [&str; 5] =
    ["dns error", "error sending request", "failed to establish a new connection", "proxyerror", "newconnectionerror"];
const NETWORK: [&str; 9] = [
    "failed to establish a new connection",
    "error sending request",
    "failed to fetch",
    "dns error",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "temporary failure in name resolution",
    "operation timed out",
];
const CERTIFICATE: [&str; 3] = ["invalid peer certificate", "unknownissuer", "certificate verify failed"];
const UNSATISFIABLE: [&str; 4] = [
    "no solution found",
    "requirements are unsatisfiable",
    "was not found in the package registry",
    "no matching distribution",
];

/// The error for a command that did not end well; `doing` completes "cannot …".
pub(super) fn explain(doing: &str, ended: &Finished) -> PortError {
    let said = ended.tail.join("\n").to_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    let error = if has(&CERTIFICATE) {
        PortError::new("network_unavailable", format!("cannot {doing}: the package index's certificate is not trusted"))
            .hint("behind a proxy that opens TLS, set SSL_CERT_FILE to its certificate (or UV_NATIVE_TLS=1) and try again")
    } else if has(&UNSATISFIABLE) && !has(&SURELY_NETWORK) {
        PortError::new(
            "requirements_unsatisfiable",
            format!("cannot {doing}: no set of packages satisfies the requirements"),
        )
        .hint("change the requirement named above, or the Python version, then lock again")
    } else if has(&NETWORK) {
        PortError::new("network_unavailable", format!("cannot {doing}: the package index cannot be reached"))
            .hint("check the network (and HTTPS_PROXY, UV_INDEX_URL if you use them), then release again")
            .retryable()
    } else if has(&["no space left on device", "disk quota exceeded"]) {
        PortError::new("disk_full", format!("cannot {doing}: the disk is full"))
            .hint("free some space (`uv cache prune` helps), then release again")
            .retryable()
    } else if ended.timed_out {
        PortError::new("env_build_failed", format!("cannot {doing} in the time allowed")).retryable()
    } else {
        PortError::new("env_build_failed", format!("cannot {doing} ({})", ended.words()))
    };
    error.because(ended.last_lines(SHOWN_LINES))
}

/// No interpreter.
pub(super) fn python_missing() -> PortError {
    PortError::new("python_missing", "there is no `python3` on PATH")
        .because("Tidegate runs BentoML in a Python environment of its own and needs an interpreter to make it with")
        .hint("install Python 3.10 or newer with its venv module, e.g. `apt install python3 python3-venv` or `brew install python`")
}

/// A Python without its venv module, as Debian ships it.
pub(super) fn venv_missing(ended: &Finished) -> PortError {
    PortError::new("python_venv_missing", "`python3` cannot make virtual environments")
        .because(ended.last_lines(SHOWN_LINES))
        .hint("install the venv module, e.g. `apt install python3-venv`, or put `uv` on PATH")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> PortError {
        let tail = text.lines().map(str::to_owned).collect();
        explain("install", &Finished { code: Some(2), signal: None, timed_out: false, tail })
    }

    #[test]
    fn uvs_words_become_codes() {
        let down =
            said("error: Failed to fetch: `https://x/simple/a/`\n  Caused by: dns error: failed to lookup address");
        assert_eq!((down.code.as_str(), down.retryable), ("network_unavailable", true));
        let unsolvable = said("  × No solution found when resolving dependencies:\n  ╰─▶ Because a was not found");
        assert_eq!((unsolvable.code.as_str(), unsolvable.retryable), ("requirements_unsatisfiable", false));
        assert!(unsolvable.cause.unwrap().contains("Because a was not found"));
        assert_eq!(said("invalid peer certificate: UnknownIssuer\nerror sending request").code, "network_unavailable");
        let pip = "WARNING: Retrying after connection broken by 'ProxyError(NewConnectionError('Connection refused'))'\n\
            ERROR: Could not find a version that satisfies the requirement uv\nERROR: No matching distribution found for uv";
        assert_eq!(said(pip).code, "network_unavailable");
        assert_eq!(said("error: No space left on device (os error 28)").code, "disk_full");
        assert_eq!(said("thread panicked").code, "env_build_failed");
    }
}
