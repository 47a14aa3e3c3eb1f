//! From what a person names — a project's folder, a request document — to a deploy request.

use std::path::{Path, PathBuf};

use super::text_file::read_text;
use crate::graph::Failure;
use crate::release::{
    CanarySteps, DEFAULT_REQUIREMENTS, DeployRequest, EngineerInput, ModelSource, ReleaseFile, RequestError, Strategy,
};

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
    /// How the new version gets its traffic.
    pub strategy: Option<Strategy>,
    /// The steps of a canary.
    pub steps: Option<CanarySteps>,
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
    complete(request, overrides)
}

/// The request in a document that came without a file: the deployment engineer's input. Its paths are absolute.
pub fn request_of(document: &str, overrides: &Overrides) -> Result<DeployRequest, Failure> {
    let mut request = engineer(document, None, overrides.environment.as_deref())?;
    if overrides.requested_by.is_some() {
        request.requested_by.clone_from(&overrides.requested_by);
    }
    complete(request, overrides)
}

fn complete(mut request: DeployRequest, overrides: &Overrides) -> Result<DeployRequest, Failure> {
    if let Some(steps) = &overrides.steps {
        request.canary.get_or_insert_default().steps = Some(steps.clone());
        // Nobody names steps for anything else.
        request.strategy = Some(Strategy::Canary);
    }
    request.strategy = overrides.strategy.or(request.strategy);
    named_files(&request)?;
    Ok(request)
}

/// The files that a request names are there: found missing only by the build, or by the start of the service, it would be late.
fn named_files(request: &DeployRequest) -> Result<(), Failure> {
    if let ModelSource::Project { path } = &request.source {
        let name = request.env.as_ref().map_or(DEFAULT_REQUIREMENTS, |env| &env.requirements);
        let file = Path::new(path).join(name);
        if !file.is_file() {
            let beside = ["requirements.txt", "pyproject.toml", "requirements.in"];
            let source = beside.into_iter().find(|name| Path::new(path).join(name).is_file());
            return Err(Failure::new("requirements_missing", format!("there is no file {}", file.display()))
                .because("a release installs exactly the packages that its requirements name")
                .hint(match source {
                    Some(source) if name == DEFAULT_REQUIREMENTS => {
                        format!("make it: `uv pip compile {source} -o {name}`; or name another one: `env: {{ requirements: {source} }}`")
                    }
                    _ => "mend `env: { requirements: … }` in tidegate.yaml, or write the file".to_owned(),
                }));
        }
    }
    match request.env_file.as_deref().map(Path::new).filter(|file| !file.is_file()) {
        None => Ok(()),
        Some(file) => Err(Failure::new("env_file_missing", format!("there is no file {}", file.display()))
            .because("the release gives the service its environment from it (`env_file`)")
            .hint("write it, one KEY=value a line, or mend `env_file`")),
    }
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
    engineer(&read(file)?, Some(file.parent().unwrap_or(Path::new("/"))), environment)
}

/// `beside`: from where relative paths count; without it they are refused.
fn engineer(text: &str, beside: Option<&Path>, environment: Option<&str>) -> Result<DeployRequest, Failure> {
    let input = EngineerInput::parse(text).map_err(refused)?;
    if let (None, Some(path)) =
        (beside, input.model_artifact.path.as_ref().filter(|path| !Path::new(path).is_absolute()))
    {
        return Err(Failure::new("request_value", format!("`modelArtifact.path` is relative: {path}"))
            .because("there is no folder from which it could count")
            .hint("give the absolute path"));
    }
    let beside = beside.unwrap_or(Path::new("/"));
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
    read_text(file, MAX_BYTES).map_err(|e| {
        Failure::new("file_unreadable", format!("{} cannot be read", file.display()))
            .because(e.to_string())
            .hint(e.hint())
    })
}

fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new("path_not_utf8", format!("{} is no Unicode path", path.display())).hint("rename the folder")
    })
}

fn refused(error: RequestError) -> Failure {
    Failure::new(error.code(), error.to_string()).hint(error.hint())
}
