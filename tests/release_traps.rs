//! How BentoML misleads a deployer: a port that listens before the service answers, a worker that dies quietly, a SIGTERM that lets new
//! connections hang. Each trap is shown sprung, and survived.

mod release_support;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use release_support::process::{command_line, environment};
use release_support::{Home, version, web};
use serde_json::json;

/// Whether somebody listens on the port.
fn listens(port: u64) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

#[test]
fn a_port_that_listens_is_not_yet_ready() {
    let home = Home::new();
    let project = home.hello("one").bake("0s").starts_in(4);
    let deploy = home.start(&["deploy", project.arg(), "--yes", "--json"]);
    let (mut sprung, mut seen) = (false, Vec::new());
    home.until("the slot is ready", || {
        let slot = home.host()["slots"][0].clone();
        let port = slot["port"].as_u64()?;
        let state = slot["state"].as_str()?.to_owned();
        let answers = || web::get(&format!("http://127.0.0.1:{port}/readyz")).is_ok_and(|(status, _)| status == 200);
        if state == "starting" && listens(port) {
            sprung = true;
        }
        if state == "ready" {
            assert!(answers(), "a slot is called ready and /readyz does not say so: {seen:?}");
        }
        seen.push(state.clone());
        (state == "ready").then_some(())
    });
    assert!(sprung, "the port never listened before the service answered: {seen:?}");
    assert_eq!(deploy.end().code, Some(0));
}

#[test]
fn a_worker_that_keeps_dying_while_it_is_watched_takes_the_release_back() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    let project = home.hello("two").bake("60s");
    let mut deploy = home.start(&["deploy", project.arg(), "--yes", "--json"]);
    let thread = home.thread_of(&deploy);
    home.event(&thread, "the traffic has moved", |e| e["type"] == "effect_done" && e["effect"] == "switch_traffic");
    let route = home.host()["routes"][0].clone();
    let token = route["live"].as_str().unwrap().to_owned();
    let is_worker = |pid: &u32| command_line(*pid).contains("worker.service") && environment(*pid).contains(&token);
    // The arbiter lives and its port listens all the while. BentoML starts a dead worker again after one to ten seconds, and a single
    // short gap may pass; a worker that dies whenever it comes up may not, and nobody waits for the end of the bake to say so.
    let (mut killed, moved) = (0, Instant::now());
    while deploy.runs() {
        for worker in home.processes().into_iter().filter(is_worker) {
            killed += usize::from(kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL).is_ok());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(killed > 0, "no worker was found");
    let (ended, took) = (deploy.end(), moved.elapsed());
    assert_eq!((ended.code, ended.error_code().as_str()), (Some(1), "bake_failed"), "{ended:?}");
    assert!(took < Duration::from_secs(30), "it was taken back only after {took:?}: {ended:?}");
    println!("taken back after {took:?}: {}", ended.error()["message"]);
    assert_eq!(version(&one), "one");
    assert_eq!(home.slots().len(), 1);
}

#[test]
fn a_call_under_way_outlives_its_slots_role_and_new_ones_do_not_hang() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    let slow = home.hello("two").bake("0s").change(
        "service.py",
        "        return {",
        "        import time\n\n        time.sleep(5 if name == \"slowly\" else 0)\n        return {",
    );
    home.deploy(&slow);
    let url = format!("{}/greet", one["endpoint_url"].as_str().unwrap());
    let call = std::thread::spawn(move || {
        let began = Instant::now();
        (web::post(&url, &json!({"name": "slowly"})), began.elapsed())
    });
    let token = home.host()["routes"][0]["live"].as_str().unwrap().to_owned();
    home.until("the call is under way", || home.host()["in_flight"].as_u64().filter(|n| *n > 0));
    // Switches first, then drains, then ends the slot: the call is finished before anybody sends SIGTERM.
    let back = home.json(&["rollback", "hello"]);
    let began = Instant::now();
    assert_eq!(version(&back), "one");
    assert!(began.elapsed() < Duration::from_secs(2), "a new call hung for {:?}", began.elapsed());
    let (answer, took) = call.join().unwrap();
    let (status, body) = answer.unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"two\"") && took >= Duration::from_secs(4), "{took:?}: {body}");
    assert!(!home.slots().contains(&token), "the old slot is retired after its last call");
}
