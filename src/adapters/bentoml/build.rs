//! One build, from the project to its result.

use std::fs::{self, File, OpenOptions};
use std::path::{Component, Path, PathBuf};

use tokio::time::Instant;

use super::super::files::{self, Lock, io_error};
use super::super::process::{self, CommandLine, Extras, Finished};
use super::super::uv::{callers_path, find_uv};
use super::bento_yaml::BentoYaml;
use super::{BentomlPackager, commands, failure, models, orphan};
use crate::ports::{PackageRequest, PackagedModel, PortError, Progress};

/// Files of one build.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub dir: PathBuf,
    pub lock: PathBuf,
    /// BENTOML_HOME of the build.
    pub bentoml_home: PathBuf,
    pub log: PathBuf,
    /// The running child, for whoever comes after a crash.
    pub process: PathBuf,
    /// The release that this build is about to put in place.
    pub intent: PathBuf,
    pub result: PathBuf,
}

impl Paths {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            lock: dir.with_extension("lock"),
            bentoml_home: dir.join("bentoml"),
            log: dir.join("build.log"),
            process: dir.join("process.json"),
            intent: dir.join("intent.json"),
            result: dir.join("result.json"),
            dir,
        }
    }
}

/// Ends what a killed build left running. The build's lock is held.
pub(super) fn end_orphan(paths: &Paths) -> Result<(), PortError> {
    orphan::end(&paths.process)
        .map(drop)
        .map_err(|error| io_error("end the process recorded in", &paths.process, &error))
}

/// One build; its lock is held and nothing of an earlier attempt is left.
pub(super) struct Build<'a> {
    pub packager: &'a BentomlPackager,
    pub request: &'a PackageRequest,
    pub paths: &'a Paths,
    pub progress: &'a dyn Progress,
}

