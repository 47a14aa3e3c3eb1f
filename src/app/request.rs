//! From what a person names — a project's folder, a request document — to a deploy request.

use std::path::{Path, PathBuf};

use crate::graph::Failure;
use crate::release::{DeployRequest, EngineerInput, ModelSource, ReleaseFile, RequestError};

/// A project's release file.
const RELEASE_FILE: &str = "tidegate.yaml";
/// Largest request or release file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// What the command line says over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The target environment.
    pub environment: Option<String>,
    /// Who asks.
    pub requested_by: Option<String>,
}

/// Reads the request at `path`: a folder with a `tidegate.yaml`, that file itself, or a request document as JSON.
pub fn read_request(path: &Path, overrides: &Overrides) -> Result<DeployRequest, Failure> {
    let full = std::fs::canonicalize(path).map_err(|e| {
        Failure::new("path_not_found", format!("{} cannot be opened", path.display()))
            .because(e.to_string())
            .hint("name a project's folder, its tidegate.yaml, or a request file")
    })?;
    let mut request = if full.is_dir() {
        project(&full, overrides.environment.as_deref())?
    } else if full.extension().is_some_and(|e| e == "json") {
        document(&full, overrides.environment.as_deref())?
    } else {
        release_file(&full, overrides.environment.as_deref())?
    };
    request.requested_by.clone_from(&overrides.requested_by);
    Ok(request)
}

fn project(dir: &Path, environment: Option<&str>) -> Result<DeployRequest, Failure> {
    let file = dir.join(RELEASE_FILE);
    if !file.is_file() {
        return Err(Failure::new("release_file_missing", format!("{} has no {RELEASE_FILE}", dir.display())).hint(
            "write one: `model: NAME`, `service: module:Class`, `env: { requirements: requirements.lock }` \
             (`tidegate schema release-file` describes it all)",
        ));
    }
    release_file(&file, environment)
}

fn release_file(file: &Path, environment: Option<&str>) -> Result<DeployRequest, Failure> {
    let text = read(file)?;
    let label = file.display().to_string();
    let parsed = ReleaseFile::parse(&text, &label).map_err(|e| Failure::new(e.code(), e.to_string()).hint(e.hint()))?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    DeployRequest::from_release_file(&parsed, &utf8(dir)?, environment).map_err(refused)
}

/// The deployment engineer's input document; `modelArtifact.path` names a project with a release file, or a bare model.
fn document(file: &Path, environment: Option<&str>) -> Result<DeployRequest, Failure> {
    let input = EngineerInput::parse(&read(file)?).map_err(refused)?;
    let beside = file.parent().unwrap_or(Path::new("/"));
    let artifact = input.model_artifact.path.as_ref().map(|path| absolute(beside, path));
    let base = match &artifact {
        Some(dir) if dir.join(RELEASE_FILE).is_file() => Some(project(dir, environment)?),
        _ => None,
    };
    let mut request = DeployRequest::from_engineer(&input, base).map_err(refused)?;
    if let (ModelSource::Artifact { path, .. }, Some(full)) = (&mut request.source, artifact) {
        if !full.exists() {
            return Err(Failure::new("path_not_found", format!("there is no model at {}", full.display()))
                .hint("mend `modelArtifact.path`; a relative one counts from the request file"));
        }
        *path = utf8(&full)?;
    }
    Ok(request)
}

fn absolute(beside: &Path, path: &str) -> PathBuf {
    let joined = beside.join(path);
    std::fs::canonicalize(&joined).unwrap_or(joined)
}

fn read(file: &Path) -> Result<String, Failure> {
    let unreadable =
        |why: String| Failure::new("file_unreadable", format!("{} cannot be read", file.display())).because(why);
    let meta = std::fs::metadata(file).map_err(|e| unreadable(e.to_string()))?;
    if !meta.is_file() {
        return Err(unreadable("it is no ordinary file".to_owned()));
    }
    if meta.len() > MAX_BYTES {
        return Err(unreadable(format!("it has {} bytes, at most {MAX_BYTES} are read", meta.len())));
    }
    std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))
}

fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new("path_not_utf8", format!("{} is no Unicode path", path.display())).hint("rename the folder")
    })
}

fn refused(error: RequestError) -> Failure {
    Failure::new(error.code(), error.to_string()).hint(error.hint())
}
