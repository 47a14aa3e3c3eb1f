//! Traffic divided among versions: weights, pools, leases, sticky callers, versions by header, holds.

mod host_support;

use std::collections::BTreeMap;

use host_support::{Home, code, fence, get, kill9, switch_to, url};
use sha2::{Digest, Sha256};
use tidegate::host::HostClient;
use tidegate::ports::{Hold, Leg, RenewRequest, RouteRequest, SlotState, Sticky, TrafficPlan, VersionHeader, WHOLE};

fn leg(version: &str, slots: &[&str], weight: u32) -> Leg {
    Leg { version: version.to_owned(), slots: slots.iter().map(|&s| s.to_owned()).collect(), weight }
}

/// `a` is v1 and stable, `b` is v2 with this weight.
fn canary(weight: u32) -> TrafficPlan {
    TrafficPlan { legs: vec![leg("v1", &["a"], WHOLE - weight), leg("v2", &["b"], weight)], ..TrafficPlan::default() }
}

fn divide(traffic: TrafficPlan, expected_generation: u64) -> RouteRequest {
    RouteRequest { model: "iris".to_owned(), traffic, expected_generation, fence: fence(1) }
}

async fn two_versions(home: &Home) -> HostClient {
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    home.ready_slot(&client, "b", "v2").await;
    client
}

/// What `n` requests are answered by.
async fn answers(client: &HostClient, n: usize) -> BTreeMap<String, usize> {
    let (http, url) = (reqwest::Client::new(), url(client, "/version").await);
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let text = http.get(&url).send().await.unwrap().text().await.unwrap();
        *counts.entry(text).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn weights_divide_the_traffic_and_survive_the_daemon() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let request = divide(canary(30_000), 0);
    let route = client.put_route(&request).await.unwrap();
    assert_eq!((route.generation, route.live.as_deref(), &route.traffic), (1, Some("a"), &canary(30_000)));
    // Its answer was lost: the same again is the same.
    assert_eq!(client.put_route(&request).await.unwrap(), route);
    assert_eq!(code(client.put_route(&divide(canary(30_000), 9)).await.unwrap_err()), "route_generation_conflict");
    assert_eq!(code(client.remove_slot("b", 100).await.unwrap_err()), "slot_is_routed");

    // 30 % of 400, give or take six deviations of nine.
    let counts = answers(&client, 400).await;
    assert!((66..=174).contains(&counts["v2"]) && counts["v1"] + counts["v2"] == 400, "{counts:?}");

    kill9(client.status().await.unwrap().pid);
    assert_eq!(client.route("iris").await.unwrap().unwrap(), route);
    assert_eq!(answers(&client, 100).await.len(), 2);

    client.put_route(&divide(canary(WHOLE), 1)).await.unwrap();
    assert_eq!(client.drain("a", 10_000).await.unwrap(), 0);
    assert_eq!(answers(&client, 50).await, [("v2".to_owned(), 50)].into());
    // The simple form is the general one with a single leg.
    let simple = client.switch(&switch_to("b", Some("a"), 2)).await.unwrap();
    assert_eq!(simple.traffic, TrafficPlan::all_to("v2", vec!["b".to_owned()], Some("a".to_owned())));
}

#[tokio::test]
async fn a_damaged_state_is_replaced_by_the_last_good_one_and_said() {
    let home = Home::new();
    let client = two_versions(&home).await;
    client.put_route(&divide(canary(50_000), 0)).await.unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status.recovered, None);
    let path = home.config.home.join("host/state.json");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    kill9(status.pid);
    assert_eq!(answers(&client, 100).await.len(), 2);
    let status = client.status().await.unwrap();
    assert!(status.recovered.unwrap().contains("last good state"));
    assert_eq!((status.routes[0].generation, &status.routes[0].traffic), (1, &canary(50_000)));
    assert_eq!(status.slots.iter().map(|slot| slot.restarts).sum::<u32>(), 0, "its slots went on");
}

