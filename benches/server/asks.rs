//! Clients that ask one request after the other, and what they see.

use std::time::{Duration, Instant};

use serde_json::Value;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub failed: usize,
}

impl Asked {
    /// The middle one by requests per second.
    pub fn middle(rounds: &[Self]) -> Option<Self> {
        let mut rounds = rounds.to_vec();
        rounds.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
        rounds.get(rounds.len() / 2).cloned()
    }
}

/// So many clients ask for as long as that; each has a connection of its own, and asked once before it counts.
pub async fn ask_for(url: &str, path: &str, body: &Value, clients: usize, lasts: Duration) -> Asked {
    let to = format!("{url}{path}");
    let mut asked = tokio::task::JoinSet::new();
    let ready = std::sync::Arc::new(tokio::sync::Barrier::new(clients));
    for _ in 0..clients {
        let (to, body, ready) = (to.clone(), body.to_string(), ready.clone());
        asked.spawn(async move {
            let http = reqwest::Client::new();
            let once = async || {
                let request = http.post(&to).header("content-type", "application/json").body(body.clone());
                let answer = request.send().await.ok()?;
                let status = answer.status();
                answer.bytes().await.ok().filter(|bytes| status == 200 && !bytes.is_empty())
            };
            let _ = once().await;
            ready.wait().await;
            let (began, mut took, mut failed) = (Instant::now(), Vec::new(), 0);
            while began.elapsed() < lasts {
                let began = Instant::now();
                match once().await {
                    Some(_) => took.push(began.elapsed()),
                    None => failed += 1,
                }
            }
            (took, failed, began.elapsed())
        });
    }
    let (mut took, mut failed, mut lasted) = (Vec::new(), 0, lasts);
    while let Some(one) = asked.join_next().await {
        let (some, not, until) = one.expect("a client");
        took.extend(some);
        failed += not;
        lasted = lasted.max(until);
    }
    took.sort();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    };
    Asked { per_second: took.len() as f64 / lasted.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99), failed }
}

/// A process, by its id.
pub struct Process(pub u32);

impl Process {
    /// What it has in memory.
    pub fn memory_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// Processor time so far, in seconds.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("it runs");
        let after = stat.rsplit_once(')').expect("its name").1;
        let ticks = after.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
        ticks.sum::<f64>() / 100.0
    }

    /// Share of one processor over that time.
    pub async fn share_over(&self, time: Duration) -> f64 {
        let before = self.cpu_s();
        tokio::time::sleep(time).await;
        (self.cpu_s() - before) / time.as_secs_f64()
    }
}
