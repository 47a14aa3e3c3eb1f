//! Packages with BentoML: a real `bentoml build`, then, in Rust, a folder that can be served by itself and BentoML's own archive of it.
//!
//! Layout in Tidegate's home:
//!
//! ```text
//! builds/<token>/            one build: bentoml/ (its BENTOML_HOME), build.log, process.json, intent.json, result.json (last)
//! builds/<token>.lock        held while the build runs
//! releases/<name>/<version>/       the bento with its models, as an unpacked export
//! releases/<name>/<version>.bento  the export
//! releases/<name>/<version>.json   its digest and size, there before the folder is
//! ```

mod bento_yaml;
mod build;
mod commands;
mod content;
mod failure;
mod generate;
mod models;
mod orphan;
mod release;
mod xz;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::files::{self, Lock, io_error};
use crate::ports::{
    GeneratedProject, ModelArtifact, PackageRequest, PackagedModel, Packager, PortError, Progress, Quiet, ServeCommand,
    SourceCopy,
};

pub use failure::last_traceback;
pub use generate::generate;

/// Builds with BentoML.
#[derive(Debug, Clone)]
pub struct BentomlPackager {
    home: PathBuf,
    model_home: Option<PathBuf>,
}

impl BentomlPackager {
    /// Builds live in `home/builds`, releases in `home/releases`. Models are read from the user's own store
    /// (`$BENTOML_HOME/models`, else `~/bentoml/models`).
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), model_home: models::user_home() }
    }

    /// Reads models from (and trains into) another BentoML home than the user's.
    #[must_use]
    pub fn with_model_home(mut self, bentoml_home: impl Into<PathBuf>) -> Self {
        self.model_home = Some(bentoml_home.into());
        self
    }

    fn paths(&self, token: &str) -> Result<build::Paths, PortError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if token.is_empty() || token.len() > 64 || !token.bytes().all(plain) {
            return Err(PortError::new("bad_token", format!("`{token}` is no build token"))
                .because("a token is 1 to 64 of a-z, 0-9 and -"));
        }
        Ok(build::Paths::new(self.home.join("builds").join(token)))
    }

    /// Where the copy of what somebody's release is built from is.
    fn copy_of(&self, of: &str) -> PathBuf {
        let name: String = Sha256::digest(of).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.home.join("sources").join(name)
    }

    fn releases(&self) -> release::Releases {
        release::Releases::new(self.home.clone())
    }

    fn model_home(&self) -> Result<&Path, PortError> {
        self.model_home.as_deref().ok_or_else(|| {
            PortError::new("model_store_unknown", "cannot tell where BentoML keeps its models")
                .because("neither BENTOML_HOME nor HOME is set")
                .hint("set BENTOML_HOME to the folder that holds your `models`")
        })
    }
}

/// The finished build in `paths`, if its release is still there.
fn finished(paths: &build::Paths) -> Result<Option<PackagedModel>, PortError> {
    let result: Option<PackagedModel> =
        files::read_json(&paths.result).map_err(|error| io_error("read", &paths.result, &error))?;
    Ok(result.filter(|model| model.release_dir.is_dir() && model.archive.is_file()))
}

#[async_trait]
impl Packager for BentomlPackager {
    async fn package(&self, request: &PackageRequest, progress: &dyn Progress) -> Result<PackagedModel, PortError> {
        let paths = self.paths(&request.token)?;
        let _lock = Lock::take(&paths.lock, "this build", progress).await?;
        if let Some(model) = finished(&paths)? {
            return Ok(model);
        }
        self.releases().clear(&paths).await?;
        build::Build { packager: self, request, paths: &paths, progress }.run().await
    }

    async fn find(&self, token: &str) -> Result<Option<PackagedModel>, PortError> {
        let paths = self.paths(token)?;
        if let Some(model) = finished(&paths)? {
            return Ok(Some(model));
        }
        // No lock file: never begun. A held lock: somebody builds, there is no result yet and no orphan.
        if paths.lock.exists()
            && let Ok(Some(_lock)) = Lock::try_take(&paths.lock)
        {
            build::end_orphan(&paths)?;
        }
        finished(&paths)
    }

    async fn discard(&self, token: &str) -> Result<(), PortError> {
        let paths = self.paths(token)?;
        if !paths.lock.exists() && !paths.dir.exists() {
            return Ok(());
        }
        let lock = Lock::take(&paths.lock, "this build", &Quiet).await?;
        self.releases().clear(&paths).await?;
        lock.remove().map_err(|error| io_error("remove", &paths.lock, &error))
    }

    async fn digest_of_source(&self, source: &Path) -> Result<String, PortError> {
        let path = source.to_owned();
        let digest = tokio::task::spawn_blocking(move || content::digest_of_source(&path)).await;
        digest.map_err(std::io::Error::other).flatten().map_err(|error| io_error("read", source, &error))
    }

    async fn copy_source(&self, source: &Path, of: &str) -> Result<SourceCopy, PortError> {
        let (from, into) = (source.to_owned(), self.copy_of(of));
        let copied = tokio::task::spawn_blocking(move || {
            let path = content::copy_source(&from, &into)?;
            Ok(SourceCopy { digest: content::digest_of_source(&path)?, path })
        });
        copied.await.map_err(std::io::Error::other).flatten().map_err(|error| io_error("copy", source, &error))
    }

    async fn drop_copy(&self, of: &str) -> Result<(), PortError> {
        let copy = self.copy_of(of);
        let removed = tokio::task::spawn_blocking(move || files::remove_all(&copy).map_err(|e| (copy, e))).await;
        match removed {
            Ok(Err((copy, error))) => Err(io_error("remove", &copy, &error)),
            _ => Ok(()),
        }
    }

    fn serve_command(&self, model: &PackagedModel, slot_dir: &Path, workers: Option<u32>) -> ServeCommand {
        let mut command = commands::serve(&model.env.python, &model.env.dir, &model.release_dir, slot_dir);
        command.env.extend(workers.map(|workers| commands::workers(&model.service, workers)));
        command
    }

    fn explain(&self, log: &[String]) -> Option<String> {
        last_traceback(log)
    }

    async fn generate(&self, artifact: &ModelArtifact) -> Result<GeneratedProject, PortError> {
        generate(&self.home, artifact).await
    }
}