#[tokio::test]
async fn a_pool_goes_on_with_what_is_left_and_a_dead_candidate_costs_nobody_a_request() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let twin = home.ready_slot(&client, "twin", "v1").await;
    let pool = TrafficPlan { legs: vec![leg("v1", &["a", "twin"], WHOLE)], ..TrafficPlan::default() };
    client.put_route(&divide(pool, 0)).await.unwrap();
    answers(&client, 100).await;
    let traffic = client.traffic("iris").await.unwrap();
    let of = |token: &str| traffic.iter().find(|t| t.token == token).unwrap().requests;
    assert!(of("a") > 10 && of("twin") > 10 && of("b") == 0, "{traffic:?}");

    kill9(twin.pid.unwrap());
    assert_eq!(answers(&client, 100).await, [("v1".to_owned(), 100)].into());
    let route = client.route("iris").await.unwrap().unwrap();
    assert_eq!((route.generation, route.changed_by_gateway), (1, None), "no reason to fall back");

    client.put_route(&divide(canary(WHOLE), 1)).await.unwrap();
    kill9(client.slot("b").await.unwrap().unwrap().pid.unwrap());
    let counts = answers(&client, 100).await;
    assert!(counts.keys().all(|version| version == "v1" || version == "v2"), "{counts:?}");
    home.wait_state(&client, "b", SlotState::Ready).await;
}

#[tokio::test]
async fn a_replica_that_fails_again_and_again_is_put_out() {
    let home = Home::new();
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    let mut sick = home.request("sick", "v1");
    sick.env.insert("SICK".to_owned(), "1".to_owned());
    client.start_slot(&sick).await.unwrap();
    home.wait_state(&client, "sick", SlotState::Ready).await;
    let pool = TrafficPlan { legs: vec![leg("v1", &["a", "sick"], WHOLE)], ..TrafficPlan::default() };
    client.put_route(&divide(pool, 0)).await.unwrap();
    let put_out =
        |slot: &str, times| format!(r#"tidegate_ejections_total{{model="iris",version="v1",slot="{slot}"}} {times}"#);
    home.until("it is put out", async || {
        get(&client, "/sick").await;
        client.metrics().await.unwrap().contains(&put_out("sick", 1)).then_some(())
    })
    .await;
    assert!(client.metrics().await.unwrap().contains(&put_out("a", 0)));
    let traffic = client.traffic("iris").await.unwrap();
    assert!(traffic[1].errors >= 5 && traffic[0].errors == 0, "{traffic:?}");
}

#[tokio::test]
async fn a_lease_that_nobody_renews_gives_everything_back() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let leased = |ms| TrafficPlan { renew_within_ms: Some(ms), ..canary(50_000) };
    client.put_route(&divide(leased(60_000), 0)).await.unwrap();
    let renewal = RenewRequest { model: "iris".to_owned(), generation: 1, fence: fence(1) };
    assert_eq!(client.renew(&renewal).await.unwrap().generation, 1);
    assert_eq!(answers(&client, 100).await.len(), 2);

    client.put_route(&divide(leased(300), 1)).await.unwrap();
    // Nothing is forgotten by a daemon that dies meanwhile.
    kill9(client.status().await.unwrap().pid);
    let route = home
        .until("the lease is over", async || client.route("iris").await.unwrap().filter(|route| route.generation == 3))
        .await;
    assert_eq!(route.traffic, TrafficPlan::all_to("v1", vec!["a".to_owned()], None));
    let why = route.changed_by_gateway.unwrap();
    assert!(why.contains("thread-1 did not renew") && why.contains("300 ms"), "{why}");
    assert_eq!(answers(&client, 50).await, [("v1".to_owned(), 50)].into());
    let late = RenewRequest { generation: 2, ..renewal };
    assert_eq!(code(client.renew(&late).await.unwrap_err()), "route_generation_conflict");
}

