//! What a whole release costs above the bare `bentoml build` + `bentoml serve` + readiness, in one run, in turn.
//!
//! `cargo bench --bench release_overhead`. Bake is 0 and the approval is `--yes`, as both are waits by wish; the Python environment is
//! there before either begins. They take turns in going first, and each release is held against the bare one of its own round: what else the
//! machine does comes and goes.

#[path = "../tests/support/bentoml.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Home, Serving, copy_of, root, shared_env, shared_home};
use tidegate::ports::{PythonEnv, ServeCommand};

const ROUNDS: usize = 9;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let env = runtime.block_on(shared_env());
        let models = support::folder();
        let project = copy_of(&root().join("examples/iris"));
        let file = project.path().join("tidegate.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("bake: 10s", "bake: 0s")).unwrap();
        train(&env, project.path(), models.path());
        if round % 2 == 0 {
            bare.push(runtime.block_on(bare_release(&env, project.path(), models.path())));
            ours.push(our_release(project.path(), models.path()));
        } else {
            ours.push(our_release(project.path(), models.path()));
            bare.push(runtime.block_on(bare_release(&env, project.path(), models.path())));
        }
        println!("round {round}: bare {}; release {}", bare[round], ours[round]);
    }
    let above =
        bare.iter().zip(&ours).map(|(bare, ours)| 100.0 * (ours.all.as_secs_f64() / bare.all.as_secs_f64() - 1.0));
    let overhead = median(above.collect());
    println!("medians: bare {}; release {}; overhead {overhead:.1} %", middle(&bare), middle(&ours));
}

/// A release and its two long parts.
struct Took {
    build: Duration,
    start: Duration,
    all: Duration,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [build, start, all] = [self.build, self.start, self.all].map(|time| time.as_secs_f64());
        write!(f, "{all:.2} s (build {build:.2}, until ready {start:.2}, rest {:.2})", all - build - start)
    }
}

fn middle(times: &[Took]) -> Took {
    let of = |part: fn(&Took) -> Duration| {
        Duration::from_secs_f64(median(times.iter().map(|took| part(took).as_secs_f64()).collect()))
    };
    Took { build: of(|t| t.build), start: of(|t| t.start), all: of(|t| t.all) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn bentoml(env: &PythonEnv, models: &Path) -> Command {
    let mut command = Command::new(&env.python);
    let search = [env.dir.join("bin"), shared_home().join("tools/uv/bin")];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let search = std::env::join_paths(search.into_iter().chain(std::env::split_paths(&path))).unwrap();
    command.env("BENTOML_HOME", models).env("BENTOML_DO_NOT_TRACK", "True").env("PATH", search);
    command
}

fn train(env: &PythonEnv, project: &Path, models: &Path) {
    let status = bentoml(env, models).arg("train.py").current_dir(project).status().unwrap();
    assert!(status.success());
}

async fn bare_release(env: &PythonEnv, project: &Path, models: &Path) -> Took {
    let began = Instant::now();
    let mut build = bentoml(env, models);
    build.args(["-m", "bentoml", "build", "-o", "tag", "service:IrisClassifier"]).current_dir(project);
    let built = build.output().unwrap();
    assert!(built.status.success());
    let build = began.elapsed();
    let said = String::from_utf8(built.stdout).unwrap();
    let tag = said.trim().trim_start_matches("__tag__:").to_owned();
    let argv = [env.python.to_str().unwrap(), "-m", "bentoml", "serve", &tag, "-p", "{port}", "--host", "127.0.0.1"];
    let serve = ServeCommand {
        argv: argv.iter().map(|part| (*part).to_owned()).collect(),
        cwd: project.to_owned(),
        env: [("BENTOML_HOME", models.to_str().unwrap()), ("BENTOML_DO_NOT_TRACK", "True")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    };
    let slot = support::folder();
    let mut serving = Serving::run(&serve, &slot.path().join("slot"));
    serving.ready().await;
    let all = began.elapsed();
    Took { build, start: all - build, all }
}

fn our_release(project: &Path, models: &Path) -> Took {
    let home = Home::new();
    std::os::unix::fs::symlink(shared_home().join("envs"), home.path().join("envs")).unwrap();
    let tidegate = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(args).env("TIDEGATE_HOME", home.path()).env("BENTOML_HOME", models);
        command.env("TIDEGATE_PUBLIC_ADDR", "127.0.0.1:0").output().unwrap()
    };
    let began = Instant::now();
    let released = tidegate(&["deploy", project.to_str().unwrap(), "--yes", "--json"]);
    let all = began.elapsed();
    assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stdout));
    let id = json(&released.stdout)["deployment_id"].as_str().unwrap().to_owned();
    let events = json(&tidegate(&["run", "events", &id, "--json"]).stdout);
    let took = |what: &str, name: (&str, &str)| {
        let row = events
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["event"]["type"] == what && row["event"][name.0] == name.1);
        Duration::from_millis(row.unwrap()["event"]["duration_ms"].as_u64().unwrap())
    };
    let (build, start) =
        (took("effect_done", ("effect", "build_model")), took("node_finished", ("node", "deployment_executor")));
    let down = tidegate(&["down"]);
    assert!(down.status.success());
    Took { build, start, all }
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap()
}
