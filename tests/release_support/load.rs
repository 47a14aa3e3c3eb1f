//! Clients that ask all the time, from before a release until after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::web;

/// How many clients ask at once.
const CLIENTS: usize = 8;
/// A client's pause between two requests: all together they leave a core for the release.
const PAUSE: Duration = Duration::from_millis(40);

/// Eight clients, each a thread that loops on the `hello` service's endpoint.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Answered,
    clients: Vec<JoinHandle<Seen>>,
}

/// Versions that have answered so far.
type Answered = Arc<Mutex<BTreeSet<String>>>;

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers by the version that gave them.
    pub answers: BTreeMap<String, u64>,
    /// Requests that failed, with what was wrong.
    pub failed: Vec<String>,
    /// The longest time without an answer, in one client.
    pub longest_gap: Duration,
}

impl Seen {
    /// All answers.
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Not one failed, and there were some.
    #[track_caller]
    pub fn assert_unharmed(&self) {
        assert!(self.failed.is_empty() && self.total() > 20, "{self:?}");
    }

    /// Whether a version answered.
    pub fn saw(&self, version: &str) -> bool {
        self.answers.contains_key(version)
    }
}

impl Load {
    /// Starts the clients on a release's URL and waits until each has asked.
    pub fn on(output: &Value) -> Self {
        let url = format!("{}/greet", output["endpoint_url"].as_str().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Answered::default();
        let client = |number: usize| {
            let (url, stop, answered) = (url.clone(), Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || web::block_on(ask(&url, &stop, &answered, number)))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, answered, clients }
    }

    /// Whether a version has answered already.
    pub fn has_seen(&self, version: &str) -> bool {
        self.answered.lock().unwrap().contains(version)
    }

    /// Stops the clients.
    pub fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for client in std::mem::take(&mut self.clients) {
            let seen = client.join().unwrap();
            for (version, count) in seen.answers {
                *all.answers.entry(version).or_default() += count;
            }
            all.failed.extend(seen.failed);
            all.longest_gap = all.longest_gap.max(seen.longest_gap);
        }
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One client: half of them keep their connection, the others open one for each request.
async fn ask(url: &str, stop: &AtomicBool, answered: &Answered, number: usize) -> Seen {
    let mut seen = Seen::default();
    let kept = web::client();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let client = if number.is_multiple_of(2) { kept.clone() } else { web::client() };
        match once(&client, url).await {
            Ok(version) => {
                answered.lock().unwrap().insert(version.clone());
                *seen.answers.entry(version).or_default() += 1;
            }
            Err(why) => seen.failed.push(why),
        }
        seen.longest_gap = seen.longest_gap.max(last.elapsed());
        last = Instant::now();
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

async fn once(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let answer = client.post(url).json(&json!({"name": "tide"})).send().await.map_err(|e| format!("{e:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|e| format!("{e:?}"))?;
    if status != 200 {
        return Err(format!("{status}: {body}"));
    }
    let value: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
    Ok(value["version"].as_str().unwrap_or("none").to_owned())
}
