//! What a request for a slot must be, before anything is done for it.

use std::path::{Component, Path, PathBuf};

use crate::host::HostError;
use crate::host::config::HostPaths;
use crate::host::identity::{HOME_ENV, TOKEN_ENV};
use crate::host::routes::check_model;
use crate::host::state::HostState;
use crate::ports::SlotRequest;

/// Refuses what can never work, or would reach outside of the home.
pub(crate) fn check(request: &SlotRequest, state: &HostState, paths: &HostPaths) -> Result<(), HostError> {
    check_token(&request.token)?;
    check_model(&request.model)?;
    if request.argv.first().is_none_or(String::is_empty) {
        return Err(HostError::invalid("argv names no program", "give the program and its arguments"));
    }
    if !request.ready_path.starts_with('/') || request.ready_path.parse::<hyper::Uri>().is_err() {
        return Err(HostError::invalid("ready_path is not a path", "give a path like /readyz"));
    }
    if !request.cwd.is_absolute() || request.env_file.as_ref().is_some_and(|file| !file.is_absolute()) {
        return Err(HostError::invalid("cwd or env_file is not absolute", "give absolute paths"));
    }
    let bad_name =
        |name: &String| name.is_empty() || name.contains(['=', '\0']) || name == TOKEN_ENV || name == HOME_ENV;
    let bad_value = |value: &String| value.contains('\0');
    if request.env.keys().any(bad_name) || request.env.values().chain(&request.argv).any(bad_value) {
        return Err(HostError::invalid("env or argv has a name or value that no process can have", "correct it"));
    }
    check_slot_dir(request, state, paths)
}

fn check_token(token: &str) -> Result<(), HostError> {
    let fine = (1..=64).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fine { Ok(()) } else { Err(HostError::invalid("the token is malformed", "tokens are [a-z0-9-]{1,64}")) }
}

/// The folder will be removed with everything in it: it must be inside the home and nobody else's.
fn check_slot_dir(request: &SlotRequest, state: &HostState, paths: &HostPaths) -> Result<(), HostError> {
    let dir = &request.slot_dir;
    let refuse = |why: &str| {
        let message = format!("slot_dir {} {why}", dir.display());
        Err(HostError::invalid(message, "use a folder of its own under the home, e.g. HOME/slots/TOKEN"))
    };
    let Some(resolved) = resolve(dir) else { return refuse("is not an absolute path without `..`") };
    if resolved == paths.home || !resolved.starts_with(&paths.home) {
        return refuse("is not inside the home");
    }
    if resolved.starts_with(&paths.dir) {
        return refuse("is the host daemon's own");
    }
    let others = state.slots.values().filter(|slot| slot.request.token != request.token);
    for other in others.filter_map(|slot| resolve(&slot.request.slot_dir)) {
        if other.starts_with(&resolved) || resolved.starts_with(&other) {
            return refuse("overlaps with another slot's");
        }
    }
    Ok(())
}

/// The path with its existing part made canonical (symbolic links resolved).
fn resolve(path: &Path) -> Option<PathBuf> {
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) {
        return None;
    }
    let existing = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(existing).ok()?;
    Some(existing.canonicalize().ok()?.join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostConfig;

    fn request(slot_dir: PathBuf) -> SlotRequest {
        SlotRequest {
            token: "t-1".to_owned(),
            model: "iris".to_owned(),
            version: "v1".to_owned(),
            argv: vec!["true".to_owned()],
            cwd: PathBuf::from("/"),
            slot_dir,
            env: Default::default(),
            env_file: None,
            ready_path: "/readyz".to_owned(),
        }
    }

    #[test]
    fn a_slot_dir_must_be_inside_the_home_and_alone() {
        let root = tempfile::tempdir().unwrap();
        let paths = HostConfig::new(root.path().join("home")).unwrap().paths().unwrap();
        let outside = root.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, paths.home.join("link")).unwrap();
        let mut state = HostState::default();
        let refused = |dir: PathBuf, state: &HostState| check(&request(dir), state, &paths).is_err();

        assert!(!refused(paths.home.join("slots/t-1"), &state));
        for bad in ["", "slots/../..", "host", "host/x", "link/x", "link"] {
            assert!(refused(paths.home.join(bad), &state), "{bad:?}");
        }
        assert!(refused(outside, &state) && refused(PathBuf::from("slots"), &state));

        let other = SlotRequest { token: "t-2".to_owned(), ..request(paths.home.join("slots/t-2")) };
        state.slots.insert("t-2".to_owned(), crate::host::state::SlotRecord::intent(other, 1));
        for bad in ["slots", "slots/t-2", "slots/t-2/inner"] {
            assert!(refused(paths.home.join(bad), &state), "{bad:?}");
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let paths = HostConfig::new(root.path()).unwrap().paths().unwrap();
        let good = request(paths.home.join("slots/a"));
        let state = HostState::default();
        assert!(check(&good, &state, &paths).is_ok());
        let bad = [
            SlotRequest { token: "Upper".to_owned(), ..good.clone() },
            SlotRequest { token: String::new(), ..good.clone() },
            SlotRequest { token: "a".repeat(65), ..good.clone() },
            SlotRequest { model: "-".to_owned(), ..good.clone() },
            SlotRequest { model: "a/b".to_owned(), ..good.clone() },
            SlotRequest { argv: vec![], ..good.clone() },
            SlotRequest { ready_path: "readyz".to_owned(), ..good.clone() },
            SlotRequest { cwd: PathBuf::from("relative"), ..good.clone() },
            SlotRequest { env: [("A=B".to_owned(), String::new())].into(), ..good.clone() },
            SlotRequest { env: [(TOKEN_ENV.to_owned(), String::new())].into(), ..good },
        ];
        for request in bad {
            assert_eq!(check(&request, &state, &paths).unwrap_err().code(), "invalid_host_request", "{request:?}");
        }
    }
}
