//! A request that names only a model artifact gets a BentoML project: service, import script, locked requirements, release file.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::super::files::{self, Lock, io_error};
use super::content;
use crate::ports::{GeneratedProject, ModelArtifact, PortError, Quiet};

const SERVICE: &str = include_str!("generated/service.py");
const IMPORT: &str = include_str!("generated/import_model.py");
const REQUIREMENTS: &str = include_str!("../../../examples/iris/requirements.lock");
/// Written last: a folder without it is half a project.
const MARKER: &str = ".tidegate-complete";

/// Generates the project of `artifact` in `home/generated`. The same artifact gives the same project.
pub async fn generate(home: &Path, artifact: &ModelArtifact) -> Result<GeneratedProject, PortError> {
    check_framework(&artifact.framework)?;
    let name = project_name(artifact)?;
    let hash = content::hash_of_file(&artifact.path).map_err(|error| artifact_error(&artifact.path, &error))?;
    let tag = format!("{name}:{}", &hash[..16]);
    let texts = texts(&name, &tag, &artifact.path);
    let key: String = texts.iter().map(|(file, text)| format!("{file}\n{text}\n")).collect();
    let key: String = Sha256::digest(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dir = home.join("generated").join(key);
    let _lock = Lock::take(&dir.with_extension("lock"), "this generated project", &Quiet).await?;
    if !dir.join(MARKER).exists() {
        write(&dir, &texts, &artifact.path).map_err(|error| io_error("write", &dir, &error))?;
    }
    Ok(GeneratedProject {
        project: dir,
        service: "service:Model".to_owned(),
        train: vec!["python".to_owned(), "import_model.py".to_owned()],
        needs_models: vec![tag],
        requirements: "requirements.lock".into(),
    })
}

fn check_framework(framework: &str) -> Result<(), PortError> {
    if ["scikit-learn", "sklearn", "scikit_learn"].contains(&framework.to_lowercase().as_str()) {
        return Ok(());
    }
    Err(PortError::new("framework_unsupported", format!("Tidegate cannot write a service for a {framework} model"))
        .because("it knows how to load and call scikit-learn models; any other model needs a service that says how")
        .hint(
            "write a project: a service.py with a class decorated `@bentoml.service` that loads the model in `__init__` and answers in \
             a method decorated `@bentoml.api`, a requirements.lock, a tidegate.yaml; examples/iris is one to copy",
        ))
}

/// A name that BentoML, a URL and a folder all take.
fn project_name(artifact: &ModelArtifact) -> Result<String, PortError> {
    let stem = || artifact.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let given =
        if artifact.name.is_empty() { stem().unwrap_or_default() } else { artifact.name.clone() }.to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = given.chars().map(plain).collect::<String>().trim_matches('_').chars().take(60).collect();
    if name.is_empty() {
        return Err(PortError::new("bad_model_name", format!("`{given}` gives no usable model name"))
            .hint("name the model with letters and digits"));
    }
    Ok(name)
}

fn artifact_error(path: &Path, error: &io::Error) -> PortError {
    PortError::new("artifact_unreadable", format!("cannot read the model artifact {}", path.display()))
        .because(error.to_string())
        .hint("give the path of one file, as joblib or pickle wrote it")
}

/// The project's files but for the artifact itself.
fn texts(name: &str, tag: &str, artifact: &Path) -> Vec<(&'static str, String)> {
    let file = artifact_file(artifact);
    let filled = |text: &str| text.replace("@NAME@", name).replace("@TAG@", tag).replace("@FILE@", file);
    let release = format!(
        "model: {name}\nservice: service:Model\nenv: {{ requirements: requirements.lock }}\ntrain: [python, import_model.py]\n\
         needs_models: [\"{tag}\"]\n"
    );
    vec![
        // The model travels in the bento as a model, not a second time as a source file.
        (".bentoignore", format!("{file}\n{MARKER}\n")),
        ("import_model.py", filled(IMPORT)),
        ("requirements.lock", REQUIREMENTS.to_owned()),
        ("service.py", filled(SERVICE)),
        ("tidegate.yaml", release),
    ]
}

/// The artifact's name in the project: the user's own may hold anything.
fn artifact_file(artifact: &Path) -> &'static str {
    let joblib = artifact.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("joblib"));
    if joblib { "artifact.joblib" } else { "artifact.pkl" }
}

fn write(dir: &Path, texts: &[(&'static str, String)], artifact: &Path) -> io::Result<()> {
    files::remove_all(dir)?;
    fs::create_dir_all(dir)?;
    for (file, text) in texts {
        fs::write(dir.join(file), text)?;
    }
    fs::copy(artifact, dir.join(artifact_file(artifact)))?;
    content::sync_folder(dir)?;
    files::write_atomically(&dir.join(MARKER), b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(path: &Path, framework: &str) -> ModelArtifact {
        ModelArtifact { path: path.to_owned(), framework: framework.to_owned(), name: String::new() }
    }

    #[tokio::test]
    async fn the_same_artifact_gives_the_same_project_and_another_one_another() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("Churn model (v2).pkl");
        fs::write(&path, "one").unwrap();
        let first = generate(home.path(), &artifact(&path, "Scikit-Learn")).await.unwrap();
        assert_eq!(first, generate(home.path(), &artifact(&path, "sklearn")).await.unwrap());
        assert!(first.needs_models[0].starts_with("churn_model__v2:"), "{first:?}");
        let service = fs::read_to_string(first.project.join("service.py")).unwrap();
        assert!(service.contains(&first.needs_models[0]));
        assert!(!service.contains("@TAG@") && !service.contains("@NAME@"));
        fs::write(&path, "two").unwrap();
        let second = generate(home.path(), &artifact(&path, "sklearn")).await.unwrap();
        assert!(first.project != second.project && first.needs_models != second.needs_models);
    }

    #[tokio::test]
    async fn other_frameworks_are_refused_with_what_to_write() {
        let error = generate(Path::new("/nowhere"), &artifact(Path::new("/m.pt"), "pytorch")).await.unwrap_err();
        assert_eq!(error.code, "framework_unsupported");
        assert!(error.hint.unwrap().contains("@bentoml.service"));
        let missing = generate(Path::new("/nowhere"), &artifact(Path::new("/no/m.pkl"), "sklearn")).await.unwrap_err();
        assert_eq!(missing.code, "artifact_unreadable");
    }
}
