//! Releases on disk: a bento with its models in one folder, put in place by one rename.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::files::{self, Lock, io_error};
use super::bento_yaml::BentoYaml;
use super::build::{self, Paths};
use super::{content, models};
use crate::ports::{PackagedModel, PortError, Quiet};

/// A release that is in place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Placed {
    pub dir: PathBuf,
    pub archive: PathBuf,
    pub content_digest: String,
    pub size_bytes: u64,
}

impl Placed {
    /// The file that describes it.
    fn card(&self) -> PathBuf {
        card_of(&self.dir)
    }
}

/// `<version>` may hold dots: `with_extension` would cut them.
fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

fn card_of(dir: &Path) -> PathBuf {
    beside(dir, ".json")
}

/// The folder of all releases.
#[derive(Debug, Clone)]
pub(super) struct Releases {
    home: PathBuf,
}

impl Releases {
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.home.join("releases").join(name)
    }

    /// Moves a built bento into place together with its models. The same content under the same name and version is reused.
    pub(super) async fn place(
        &self,
        paths: &Paths,
        bento: &Path,
        yaml: &BentoYaml,
        store: &Path,
    ) -> Result<Placed, PortError> {
        let dir = self.folder(&yaml.name).join(&yaml.version);
        refuse_hidden(&dir, bento)?;
        let _lock = self.lock(&yaml.name).await?;
        let (bento, tags, store) = (bento.to_owned(), yaml.model_tags(), store.to_owned());
        let paths = paths.clone();
        let placed = tokio::task::spawn_blocking(move || place(&paths, &bento, &tags, &store, dir)).await;
        placed.unwrap_or_else(|error| {
            Err(PortError::new("internal", "placing the release failed").because(error.to_string()))
        })
    }

    async fn lock(&self, name: &str) -> Result<Lock, PortError> {
        Lock::take(&beside(&self.folder(name), ".lock"), "a release of this model", &Quiet).await
    }

    /// Removes everything that the build in `paths` made: its process, its release unless another build has it too, its folder.
    /// The build's lock is held.
    pub(super) async fn clear(&self, paths: &Paths) -> Result<(), PortError> {
        build::end_orphan(paths)?;
        let read = |error| io_error("read", &paths.dir, &error);
        let made = match files::read_json::<PackagedModel>(&paths.result).map_err(read)? {
            Some(model) => Some(model.release_dir),
            None => files::read_json::<PathBuf>(&paths.intent).map_err(read)?,
        };
        if let Some(dir) = made {
            let name = dir.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            let _lock = self.lock(&name.unwrap_or_default()).await?;
            if !self.has_other_owner(&dir, &paths.dir) {
                self.remove(&dir).map_err(|error| io_error("remove", &dir, &error))?;
            }
        }
        files::remove_all(&paths.dir).map_err(|error| io_error("remove", &paths.dir, &error))
    }

    /// Whether the result of another build is the release in `dir`.
    fn has_other_owner(&self, dir: &Path, except: &Path) -> bool {
        let Ok(entries) = fs::read_dir(self.home.join("builds")) else { return false };
        entries.flatten().map(|entry| entry.path()).filter(|build| build != except).any(|build| {
            let result = files::read_json::<PackagedModel>(&build.join("result.json"));
            // A result that cannot be read may be an owner: rather keep a folder too long.
            result.map_or_else(
                |error| error.kind() != io::ErrorKind::NotADirectory,
                |found| found.is_some_and(|model| model.release_dir == dir),
            )
        })
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        // The folder first: without it the rest means nothing.
        files::remove_all(dir)?;
        files::remove_all(&beside(dir, ".bento"))?;
        files::remove_all(&card_of(dir))
    }
}

