//! What the gateway did by itself counts: after a fall-back the row that answers is the live one, for the next release and for a rollback.

mod release_support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use release_support::{Home, version};

#[test]
fn after_a_fall_back_the_version_that_answers_is_the_one_before() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    home.deploy(&home.hello("two").bake("0s"));
    let good = home.history("hello")[1]["model_version"].clone();
    let route = home.host()["routes"][0].clone();
    let slots = home.host()["slots"].clone();
    let live = slots.as_array().unwrap().iter().find(|slot| slot["token"] == route["live"]).unwrap();
    kill(Pid::from_raw(i32::try_from(live["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
    home.until("the gateway has fallen back", || {
        let now = home.host()["routes"][0].clone();
        (now["live"] == route["standby"]).then_some(())
    });
    assert_eq!(version(&one), "one");

    let three = home.deploy(&home.hello("three").bake("0s"));
    assert_eq!(three["previous_version"], good, "{:?}", home.history("hello"));
    let back = home.json(&["rollback", "hello"]);
    assert_eq!(version(&back), "one");
    let live: Vec<_> = home.history("hello").into_iter().filter(|row| row["live"] == true).collect();
    assert_eq!((live.len(), &live[0]["model_version"]), (1, &good));
}