#[tokio::test]
async fn callers_stay_where_they_are_while_the_weight_grows() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let by_header = |weight| TrafficPlan { sticky: Some(Sticky::Header { name: "x-user".into() }), ..canary(weight) };
    let url = url(&client, "/version").await;
    let http = reqwest::Client::new();
    let mut before: Vec<String> = Vec::new();
    for (generation, weight) in [5_000, 25_000, 60_000].into_iter().enumerate() {
        client.put_route(&divide(by_header(weight), generation as u64)).await.unwrap();
        let mut now = Vec::new();
        for user in 0..200 {
            let ask = || http.get(&url).header("x-user", format!("user-{user}")).send();
            let version = ask().await.unwrap().text().await.unwrap();
            assert_eq!(ask().await.unwrap().text().await.unwrap(), version, "the same caller, the same version");
            now.push(version);
        }
        assert!(before.iter().zip(&now).all(|(before, now)| before == "v1" || now == "v2"));
        before = now;
    }
    assert!(before.iter().any(|version| version == "v1") && before.iter().any(|version| version == "v2"));

    let by_cookie = Sticky::Cookie { name: "split".into(), max_age_s: 60 };
    client.put_route(&divide(TrafficPlan { sticky: Some(by_cookie), ..canary(50_000) }, 3)).await.unwrap();
    for _ in 0..20 {
        let first = http.get(&url).send().await.unwrap();
        let cookie = first.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/iris; Max-Age=60; HttpOnly; SameSite=Lax"), "{cookie}");
        let version = first.text().await.unwrap();
        let pair = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let again = http.get(&url).header("cookie", pair).send().await.unwrap();
            assert!(!again.headers().contains_key("set-cookie"));
            assert_eq!(again.text().await.unwrap(), version);
        }
    }
}

#[tokio::test]
async fn a_version_is_chosen_by_header_with_the_token_only() {
    let home = Home::new();
    let client = two_versions(&home).await;
    let token_sha256 = Sha256::digest(b"let me").iter().map(|b| format!("{b:02x}")).collect();
    let plan = TrafficPlan { version_header: Some(VersionHeader { token_sha256 }), ..canary(0) };
    client.put_route(&divide(plan, 0)).await.unwrap();
    let http = reqwest::Client::new();
    let ask = async |path: &str, version: &str, token: Option<&str>| {
        let request = http.get(url(&client, path).await).header("x-tidegate-version", version);
        let request = token.into_iter().fold(request, |request, token| request.header("x-tidegate-token", token));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("/version", "v2", Some("let me")).await, (200, "v2".to_owned()));
    assert_eq!(ask("/version", "v1", Some("let me")).await, (200, "v1".to_owned()));
    assert_eq!(answers(&client, 50).await, [("v1".to_owned(), 50)].into());
    let (status, body) = ask("/version", "v3", Some("let me")).await;
    assert!(status == 404 && body.contains("unknown_version"), "{body}");
    for token in [None, Some("let"), Some("")] {
        let (status, body) = ask("/version", "v2", token).await;
        assert!(status == 403 && body.contains("version_refused"), "{body}");
    }
    let (_, seen) = ask("/headers", "v2", Some("let me")).await;
    assert!(!seen.contains("x-tidegate"), "{seen}");
    // The token is not on disk.
    let state = std::fs::read_to_string(home.config.home.join("host/state.json")).unwrap();
    assert!(state.contains("token_sha256") && !state.contains("let me"));
}

#[tokio::test]
async fn a_hold_keeps_requests_until_something_is_live() {
    let home = Home::new();
    let client = two_versions(&home).await;
    client.switch(&switch_to("a", None, 0)).await.unwrap();
    // As when a version is recreated: nothing is live for a while.
    let hold = |timeout_ms| TrafficPlan { hold: Some(Hold { timeout_ms }), ..TrafficPlan::default() };
    client.put_route(&divide(hold(60_000), 1)).await.unwrap();
    client.remove_slot("a", 1_000).await.unwrap();
    let url = url(&client, "/version").await;
    let waiting: Vec<_> = (0..10).map(|_| tokio::spawn(reqwest::get(url.clone()))).collect();
    home.until("all are held", async || client.metrics().await.unwrap().contains("tidegate_held 10").then_some(()))
        .await;
    let whole = TrafficPlan::all_to("v2", vec!["b".to_owned()], None);
    client.put_route(&divide(whole, 2)).await.unwrap();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().text().await.unwrap(), "v2");
    }
    client.put_route(&divide(hold(1), 3)).await.unwrap();
    assert!(get(&client, "/version").await.contains("no_healthy_slot"));
}
