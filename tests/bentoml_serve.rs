//! The traps of a serving BentoML, each sprung on purpose and then survived the way Tidegate serves.

#[path = "support/bentoml.rs"]
mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::{Home, Serving, alive, children, gone, hello, package, project, request};
use tidegate::adapters::bentoml::last_traceback;
use tidegate::ports::{PackageRequest, Packager, Quiet};

/// Requests to `/greet` that a service counted by itself. (BentoML lists its routes with 0 from the start.)
async fn counted(serving: &Serving) -> f64 {
    let metrics = serving.text("/metrics").await;
    let greets = metrics.lines().filter(|line| line.starts_with("bentoml_service_request_total{endpoint=\"/greet\""));
    greets.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Trap 1: every `serve` wipes the metrics of its BENTOML_HOME.
#[tokio::test]
async fn metrics_of_blue_survive_the_start_of_green() {
    let (home, one, two) = (Home::new(), hello("one"), hello("two"));
    let (blue_model, green_model) = (package(&home, "b", one.path()).await, package(&home, "g", two.path()).await);
    let packager = home.packager();

    // Survived: a home per slot.
    let mut blue = Serving::start(&packager, &blue_model, &home.path().join("blue"));
    blue.ready().await;
    assert_eq!(blue.post("/greet", json!({"name": "a"})).await, json!({"greeting": "hello a", "version": "one"}));
    let mut green = Serving::start(&packager, &green_model, &home.path().join("green"));
    green.ready().await;
    assert_eq!((counted(&blue).await, counted(&green).await), (1.0, 0.0), "each counts its own");
    assert_eq!(green.post("/greet", json!({})).await["version"], "two");

    // Sprung: a third one in blue's home.
    let mut shared = Serving::start(&packager, &green_model, &home.path().join("blue"));
    shared.ready().await;
    assert_eq!(
        counted(&blue).await,
        0.0,
        "BentoML no longer wipes a shared home's metrics: a home per slot may be unnecessary"
    );
}

/// Traps 2 and 3: the port listens and `/livez` answers while only `/readyz` tells the truth.
#[tokio::test]
async fn only_readyz_tells_that_a_service_is_not_ready() {
    let (home, project) = (Home::new(), project("never_ready"));
    let model = package(&home, "n", project.path()).await;
    let serving = Serving::start(&home.packager(), &model, &home.path().join("slot"));
    for _ in 0..400 {
        if serving.get("/livez").await == Some(200) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(serving.get("/livez").await, Some(200), "{:?}", serving.log_lines());
    assert_eq!(serving.get("/readyz").await, Some(503));
}

/// Trap 4: a failing `__init__` never exits; its log tells.
#[tokio::test]
async fn a_failing_init_is_known_by_its_last_traceback() {
    let (home, project) = (Home::new(), project("init_raises"));
    let model = package(&home, "i", project.path()).await;
    let mut serving = Serving::start(&home.packager(), &model, &home.path().join("slot"));
    let mut found = None;
    for _ in 0..400 {
        found = last_traceback(&serving.log_lines()).filter(|text| text.contains("RuntimeError"));
        if found.is_some() && serving.log_lines().iter().any(|line| line.contains("startup failed")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let found = found.expect("a traceback in the log");
    assert!(found.ends_with("RuntimeError: the weights file is damaged"), "{found}");
    assert!(found.contains("service.py\", line 13, in __init__") && !found.contains("starlette"), "{found}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(serving.child.try_wait().unwrap(), None, "it never exits");
    assert_ne!(serving.get("/readyz").await, Some(200));
}

/// Trap 7: SIGKILL to the arbiter orphans its workers, which go on serving in sessions of their own: killing the process group
/// does not reach them either.
#[tokio::test]
async fn workers_end_with_their_arbiter() {
    let (home, project) = (Home::new(), hello("one"));
    let model = package(&home, "w", project.path()).await;
    let packager = home.packager();
    let slot = home.path().join("slot");

    let mut unguarded = packager.serve_command(&model, &slot, None);
    unguarded.env.remove("TIDEGATE_SLOT_GUARD").expect("the guard is on by default");
    let mut serving = Serving::run(&unguarded, &slot);
    serving.ready().await;
    let workers = children(serving.child.id());
    serving.kill_arbiter();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let orphans: Vec<u32> = workers.into_iter().filter(|pid| alive(*pid)).collect();
    let served = serving.get("/readyz").await;
    for pid in &orphans {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid as i32), nix::sys::signal::Signal::SIGKILL);
    }
    assert!(!orphans.is_empty() && served == Some(200), "sprung: an orphan serves on");

    let mut serving = Serving::start(&packager, &model, &slot);
    serving.ready().await;
    let workers = children(serving.child.id());
    assert!(!workers.is_empty());
    serving.kill_arbiter();
    for pid in workers {
        assert!(gone(pid).await, "worker {pid} outlived its arbiter");
    }
    // A killed process shows as a zombie while its last threads still close its sockets: about a tenth of a second under load.
    let mut bound = std::net::TcpListener::bind(("127.0.0.1", serving.port));
    for _ in 0..100 {
        if bound.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        bound = std::net::TcpListener::bind(("127.0.0.1", serving.port));
    }
    bound.expect("the port is free");
}

/// The guard ties workers to the arbiter, not the arbiter to whoever started it: slots outlive the daemon. And SIGTERM still ends
/// a slot in order.
#[tokio::test]
async fn sigterm_ends_a_guarded_slot_in_order() {
    let (home, project) = (Home::new(), hello("one"));
    let model = package(&home, "s", project.path()).await;
    let slot = home.path().join("slot");
    let mut serving = Serving::start(&home.packager(), &model, &slot);
    serving.ready().await;
    let workers = children(serving.child.id());
    let group = nix::unistd::Pid::from_raw(serving.child.id() as i32);
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM).unwrap();
    for pid in workers {
        assert!(gone(pid).await);
    }
    assert!(serving.child.wait().unwrap().success());
    assert!(serving.log_lines().iter().any(|line| line.contains("cleanup finalized")), "{:?}", serving.log_lines());
}

/// The failure table: a taken port ends `serve` with the reason in its log.
#[tokio::test]
async fn a_taken_port_ends_serve_at_once() {
    let (home, project) = (Home::new(), hello("one"));
    let model = package(&home, "p", project.path()).await;
    let slot = home.path().join("slot");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = home.packager().serve_command(&model, &slot, None);
    let port = taken.local_addr().unwrap().port().to_string();
    command.argv.iter_mut().filter(|part| *part == "{port}").for_each(|part| part.clone_from(&port));
    let mut serving = Serving::run(&command, &slot);
    assert_eq!(serving.child.wait().unwrap().code(), Some(1));
    let cause = last_traceback(&serving.log_lines()).unwrap();
    assert!(cause.contains("Errno 98") || cause.contains("Address already in use"), "{cause}");
}

/// Traps 8 and 9: BentoML's own export takes `../x` from the root, and two exports of one bento differ. Ours come from Rust: absolute
/// by type, and equal.
#[tokio::test]
async fn exports_are_where_they_were_asked_for_and_equal() {
    let (home, project) = (Home::new(), hello("one"));
    // A version of our own: BentoML's README says `dev` where it made the version, so that only equal questions have equal answers.
    let asked = PackageRequest { version: Some("v1".into()), ..request("e", project.path()).await };
    let model = home.packager().package(&asked, &Quiet).await.unwrap();
    let bentoml = |arguments: &[&str]| {
        let mut command = Command::new(&model.env.python);
        command.args(["-m", "bentoml"]).args(arguments).current_dir(project.path());
        command.env("BENTOML_HOME", home.path().join("other")).env("BENTOML_DO_NOT_TRACK", "True");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    bentoml(&["import", model.archive.to_str().unwrap()]);
    // From the root, `../tmp/x` is `/tmp/x`: named so, the trap leaves nothing outside the test's folder.
    let relative = format!("..{}/relative.bento", home.path().display());
    bentoml(&["export", &model.bento_tag, &relative]);
    let meant = project.path().join(&relative);
    assert!(home.path().join("relative.bento").exists() && !meant.exists(), "sprung: it went elsewhere");
    let absolute = home.path().join("absolute.bento");
    std::thread::sleep(Duration::from_millis(1100));
    bentoml(&["export", &model.bento_tag, absolute.to_str().unwrap()]);
    let read = |path: &std::path::Path| fs::read(path).unwrap();
    assert_ne!(read(&home.path().join("relative.bento")), read(&absolute), "sprung: BentoML's exports differ");

    let elsewhere = Home::new();
    let again = elsewhere.packager().package(&asked, &Quiet).await.unwrap();
    assert_eq!(read(&model.archive).len(), read(&again.archive).len());
    let differ = Command::new("diff").arg("-r").arg(&model.release_dir).arg(&again.release_dir).output().unwrap();
    let differ = String::from_utf8_lossy(&differ.stdout).into_owned();
    assert_eq!(model.content_digest, again.content_digest, "{differ}");
}
