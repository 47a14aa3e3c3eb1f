//! The local model registry: `registry/<model>/<version>.json` for every version, and `current/<model>`, a link to the release that is
//! live, for people and tools outside Tidegate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::files::{self, Lock, io_error};
use crate::ports::{ModelRegistry, PortError, Quiet, RegisteredModel};

/// Registers versions in files.
#[derive(Debug, Clone)]
pub struct LocalRegistry {
    home: PathBuf,
}

/// What a version's file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    format: u32,
    model: RegisteredModel,
}

impl LocalRegistry {
    /// Versions live in `home/registry`, links in `home/current`.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    fn card(&self, name: &str, version: &str) -> Result<PathBuf, PortError> {
        check(name)?;
        check(version)?;
        Ok(self.home.join("registry").join(name).join(format!("{version}.json")))
    }

    fn link(&self, name: &str) -> Result<PathBuf, PortError> {
        check(name)?;
        Ok(self.home.join("current").join(name))
    }

    fn read(&self, name: &str, version: &str) -> Result<Option<RegisteredModel>, PortError> {
        let path = self.card(name, version)?;
        let card: Option<Card> = files::read_json(&path).map_err(|error| io_error("read", &path, &error))?;
        Ok(card.map(|card| card.model))
    }

    /// The registered version whose release lies in `target`.
    fn version_of(&self, name: &str, target: &Path) -> Option<String> {
        let entries = fs::read_dir(self.home.join("registry").join(name)).ok()?;
        let cards = entries.flatten().filter_map(|entry| files::read_json::<Card>(&entry.path()).ok().flatten());
        cards.map(|card| card.model).find(|model| model.package.release_dir == target).map(|model| model.model_version)
    }

    async fn lock(&self, name: &str) -> Result<Lock, PortError> {
        check(name)?;
        Lock::take(&self.home.join("registry").join(format!("{name}.lock")), "a change of this model", &Quiet).await
    }
}

/// Names become file names.
fn check(part: &str) -> Result<(), PortError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !part.is_empty() && part.len() <= 128 && part.chars().all(plain) && !part.starts_with('.') {
        return Ok(());
    }
    Err(PortError::new("bad_model_name", format!("`{part}` cannot be a model's name or version"))
        .because("it must be 1 to 128 letters, digits, `-`, `_` and `.`, and not begin with `.`"))
}

/// A version that was unregistered while live is known by its folder's name.
fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Makes `link` point at `target` at once: there is no moment without it.
fn point(link: &Path, target: &Path) -> io::Result<()> {
    let folder = link.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let beside = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
    std::os::unix::fs::symlink(target, &beside)?;
    fs::rename(&beside, link).inspect_err(|_| drop(fs::remove_file(&beside)))?;
    files::sync_folder(folder)
}

#[async_trait]
impl ModelRegistry for LocalRegistry {
    async fn register(&self, model: &RegisteredModel) -> Result<(), PortError> {
        let path = self.card(&model.model_name, &model.model_version)?;
        let _lock = self.lock(&model.model_name).await?;
        match self.read(&model.model_name, &model.model_version)? {
            Some(there) if there.content_digest != model.content_digest => Err(PortError::new(
                "version_exists",
                format!("{}:{} is registered with other content", model.model_name, model.model_version),
            )
            .because(format!("registered: {}, new: {}", there.content_digest, model.content_digest))
            .hint("give the new content a version of its own")),
            // The first registration stays: it says which release made the version known.
            Some(_) => Ok(()),
            None => files::write_json(&path, &Card { format: 1, model: model.clone() })
                .map_err(|error| io_error("write", &path, &error)),
        }
    }

    async fn find(&self, model_name: &str, model_version: &str) -> Result<Option<RegisteredModel>, PortError> {
        self.read(model_name, model_version)
    }

    async fn unregister(&self, model_name: &str, model_version: &str) -> Result<(), PortError> {
        let path = self.card(model_name, model_version)?;
        let _lock = self.lock(model_name).await?;
        files::remove_all(&path).map_err(|error| io_error("remove", &path, &error))
    }

