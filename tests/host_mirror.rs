//! Mirrored requests: repeated at a candidate, compared, never in the way.

mod host_support;

use host_support::{Home, fence, url};
use tidegate::host::HostClient;
use tidegate::ports::{Leg, Mirror, MirrorPage, RouteRequest, SlotState, TrafficPlan, WHOLE};

async fn mirroring(home: &Home, paths: &[&str], curt: bool) -> HostClient {
    let client = home.start().await;
    home.ready_slot(&client, "a", "v1").await;
    let mut candidate = home.request("b", "v2");
    if curt {
        candidate.env.insert("CURT".to_owned(), "1".to_owned());
    }
    client.start_slot(&candidate).await.unwrap();
    home.wait_state(&client, "b", SlotState::Ready).await;
    let leg = |version: &str, slot: &str, weight| Leg { version: version.into(), slots: vec![slot.into()], weight };
    let mirror = Mirror {
        to: "v2".to_owned(),
        share: WHOLE,
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
    };
    let legs = vec![leg("v1", "a", WHOLE), leg("v2", "b", 0)];
    let traffic = TrafficPlan { legs, mirror: Some(mirror), ..TrafficPlan::default() };
    let request = RouteRequest { model: "iris".into(), traffic, expected_generation: 0, fence: fence(1) };
    client.put_route(&request).await.unwrap();
    client
}

async fn pairs(home: &Home, client: &HostClient, after: u64, count: usize) -> MirrorPage {
    home.until("pairs are there", async || {
        Some(client.mirrored("iris", after).await.unwrap()).filter(|page| page.pairs.len() >= count)
    })
    .await
}

#[tokio::test]
async fn what_is_declared_is_repeated_and_both_answers_are_handed_out() {
    let home = Home::new();
    let client = mirroring(&home, &["/echo", "/headers"], false).await;
    let http = reqwest::Client::new();
    let answer = http.post(url(&client, "/echo?x=1").await).body("hello").send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("\"v1\""));
    let page = pairs(&home, &client, 0, 1).await;
    let pair = &page.pairs[0];
    assert_eq!((page.last, page.missed, pair.number), (1, 0, 1));
    assert_eq!((pair.method.as_str(), pair.path.as_str()), ("POST", "/echo?x=1"));
    let said = |body: &tidegate::ports::MirrorBody| -> serde_json::Value {
        serde_json::from_str(body.text.as_ref().unwrap()).unwrap()
    };
    let (live, candidate) = (said(&pair.live.body), said(&pair.candidate.body));
    assert_eq!((&live["version"], &candidate["version"]), (&"v1".into(), &"v2".into()));
    assert!(live["sha"] == candidate["sha"] && live["bytes"] == 5, "the same body reached both");
    for (answer, version, slot) in [(&pair.live, "v1", "a"), (&pair.candidate, "v2", "b")] {
        assert_eq!((answer.version.as_str(), answer.slot.as_str(), answer.status), (version, slot, Some(200)));
        assert!(answer.content_type.as_deref() == Some("text/plain") && answer.latency_ms > 0.0);
    }

    // Marked towards the candidate only, and by nobody else.
    http.get(url(&client, "/headers").await)
        .header("x-tidegate-mirror", "1")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let page = pairs(&home, &client, page.last, 1).await;
    let (live, candidate) = (said(&page.pairs[0].live.body), said(&page.pairs[0].candidate.body));
    assert!(live["headers"]["x-tidegate-mirror"].is_null() && candidate["headers"]["x-tidegate-mirror"] == "1");
    assert_eq!(live["headers"]["x-request-id"], candidate["headers"]["x-request-id"]);

    // Neither declared nor small enough.
    http.get(url(&client, "/version").await).send().await.unwrap().text().await.unwrap();
    let large = http.post(url(&client, "/echo").await).body(vec![7; 2 * 1024 * 1024]);
    large.send().await.unwrap().text().await.unwrap();
    home.until("the large one is counted", async || {
        client.mirrored("iris", 0).await.unwrap().dropped.get("too_large").filter(|n| **n == 1).map(drop)
    })
    .await;
    let traffic = client.traffic("iris").await.unwrap();
    let requests = traffic.iter().map(|t| (t.token.as_str(), t.requests, t.errors)).collect::<Vec<_>>();
    assert_eq!(requests, [("a", 4, 0), ("b", 2, 0)]);
    let metrics = client.metrics().await.unwrap();
    for (outcome, count) in [("repeated", 2), ("too_large", 1)] {
        let line = format!(r#"tidegate_mirrored_total{{model="iris",outcome="{outcome}"}} {count}"#);
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(client.mirrored("other", 0).await.unwrap().pairs.is_empty());
}

#[tokio::test]
async fn a_candidate_that_cannot_follow_costs_live_traffic_nothing() {
    let home = Home::new();
    let client = mirroring(&home, &["/lag"], false).await;
    let (http, lag) = (reqwest::Client::new(), url(&client, "/lag?20000").await);
    // More than are repeated at once and wait together.
    for _ in 0..350 {
        assert_eq!(http.get(&lag).send().await.unwrap().text().await.unwrap(), "v1");
    }
    let page = client.mirrored("iris", 0).await.unwrap();
    assert!(page.dropped["busy"] > 0 && page.pairs.is_empty(), "{page:?}");
    let traffic = client.traffic("iris").await.unwrap();
    assert_eq!((traffic[0].requests, traffic[0].errors), (350, 0));
    assert_eq!(traffic[1].in_flight, 16);
}

/// A connection that is gone when it is used again says nothing of the candidate.
#[tokio::test]
async fn a_candidate_that_ends_connections_has_not_failed() {
    let home = Home::new();
    let client = mirroring(&home, &["/echo"], true).await;
    let (http, echo) = (reqwest::Client::new(), url(&client, "/echo").await);
    let asked = (0..8).map(|_| async {
        for _ in 0..25 {
            http.post(&echo).body("hello").send().await.unwrap().text().await.unwrap();
        }
    });
    futures_util::future::join_all(asked).await;
    let page = pairs(&home, &client, 0, 200).await;
    let lost = page.pairs.iter().filter(|pair| pair.candidate.status != Some(200)).count();
    assert_eq!((lost, page.dropped.get("busy")), (0, None));
}
