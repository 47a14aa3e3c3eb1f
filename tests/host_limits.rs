//! What the gateway refuses, and what it writes down.

mod host_support;

use host_support::{Home, connect, get, serving, url};
use tidegate::host::HostClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends bytes and reads until the other side closes, bounded.
async fn exchange(client: &HostClient, bytes: &[u8]) -> String {
    let mut stream = connect(client).await;
    // It may be closed before all is sent: that is an answer, too.
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let _ = tokio::time::timeout(host_support::WITHIN, stream.read_to_end(&mut text)).await.expect("it is closed");
    String::from_utf8_lossy(&text).into_owned()
}

async fn requests(client: &HostClient) -> u64 {
    client.traffic("iris").await.unwrap()[0].requests
}

#[tokio::test]
async fn large_bodies_and_heads_are_refused() {
    let (_home, client) = serving(r#"{"max_body_bytes": 1000, "max_header_bytes": 8192, "max_headers": 20}"#).await;
    let (http, echo) = (reqwest::Client::new(), url(&client, "/echo").await);
    assert_eq!(http.post(&echo).body(vec![0; 1000]).send().await.unwrap().status(), 200);
    let refused = http.post(&echo).body(vec![0; 1001]).send().await.unwrap();
    assert_eq!(refused.status(), 413);
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["error"]["code"], "body_too_large");
    assert_eq!(requests(&client).await, 1, "the slot never saw it");

    let pieces = futures_util::stream::iter((0..4).map(|_| Ok::<_, std::io::Error>(vec![0; 400])));
    let streamed = http.post(&echo).body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
    assert_eq!(streamed.status(), 413);

    let long = format!("GET /iris/version HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    assert!(exchange(&client, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..30).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET /iris/version HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    assert!(exchange(&client, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(client.metrics().await.unwrap().contains(r#"tidegate_refused_total{reason="body_too_large"} 2"#));
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn what_is_malformed_never_reaches_a_slot() {
    let (_home, client) = serving("{}").await;
    for bad in [
        "GET /iris/version HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "GET /iris/version HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
        "GET /iris/version HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /iris/version HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET /iris/version HTTP/1.1\r\nX-A\u{0}: 1\r\n\r\n",
        "GET /iris/ver sion HTTP/1.1\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n",
    ] {
        let answer = exchange(&client, bad.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{bad:?}: {answer}");
    }
    assert_eq!(requests(&client).await, 0);
    // Two lengths: the slot gets one of them, so that nobody reads a second request into the first.
    let both = "POST /iris/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 30\r\n\
                Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let answer = exchange(&client, both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.contains("\"bytes\": 5"), "{answer}");
    assert!(requests(&client).await <= 1);
}

#[tokio::test]
async fn connections_are_counted_and_the_one_too_many_is_told() {
    let (home, client) = serving(r#"{"max_connections": 3}"#).await;
    let idle = [connect(&client).await, connect(&client).await, connect(&client).await];
    let answer = home
        .until("the fourth is refused", async || {
            let answer = exchange(&client, b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            Some(answer).filter(|answer| answer.starts_with("HTTP/1.1 503"))
        })
        .await;
    assert!(answer.contains("too_many_connections") && answer.contains("retry-after: 1"), "{answer}");
    drop(idle);
    home.until("there is room again", async || {
        let answer = exchange(&client, b"GET /-/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_ended() {
    let (_home, client) = serving(r#"{"request_timeout_ms": 300}"#).await;
    let answer = reqwest::get(url(&client, "/slow?20000").await).await.unwrap();
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["error"]["code"], "request_timeout");
    let traffic = &client.traffic("iris").await.unwrap()[0];
    assert_eq!((traffic.requests, traffic.errors), (1, 1));
    // Events take longer than that and may.
    let events = reqwest::get(url(&client, "/sse").await).await.unwrap().text().await.unwrap();
    assert!(events.contains("data: 2"), "{events}");
}

#[tokio::test]
async fn every_request_has_an_id_and_with_the_access_log_a_line() {
    let (home, client) = serving(r#"{"access_log": true}"#).await;
    let (http, headers) = (reqwest::Client::new(), url(&client, "/headers?secret=1").await);
    let answer = http.get(&headers).header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "mine-1");
    let seen: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(seen["headers"]["x-request-id"], "mine-1");
    let answer = http.get(url(&client, "/status?503").await).send().await.unwrap();
    let made = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 32);
    let base = url(&client, "").await;
    let unknown = http.get(base.replace("/iris", "/nobody/x")).send().await.unwrap();
    assert!(unknown.headers().contains_key("x-request-id"));

    let path = home.config.home.join("host/access.log");
    let text = home
        .until("three lines are written", async || {
            std::fs::read_to_string(&path).ok().filter(|text| text.lines().count() == 3 && text.ends_with('\n'))
        })
        .await;
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["request_id"], "mine-1");
    assert_eq!((&lines[0]["path"], &lines[0]["status"]), (&"/iris/headers".into(), &200.into()));
    assert!(lines[0]["bytes"].as_u64().unwrap() > 10 && lines[0]["duration_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&lines[1]["request_id"], &lines[1]["version"], &lines[1]["slot"]),
        (&made.into(), &"v1".into(), &"a".into())
    );
    assert_eq!(
        (&lines[2]["model"], &lines[2]["status"], &lines[2]["slot"]),
        (&"nobody".into(), &404.into(), &serde_json::Value::Null)
    );
    assert!(!text.contains("secret"));
}

#[tokio::test]
async fn a_host_name_may_say_the_model() {
    let (_home, client) = serving(r#"{"hosts": {"iris.example": "iris", "wine.example": "wine"}}"#).await;
    let base = url(&client, "").await.replace("/iris", "");
    let http = reqwest::Client::new();
    let ask =
        async |path: &str, host: &str| http.get(format!("{base}{path}")).header("host", host).send().await.unwrap();
    assert_eq!(ask("/iris/version", "Iris.Example:80").await.text().await.unwrap(), "v1 /iris/version");
    assert_eq!(ask("/version", "iris.example").await.text().await.unwrap(), "v1");
    let seen: serde_json::Value = ask("/headers", "iris.example").await.json().await.unwrap();
    assert!(seen["headers"]["x-forwarded-prefix"].is_null() && seen["headers"]["host"] == "iris.example");
    assert_eq!(ask("/version", "wine.example").await.status(), 404);
    assert_eq!(ask("/iris/version", "other.example").await.text().await.unwrap(), "v1");
    assert_eq!(ask("/-/healthz", "iris.example").await.status(), 200);
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let home = Home::with_settings(r#"{"max_header_bytes": 100}"#);
    let error = tidegate::host::ensure_started(&home.config).await.unwrap_err().to_port();
    let all = format!("{error:?}\n{}", home.log());
    assert!(all.contains("at least 8192"), "{all}");
}
