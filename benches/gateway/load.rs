//! The load: keep-alive connections, each with one request under way, all in one thread. It reads just enough of the answers to know where
//! they end, so that as much of the machine as possible is left to what is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a load asks.
#[derive(Clone)]
pub struct Ask {
    pub to: SocketAddr,
    /// Head and body.
    pub bytes: Vec<u8>,
}

impl Ask {
    /// A prediction: a body of 1 KB of JSON.
    pub fn predict(to: SocketAddr, path: &str) -> Self {
        let body = format!(r#"{{"input":[[{}]]}}"#, vec!["5.125"; 168].join(","));
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\naccept: */*\r\n\
             user-agent: bench\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self { to, bytes: (head + &body).into_bytes() }
    }

    /// A request without a body.
    pub fn get(to: SocketAddr, path: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\naccept: */*\r\nuser-agent: bench\r\n\r\n");
        Self { to, bytes: head.into_bytes() }
    }
}

/// What came of a load.
pub struct Took {
    pub per_second: f64,
    /// In microseconds.
    pub latencies: Histogram<u64>,
    pub failed: u64,
}

impl Took {
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// How hard.
#[derive(Clone, Copy)]
pub struct How {
    pub connections: usize,
    pub lasts: Duration,
    /// Of each connection, between the beginnings of two requests; none: as soon as the answer is there.
    pub every: Option<Duration>,
}

/// Runs it in a thread of its own and waits for its end.
pub fn run(ask: &Ask, how: How) -> Took {
    let ask = ask.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, all(ask, how))
    })
    .join()
    .expect("the load's thread")
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds")
}

async fn all(ask: Ask, how: How) -> Took {
    // Connections are made before anything is measured.
    let mut streams = Vec::new();
    for _ in 0..how.connections {
        let mut caller = Caller::connect(&ask).await.expect("a connection");
        caller.once().await.expect("a first answer");
        streams.push(caller);
    }
    let began = Instant::now();
    let until = began + how.lasts;
    let one = |(n, caller): (usize, Caller)| {
        let first = how.every.map(|every| every.mul_f64(n as f64 / how.connections as f64));
        tokio::task::spawn_local(caller.go_on(until, first.zip(how.every)))
    };
    let tasks: Vec<_> = streams.into_iter().enumerate().map(one).collect();
    let (mut latencies, mut failed) = (histogram(), 0);
    for task in tasks {
        let (some, not) = task.await.expect("a caller");
        latencies.add(some).expect("the same bounds");
        failed += not;
    }
    let per_second = latencies.len() as f64 / began.elapsed().as_secs_f64();
    Took { per_second, latencies, failed }
}

struct Caller {
    ask: Ask,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    async fn connect(ask: &Ask) -> std::io::Result<Self> {
        let stream = TcpStream::connect(ask.to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { ask: ask.clone(), stream, buffer: vec![0; 4096] })
    }

    async fn go_on(mut self, until: Instant, pace: Option<(Duration, Duration)>) -> (Histogram<u64>, u64) {
        let (mut latencies, mut failed) = (histogram(), 0);
        let mut due = Instant::now() + pace.map_or(Duration::ZERO, |(first, _)| first);
        while Instant::now() < until {
            if let Some((_, every)) = pace {
                tokio::time::sleep_until(due.into()).await;
                due += every;
            }
            let began = Instant::now();
            match self.once().await {
                Ok(()) => latencies.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)),
                Err(_) => {
                    failed += 1;
                    // Whoever is away for good is seen by the count; this only keeps the thread alive.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    if let Ok(anew) = Self::connect(&self.ask).await {
                        self = anew;
                    }
                }
            }
        }
        (latencies, failed)
    }

    /// One request and its whole answer.
    async fn once(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.ask.bytes).await?;
        let mut has = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[has..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            has += read;
            if let Some(end) = end_of_answer(&self.buffer[..has])? {
                return if end == has { Ok(()) } else { Err(std::io::Error::other("more than an answer")) };
            }
        }
    }
}

/// Where the answer ends; `None` while its head is not there, or its body not whole.
fn end_of_answer(bytes: &[u8]) -> std::io::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 200") {
        return Err(std::io::Error::other("not 200"));
    }
    const NAME: &[u8] = b"content-length: ";
    let at = bytes[..head].windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME));
    let at = at.ok_or_else(|| std::io::Error::other("no length"))? + NAME.len();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let end = head + 4 + length;
    Ok((bytes.len() >= end).then_some(end))
}
