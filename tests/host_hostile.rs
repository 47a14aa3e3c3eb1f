//! Clients that are slow, silent, many or up to no good.

mod host_support;

use std::time::{Duration, Instant};

use host_support::{connect, get, serving, switch_to, url};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tidegate::host::HostClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes and reads until the other side closes, or is silent for long enough that it will say nothing more.
async fn exchange(client: &HostClient, bytes: &[u8]) -> String {
    let mut stream = connect(client).await;
    // It may be closed before all is sent: that is an answer, too.
    let _ = stream.write_all(bytes).await;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(Ok(read)) = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What the second request of a smuggler would be answered with, if it got through.
const BOOTY: &str = "v1 /smuggled";

fn with_smuggled(head: &str, body: &str) -> Vec<u8> {
    let second = "GET /iris/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    format!("POST /iris/echo HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}{second}").into_bytes()
}

#[tokio::test]
async fn requests_whose_end_is_in_doubt_are_refused() {
    let (_home, client) = serving("{}").await;
    for head in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: -5",
        "Content-Length: 5\r\n ,6",
        "Content-Length : 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: identity",
        "X-Folded: 1\r\n and more\r\nContent-Length: 5",
        "X-Nul: a\u{0}b\r\nContent-Length: 5",
        "X-Cr: a\rb\r\nContent-Length: 5",
        " X-Begins-Folded: 1\r\nContent-Length: 5",
    ] {
        let answer = exchange(&client, &with_smuggled(head, "hello")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer}");
        assert!(!answer.contains(BOOTY) && answer.matches("HTTP/1.1 ").count() <= 1, "{head:?}: {answer}");
    }
    // A body in pieces belongs to a later version of the protocol than this one.
    let old = "POST /iris/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let answer = exchange(&client, old.as_bytes()).await;
    assert!(answer.is_empty() || answer.contains(" 400 "), "{answer}");
    assert_eq!(client.traffic("iris").await.unwrap()[0].requests, 0, "no slot has seen any of them");
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn pieces_that_are_none_end_the_connection() {
    let (_home, client) = serving("{}").await;
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let answer = exchange(&client, &with_smuggled("Transfer-Encoding: chunked", body)).await;
        assert!(!answer.contains("200 OK") && !answer.contains(BOOTY), "{body:?}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {answer}");
    }
    assert_eq!(get(&client, "/version").await, "v1");
}