/// The blocking part of [`Releases::place`]; the name's lock is held.
fn place(paths: &Paths, bento: &Path, tags: &[String], store: &Path, dir: PathBuf) -> Result<Placed, PortError> {
    add_models(bento, tags, store)?;
    let failed = |error: io::Error| io_error("assemble the release in", bento, &error);
    content::remove_bytecode(bento).map_err(failed)?;
    let made = beside(bento, ".bento");
    // Both read every byte once: together they take as long as the longer one.
    let (measured, exported) = std::thread::scope(|scope| {
        let export = scope.spawn(|| content::export(bento, &made).and_then(|()| content::sync_folder(bento)));
        let measured = content::measure(bento);
        (measured, export.join().unwrap_or_else(|_| Err(io::Error::other("writing the archive failed"))))
    });
    let measured = measured.map_err(failed)?;
    exported.map_err(failed)?;
    let placed = Placed {
        archive: beside(&dir, ".bento"),
        content_digest: measured.digest,
        size_bytes: measured.size_bytes,
        dir,
    };
    if placed.dir.is_dir() {
        return reuse(placed);
    }
    let steps = || {
        // From here on a crash leaves a release that `clear` finds by the intent.
        files::write_json(&paths.intent, &placed.dir)?;
        fs::create_dir_all(placed.dir.parent().unwrap_or(Path::new("/")))?;
        fs::rename(&made, &placed.archive)?;
        files::write_json(&placed.card(), &placed)?;
        fs::rename(bento, &placed.dir)?;
        files::sync_folder(placed.dir.parent().unwrap_or(Path::new("/")))
    };
    steps().map_err(|error| io_error("put in place", &placed.dir, &error))?;
    Ok(placed)
}

/// A release of this name and version exists: fine if it is the same.
fn reuse(placed: Placed) -> Result<Placed, PortError> {
    let card = placed.card();
    let there: Option<Placed> = files::read_json(&card).map_err(|error| io_error("read", &card, &error))?;
    match there {
        Some(there) if there.content_digest == placed.content_digest => Ok(there),
        there => Err(PortError::new(
            "version_exists",
            format!("another release of this version exists in {}", placed.dir.display()),
        )
        .because(format!(
            "its content is {}, the new one's is {}",
            there.map_or("unknown".to_owned(), |there| there.content_digest),
            placed.content_digest
        ))
        .hint("give the new content a version of its own, or none: BentoML then makes one")),
    }
}

/// BentoML lets a service read no file whose *absolute* path has a part that begins with a dot, and services that name their
/// requirements file read it at every start: below a hidden home they build, and never start.
fn refuse_hidden(dir: &Path, bento: &Path) -> Result<(), PortError> {
    let real = dir.ancestors().find_map(|above| fs::canonicalize(above).ok()).unwrap_or_else(|| dir.to_owned());
    let hidden = real.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    let source = fs::read_dir(bento.join("src")).into_iter().flatten().flatten().find(|entry| {
        let path = entry.path();
        let text = || fs::read_to_string(&path).unwrap_or_default();
        path.extension().is_some_and(|ending| ending == "py")
            && ["requirements_file(", "pyproject_toml(", "run_script("].iter().any(|call| text().contains(call))
    });
    match source.filter(|_| hidden) {
        None => Ok(()),
        Some(source) => Err(PortError::new("home_hidden", "this service cannot be served from a hidden folder")
            .because(format!(
                "{} reads a file of the project at every start, which BentoML refuses below {}, whose path has a part that begins \
                 with a dot",
                source.file_name().to_string_lossy(),
                real.display()
            ))
            .hint("set TIDEGATE_HOME to a folder without such a part, e.g. ~/tidegate")),
    }
}

/// Copies the bento's models into it, as BentoML's export does.
fn add_models(bento: &Path, tags: &[String], store: &Path) -> Result<(), PortError> {
    for tag in tags {
        let from = models::find(store, tag).ok_or_else(|| {
            PortError::new("model_missing", format!("the model {tag} vanished from the model store during the build"))
                .because(format!("looked in {}", store.display()))
                .retryable()
        })?;
        let (name, version) = models::split_tag(tag);
        let to = bento.join("models").join(name);
        let copied =
            content::copy_folder(&from, &to.join(version)).and_then(|()| fs::write(to.join("latest"), version));
        copied.map_err(|error| io_error("copy the model into", &to, &error))?;
    }
    Ok(())
}
