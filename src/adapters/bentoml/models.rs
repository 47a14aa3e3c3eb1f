//! The user's model store, read as files: starting Python to ask takes a second.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The BentoML home that the user's own `bentoml` commands use.
pub(super) fn user_home() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("BENTOML_HOME").or_else(|| set("HOME").map(|home| home.join("bentoml")))
}

/// A model as its tag names it: `name`, `name:latest` or `name:version`.
pub(super) fn split_tag(tag: &str) -> (&str, &str) {
    tag.split_once(':').unwrap_or((tag, "latest"))
}

/// The folder of `tag` in `store` (the `models` folder of a BentoML home), if the model is there.
pub(super) fn find(store: &Path, tag: &str) -> Option<PathBuf> {
    let (name, version) = split_tag(tag);
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('/');
    let version = match version {
        "latest" => fs::read_to_string(store.join(name).join("latest")).ok()?.trim().to_owned(),
        exact => exact.to_owned(),
    };
    let folder = store.join(name).join(&version);
    (plain(name) && plain(&version) && folder.join("model.yaml").is_file()).then_some(folder)
}

/// The tags that are not in `store`.
pub(super) fn missing(store: &Path, tags: &[String]) -> Vec<String> {
    tags.iter().filter(|tag| find(store, tag).is_none()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_version_and_as_latest() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("iris/v1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(store.path().join("iris/latest"), "v1\n").unwrap();
        assert_eq!(find(store.path(), "iris:v1"), None, "a folder without model.yaml is half a model");
        fs::write(folder.join("model.yaml"), "").unwrap();
        for tag in ["iris", "iris:latest", "iris:v1"] {
            assert_eq!(find(store.path(), tag).as_deref(), Some(folder.as_path()), "{tag}");
        }
        let asked = ["iris:v2", "iris:..", "iris:v1", "other"].map(str::to_owned);
        assert_eq!(missing(store.path(), &asked), ["iris:v2", "iris:..", "other"]);
    }
}
