//! What a whole release costs above the bare `bentoml build` + `bentoml serve` + readiness, in one run, in turn.
//!
//! `cargo bench --bench release_overhead`. Bake is 0 and the approval is `--yes`, as both are waits by wish; the Python environment is
//! there before either begins.

#[path = "../tests/support/bentoml.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Home, Serving, copy_of, root, shared_env, shared_home};
use tidegate::ports::{PythonEnv, ServeCommand};

const ROUNDS: usize = 5;

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
        bare.push(runtime.block_on(bare_release(&env, project.path(), models.path())));
        ours.push(our_release(project.path(), models.path()));
        println!("round {round}: bare {:.2} s, release {:.2} s", secs(bare[round]), secs(ours[round]));
    }
    let (bare, ours) = (median(bare), median(ours));
    println!("median: bare {bare:.2} s, release {ours:.2} s, overhead {:.1} %", 100.0 * (ours - bare) / bare);
}

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
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

async fn bare_release(env: &PythonEnv, project: &Path, models: &Path) -> Duration {
    let began = Instant::now();
    let mut build = bentoml(env, models);
    build.args(["-m", "bentoml", "build", "-o", "tag", "service:IrisClassifier"]).current_dir(project);
    let built = build.output().unwrap();
    assert!(built.status.success());
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
    began.elapsed()
}

fn our_release(project: &Path, models: &Path) -> Duration {
    let home = Home::new();
    std::os::unix::fs::symlink(shared_home().join("envs"), home.path().join("envs")).unwrap();
    let tidegate = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(args).env("TIDEGATE_HOME", home.path()).env("BENTOML_HOME", models);
        command.env("TIDEGATE_PUBLIC_ADDR", "127.0.0.1:0").output().unwrap()
    };
    let began = Instant::now();
    let released = tidegate(&["deploy", project.to_str().unwrap(), "--yes", "--json"]);
    let took = began.elapsed();
    assert!(released.status.success(), "{}", String::from_utf8_lossy(&released.stdout));
    let down = tidegate(&["down"]);
    assert!(down.status.success());
    took
}