/// Which of the two counts is what servers differ about, so nothing that follows is looked at.
#[tokio::test]
async fn a_length_beside_pieces_is_refused_and_ends_the_connection() {
    let (_home, client) = serving("{}").await;
    let pieces = "5\r\nhello\r\n0\r\n\r\n";
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "transfer-encoding: chunked\r\nX-Other: 1\r\ncontent-length: 500\r\nContent-Length: 5",
    ] {
        let answer = exchange(&client, &with_smuggled(head, pieces)).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("both_lengths"), "{head:?}: {answer}");
        assert!(!answer.contains(BOOTY) && answer.matches("HTTP/1.1 ").count() == 1, "{head:?}: {answer}");
    }
    // On a connection that was used before, and with a head that comes in parts.
    let mut stream = connect(&client).await;
    for (sent, expected) in [
        (vec!["GET /iris/version HTTP/1.1\r\nHost: x\r\n\r\n"], "200 OK"),
        (vec!["POST /iris/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", pieces], "\"bytes\": 5"),
        (vec!["POST /iris/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\nContent-Length"], "\"bytes\": 14"),
        (
            vec![
                "POST /iris/echo HTTP/1.1\r\nHost: x\r\nTransfer-Enc",
                "oding: chunked\r\nContent-Length: 60\r\n\r\n",
                pieces,
            ],
            "both_lengths",
        ),
    ] {
        for part in sent {
            stream.write_all(part.as_bytes()).await.unwrap();
            // So that the parts are read apart: nothing says when one was.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(expected) {
            let read = tokio::time::timeout(host_support::WITHIN, stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "{expected}: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");
    // Sent before its turn it is in pieces, its length is dropped, and it is the connection's last.
    let second = "POST /iris/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n";
    let early = format!(
        "GET /iris/version HTTP/1.1\r\nHost: x\r\n\r\n{second}{pieces}GET /iris/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    );
    let answer = exchange(&client, early.as_bytes()).await;
    assert!(answer.contains("\"bytes\": 5") && !answer.contains(BOOTY), "{answer}");
    assert_eq!(get(&client, "/version").await, "v1");
}

#[tokio::test]
async fn slow_and_silent_clients_keep_nobody_waiting() {
    let (home, client) = serving("{}").await;
    let addr = client.status().await.unwrap().public_addr.unwrap();
    let mut slow = Vec::new();
    for n in 0..300 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let sent: &[u8] = match n % 3 {
            0 => b"",
            1 => b"GET /iris/ver",
            _ => b"POST /iris/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\nhalf",
        };
        stream.write_all(sent).await.unwrap();
        slow.push(stream);
    }
    // Clients that have gone without a word: their half of the connection stays.
    let mut half_open = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET /iris/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        half_open.push(stream);
    }
    for _ in 0..50 {
        let began = Instant::now();
        assert_eq!(get(&client, "/version").await, "v1");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    // Who has ended its half gets its answer, or is closed; who drips goes on.
    for mut stream in half_open {
        let mut text = String::new();
        let read = tokio::time::timeout(host_support::WITHIN, stream.read_to_string(&mut text)).await;
        assert!(read.unwrap().is_ok() && (text.is_empty() || text.ends_with("v1")), "{text}");
    }
    for (n, stream) in slow.iter_mut().enumerate().filter(|(n, _)| n % 3 == 1) {
        stream.write_all(b"sion HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("v1"), "{n}: {text}");
    }
    drop(slow);
    home.until("those that were half sent are over", async || {
        (client.traffic("iris").await.unwrap()[0].in_flight == 0).then_some(())
    })
    .await;
    assert_eq!(client.traffic("iris").await.unwrap()[0].errors, 0, "none of it is the slot's fault");
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_stop_nobody() {
    let (home, client) = serving("{}").await;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(20_000), hard);
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Some are for the other tests of this program.
    let many = 10_000.min(soft.saturating_sub(1_000)) as usize;
    if many < 10_000 {
        eprintln!("only {many} connections: no more descriptors are allowed here");
    }
    let status = client.status().await.unwrap();
    let (addr, before) = (status.public_addr.unwrap(), resident(status.pid));
    let mut idle = Vec::new();
    for _ in 0..many {
        idle.push(TcpStream::connect(addr).await.unwrap());
    }
    assert_eq!(get(&client, "/version").await, "v1");
    // All of them are held, and the last one is as good as the first.
    for n in [0, many / 2, many - 1] {
        let stream = &mut idle[n];
        stream.write_all(b"GET /iris/version HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 1024]);
        while !text.ends_with("v1") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "closed after {text:?}");
            text += &String::from_utf8_lossy(&buffer[..read]);
        }
    }
    let grown = resident(status.pid).saturating_sub(before);
    assert!(grown < many as u64 * 16 * 1024, "{} KB for each", grown / 1024 / many as u64);
    drop(idle);
    home.until("it still answers", async || (get(&client, "/version").await == "v1").then_some(())).await;
}

#[tokio::test]
async fn websockets_of_a_drained_version_end_with_their_grace() {
    let (home, client) = serving(r#"{"websocket_grace_ms": 300}"#).await;
    home.ready_slot(&client, "b", "v2").await;
    let mut stream = connect(&client).await;
    let ask = "GET /iris/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let mut seen = String::new();
    while !seen.ends_with("\r\n\r\n") {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed after {seen:?}");
        seen += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    // As long as its version is live a websocket goes on, whoever asks for a drain.
    assert_eq!(client.drain("a", 700).await.unwrap(), 1);
    stream.write_all(b"still").await.unwrap();
    let read = stream.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..read], b"echo:still");

    client.switch(&switch_to("b", Some("a"), 1)).await.unwrap();
    stream.write_all(b"there").await.unwrap();
    let read = stream.read(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..read], b"echo:there", "it outlives the switch");
    let began = Instant::now();
    assert_eq!(client.drain("a", 20_000).await.unwrap(), 0);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "the gateway has closed it");
    assert!(url(&client, "/version").await.ends_with("/iris/version"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let (home, client) = serving("{}").await;
    for pieces in 0..4 {
        let answer = reqwest::get(url(&client, &format!("/torn?{pieces}")).await).await;
        let text = match answer {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        assert!(text.is_err(), "{pieces}: {text:?}");
    }
    home.until("all are counted", async || (client.traffic("iris").await.unwrap()[0].errors == 4).then_some(())).await;
    assert_eq!(get(&client, "/version").await, "v1");
}