    async fn set_current(&self, model_name: &str, model_version: Option<&str>) -> Result<(), PortError> {
        let link = self.link(model_name)?;
        let _lock = self.lock(model_name).await?;
        let Some(version) = model_version else {
            return files::remove_all(&link).map_err(|error| io_error("remove", &link, &error));
        };
        let model = self.read(model_name, version)?.ok_or_else(|| {
            PortError::new("version_unknown", format!("{model_name}:{version} is not registered"))
                .hint("register the version before it becomes the current one")
        })?;
        point(&link, &model.package.release_dir).map_err(|error| io_error("link", &link, &error))
    }

    async fn current(&self, model_name: &str) -> Result<Option<String>, PortError> {
        let link = self.link(model_name)?;
        let target = match fs::read_link(&link) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &link, &error)),
        };
        Ok(self.version_of(model_name, &target).or_else(|| file_name(&target)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(version: &str, digest: &str) -> crate::ports::PackagedModel {
        crate::ports::PackagedModel {
            token: "t".into(),
            model_name: "iris_classifier".into(),
            model_version: version.into(),
            bento_tag: format!("iris_classifier:{version}"),
            release_dir: format!("/releases/iris_classifier/{version}").into(),
            archive: format!("/releases/iris_classifier/{version}.bento").into(),
            content_digest: digest.into(),
            size_bytes: 1,
            env: crate::ports::PythonEnv {
                dir: "/env".into(),
                python: "/env/bin/python".into(),
                digest: "sha256:e".into(),
                created: false,
            },
            models: Vec::new(),
            service: "IrisClassifier".into(),
            workers: None,
            routes: Vec::new(),
            log: "/log".into(),
            duration_ms: 1,
        }
    }

    fn model(version: &str, digest: &str) -> RegisteredModel {
        RegisteredModel {
            model_name: "iris".into(),
            model_version: version.into(),
            content_digest: digest.into(),
            package: package(version, digest),
            deployment_id: "d1".into(),
        }
    }

    #[tokio::test]
    async fn a_version_is_registered_once() {
        let home = tempfile::tempdir().unwrap();
        let registry = LocalRegistry::new(home.path());
        registry.register(&model("v1", "sha256:a")).await.unwrap();
        registry.register(&model("v1", "sha256:a")).await.unwrap();
        assert_eq!(registry.register(&model("v1", "sha256:b")).await.unwrap_err().code, "version_exists");
        assert_eq!(registry.find("iris", "v1").await.unwrap(), Some(model("v1", "sha256:a")));
        assert_eq!(registry.find("iris", "v2").await.unwrap(), None);
        registry.unregister("iris", "v1").await.unwrap();
        registry.unregister("iris", "v1").await.unwrap();
        assert_eq!(registry.find("iris", "v1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn current_follows_and_goes() {
        let home = tempfile::tempdir().unwrap();
        let registry = LocalRegistry::new(home.path());
        assert_eq!(registry.current("iris").await.unwrap(), None);
        assert_eq!(registry.set_current("iris", Some("v1")).await.unwrap_err().code, "version_unknown");
        for version in ["v1", "v2.0"] {
            registry.register(&model(version, "sha256:a")).await.unwrap();
            registry.set_current("iris", Some(version)).await.unwrap();
            assert_eq!(registry.current("iris").await.unwrap().as_deref(), Some(version));
        }
        registry.set_current("iris", None).await.unwrap();
        registry.set_current("iris", None).await.unwrap();
        assert_eq!(registry.current("iris").await.unwrap(), None);
        assert_eq!(fs::read_dir(home.path().join("current")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn names_stay_inside_the_folder() {
        let registry = LocalRegistry::new("/nowhere");
        for name in ["", "..", "a/b", ".hidden"] {
            assert_eq!(registry.current(name).await.unwrap_err().code, "bad_model_name", "{name}");
        }
    }
}
