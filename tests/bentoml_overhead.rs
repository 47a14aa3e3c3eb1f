//! What a package costs above the bare `bentoml build`. Run by hand: `cargo test --release --test bentoml_overhead -- --ignored --nocapture`.

#[path = "support/bentoml.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::{Home, Serving, copy_of, request, root, shared_env, shared_home};
use tidegate::adapters::uv::UvEnvs;
use tidegate::ports::{EnvBackend, EnvRequest, PackageRequest, Packager, Quiet};

const ROUNDS: usize = 7;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

#[tokio::test]
#[ignore = "a measurement"]
async fn package_against_bare_build() {
    let (home, project, env) = (Home::new(), copy_of(&root().join("examples/iris")), shared_env().await);
    let packager = home.packager();
    let ask = |token: String| {
        let (path, env) = (project.path().to_owned(), env.clone());
        async move {
            PackageRequest {
                env,
                train: Some(vec!["python".into(), "train.py".into()]),
                needs_models: vec!["iris_clf:latest".into()],
                service: Some("service:IrisClassifier".into()),
                ..request(&token, &path).await
            }
        }
    };
    let warm = packager.package(&ask("warm".into()).await, &Quiet).await.unwrap();
    let search = std::env::join_paths(
        [env.dir.join("bin"), shared_home().join("tools/uv/bin")]
            .into_iter()
            .chain(std::env::split_paths(env!("PATH"))),
    );
    let search = search.unwrap();
    let (mut bare, mut ours, mut ready, mut envs) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let began = Instant::now();
        let mut build = Command::new(&env.python);
        build.args(["-m", "bentoml", "build", "-o", "tag", "service:IrisClassifier"]).current_dir(project.path());
        build.env("BENTOML_HOME", home.path().join("user-bentoml")).env("BENTOML_DO_NOT_TRACK", "True");
        build.env("PATH", &search);
        assert!(build.output().unwrap().status.success());
        bare.push(began.elapsed());

        let asked = ask(format!("r{round}")).await;
        let began = Instant::now();
        packager.package(&asked, &Quiet).await.unwrap();
        ours.push(began.elapsed());

        let request = EnvRequest {
            project: root().join("examples/iris"),
            requirements: "requirements.lock".into(),
            python: None,
        };
        let began = Instant::now();
        UvEnvs::new(shared_home()).ensure(&request, &Quiet).await.unwrap();
        envs.push(began.elapsed());

        let began = Instant::now();
        let mut serving = Serving::start(&packager, &warm, &home.path().join(format!("slot{round}")));
        serving.ready().await;
        ready.push(began.elapsed());
    }
    let (bare, ours, ready, envs) = (median(bare), median(ours), median(ready), median(envs));
    let share = 100.0 * (ours - bare + envs) / (bare + ready);
    println!(
        "bare build {bare:.0} ms, package {ours:.0} ms, serve to ready {ready:.0} ms, environment check {envs:.1} ms"
    );
    println!("overhead of environment and package: {:.0} ms, {share:.1} % of build and start", ours - bare + envs);
}
