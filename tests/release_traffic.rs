//! Releases and rollbacks under load: no request fails.

mod release_support;

use release_support::{Home, Load, version};
use serde_json::{Value, json};

#[test]
fn a_second_release_and_a_rollback_fail_no_request() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one"));
    let load = Load::on(&one);

    let two = home.deploy(&home.hello("two"));
    assert_eq!(two["previous_version"], home.history("hello")[1]["model_version"]);
    assert_eq!(two["endpoint_url"], one["endpoint_url"]);
    assert_eq!(version(&two), "two");
    let traffic = home.json(&["traffic", "hello", "--over", "60"]);
    let live = &traffic["versions"][0];
    assert_eq!(
        (&live["version"], live["weight_percent"].as_f64()),
        (&home.history("hello")[0]["model_version"], Some(100.0))
    );
    assert!(live["requests"].as_u64() > Some(0) && live["errors"] == 0 && live["p99_ms"].is_number(), "{traffic}");
    // The warm standby has no weight; what it answered before still counts.
    let standby = &traffic["versions"][1];
    assert!(standby["weight_percent"].is_null() && standby["requests"].as_u64() > Some(0), "{traffic}");
    assert!(home.ok(&["traffic", "hello"]).stdout.contains("100 %"));
    assert_eq!(home.run(&["traffic", "nobody", "--json"]).error_code(), "model_unknown");

    let back = home.json(&["rollback", "hello", "--reason", "wrong labels"]);
    assert_eq!(version(&back), "one");
    assert_eq!(back["previous_version"], home.history("hello")[1]["model_version"]);

    let seen = load.end();
    seen.assert_unharmed();
    assert!(seen.saw("one") && seen.saw("two"), "{seen:?}");
    let rows = home.history("hello");
    let kinds: Vec<_> =
        rows.iter().map(|row| (row["kind"].clone(), row["live"].clone(), row["reason"].clone())).collect();
    assert_eq!(kinds[0], (json!("rollback"), json!(true), json!("wrong labels")));
    assert_eq!(kinds[1], (json!("deploy"), json!(false), Value::Null));
    assert_eq!(kinds[2], (json!("deploy"), json!(false), Value::Null));
    // What was rolled back from is retired, what serves is not.
    assert_eq!(home.slots(), [rows[0]["slot_token"].as_str().unwrap()]);
}

#[test]
fn a_rollback_to_a_retired_version_starts_it_again() {
    let home = Home::new();
    let one = home.deploy(&home.hello("one").bake("0s"));
    home.deploy(&home.hello("two").bake("0s"));
    let load = Load::on(&one);
    home.deploy(&home.hello("three").bake("0s"));
    let first = home.history("hello")[2].clone();
    let slots = home.slots();
    assert!(slots.len() == 2 && !slots.contains(&first["slot_token"].as_str().unwrap().to_owned()), "{slots:?}");

    let three = home.history("hello")[0]["model_version"].as_str().unwrap().to_owned();
    let version_one = first["model_version"].as_str().unwrap();
    let back = home.json(&["rollback", "hello", "--to", version_one]);
    assert_eq!(version(&back), "one");
    load.end().assert_unharmed();
    assert_eq!(home.slots().len(), 1);
    assert_eq!(home.history("hello").iter().filter(|row| row["live"] == true).count(), 1);

    // From there `rollback` goes to the newest version that served before and is not the one that serves.
    let unknown = home.run(&["rollback", "hello", "--to", "nobody", "--json"]);
    assert_eq!((unknown.code, unknown.error_code().as_str()), (Some(1), "no_previous"));
    assert_eq!(version(&back), "one");

    // Back to what was found bad is a release: where the operator has a rule for those, a rollback is no way past it.
    let config = home.path().join("config.yaml");
    let rule = json!({"name": "leads", "approvals": [{"count": 1, "of": {"groups": ["leads"]}}]});
    std::fs::write(&config, json!({"policy": {"gates": [rule], "groups": {"leads": ["ann"]}}}).to_string()).unwrap();
    let refused = home.run(&["rollback", "hello", "--to", &three, "--json"]);
    assert_eq!((refused.code, refused.error_code().as_str()), (Some(1), "rollback_forward"), "{refused:?}");
    assert_eq!(version(&back), "one");
    // Without a rule it is the operator's own business.
    std::fs::remove_file(&config).unwrap();
    assert_eq!(version(&home.json(&["rollback", "hello", "--to", &three])), "three");
    // And back is free, rule or not.
    std::fs::write(&config, json!({"policy": {"gates": [{"name": "all"}]}}).to_string()).unwrap();
    assert_eq!(version(&home.json(&["rollback", "hello", "--to", version_one])), "one");
}