impl Build<'_> {
    /// Builds and writes the result, last of all.
    pub(super) async fn run(&self) -> Result<PackagedModel, PortError> {
        let began = Instant::now();
        if !self.request.env.dir.join("bin/bentoml").exists() {
            return Err(PortError::new("dependency_missing", "BentoML is not among the project's requirements")
                .because(format!("the environment {} has no `bentoml`", self.request.env.dir.display()))
                .hint("add `bentoml` to the requirements and lock them again"));
        }
        let store = self.prepare()?;
        self.ensure_models(&store).await?;
        self.progress.line("building the bento");
        let command = commands::build(self.request, &self.paths.bentoml_home, &self.search_path());
        let ended = self.execute(command).await?;
        if !ended.ok() {
            return Err(failure::build_failed(self.request.service.as_deref(), &ended));
        }
        let (name, version) = commands::parse_tag(&ended.tail).ok_or_else(|| {
            PortError::new("bento_build_failed", "`bentoml build` said nothing of the bento it built")
                .because(ended.last_lines(6))
        })?;
        let bento = self.paths.bentoml_home.join("bentos").join(&name).join(&version);
        self.keep_out(&bento)?;
        let yaml = BentoYaml::read(&bento)?;
        self.check(&yaml)?;
        let placed = self.packager.releases().place(self.paths, &bento, &yaml, &store).await?;
        let model = PackagedModel {
            token: self.request.token.clone(),
            bento_tag: format!("{name}:{version}"),
            model_name: name,
            model_version: version,
            release_dir: placed.dir,
            archive: placed.archive,
            content_digest: placed.content_digest,
            size_bytes: placed.size_bytes,
            env: self.request.env.clone(),
            models: yaml.model_tags(),
            service: yaml.class().to_owned(),
            workers: yaml.workers(),
            routes: yaml.routes(),
            log: self.paths.log.clone(),
            duration_ms: began.elapsed().as_millis() as u64,
        };
        files::write_json(&self.paths.result, &model).map_err(|error| io_error("write", &self.paths.result, &error))?;
        // The result stands; what BentoML left in its home is only space.
        let _ = files::remove_all(&self.paths.bentoml_home);
        Ok(model)
    }

    /// Takes out of what BentoML copied what must not travel with the model. Nothing of it has been digested or archived yet.
    fn keep_out(&self, bento: &Path) -> Result<(), PortError> {
        for file in &self.request.keep_out {
            if !file.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(PortError::new("path_escapes", format!("`{}` is not below the project", file.display())));
            }
            let copy = bento.join("src").join(file);
            // What lies behind a link is not the copy's.
            let parents = copy.ancestors().skip(1).take_while(|parent| *parent != bento);
            if parents.into_iter().any(Path::is_symlink) {
                continue;
            }
            files::remove_all(&copy).map_err(|error| io_error("remove", &copy, &error))?;
        }
        Ok(())
    }

    /// Makes the build's BENTOML_HOME, whose models are the user's. Returns the folder of the user's models.
    fn prepare(&self) -> Result<PathBuf, PortError> {
        let store = self.packager.model_home()?.join("models");
        let link = self.paths.bentoml_home.join("models");
        fs::create_dir_all(&store).map_err(|error| io_error("make the model store", &store, &error))?;
        let made = fs::create_dir_all(&self.paths.bentoml_home).and_then(|()| {
            let store = fs::canonicalize(&store)?;
            std::os::unix::fs::symlink(store, &link)
        });
        made.map_err(|error| io_error("make", &link, &error))?;
        Ok(store)
    }

    /// Trains when a model is missing.
    async fn ensure_models(&self, store: &Path) -> Result<(), PortError> {
        let needed = &self.request.needs_models;
        let missing = models::missing(store, needed);
        if missing.is_empty() {
            return Ok(());
        }
        let not_there = |missing: &[String]| {
            PortError::new("model_missing", format!("the model store has no {}", missing.join(", ")))
                .because(format!("looked in {}", store.display()))
        };
        let Some(train) = self.request.train.as_ref().filter(|train| !train.is_empty()) else {
            return Err(not_there(&missing).hint(
                "save the model with `bentoml.<framework>.save_model`, or give the release file a `train` command",
            ));
        };
        // Two releases of one project at once must not train twice.
        let key = self.request.project.to_string_lossy().replace(['/', ' '], "-");
        let lock = self.packager.home.join("builds").join(format!("train{key}.lock"));
        let lock = Lock::take(&lock, "this project's model", self.progress).await?;
        let missing = models::missing(store, needed);
        if !missing.is_empty() {
            self.progress.line(&format!("{} is missing: running `{}`", missing.join(", "), train.join(" ")));
            let command = commands::train(self.request, train, self.packager.model_home()?, &self.search_path());
            let ended = self.execute(command).await?;
            if !ended.ok() {
                return Err(failure::train_failed(train, &ended));
            }
        }
        let _ = lock.remove();
        match models::missing(store, needed) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(not_there(&missing)
                .hint(format!("`{}` ended well but did not save it: check the name it saves", train.join(" ")))),
        }
    }

    /// Runs a command into the build's log, on record while it runs.
    async fn execute(&self, command: CommandLine) -> Result<Finished, PortError> {
        let log = self.open_log().map_err(|error| io_error("write", &self.paths.log, &error))?;
        let record = self.paths.process.clone();
        let on_spawn: process::OnSpawn = Box::new(move |pid| orphan::Recorded::write(pid, &record));
        let program = PathBuf::from(&command.argv[0]);
        let extras = Extras { log: Some(log), on_spawn: Some(on_spawn) };
        let ended = process::run(command, extras, self.progress).await;
        let _ = files::remove_all(&self.paths.process);
        ended.map_err(|error| io_error("run", &program, &error))
    }

    fn open_log(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).open(&self.paths.log)
    }

    fn search_path(&self) -> String {
        let callers = callers_path();
        let uv = find_uv(&self.packager.home, &callers);
        commands::search_path(&self.request.env.dir, uv.as_deref(), &callers.to_string_lossy())
    }

    /// What was built is what was asked for.
    fn check(&self, yaml: &BentoYaml) -> Result<(), PortError> {
        if let Some(expected) = self.request.expect_name.as_ref().filter(|expected| **expected != yaml.name) {
            return Err(PortError::new(
                "bento_name_mismatch",
                format!("the service's bento is called {}, not {expected}", yaml.name),
            )
            .hint("name the service `@bentoml.service(name=…)` as the release expects, or correct the release file"));
        }
        match self.request.service.as_ref().filter(|asked| **asked != yaml.service) {
            None => Ok(()),
            Some(asked) => {
                Err(PortError::new("service_mismatch", format!("BentoML built {}, not {asked}", yaml.service))
                    .because(
                        "a `service` in the project's bentofile.yaml or pyproject.toml comes before the one asked for",
                    )
                    .hint("name the same service in both"))
            }
        }
    }
}
