//! Killing a run at its write points, one process after the other.

use serde_json::Value;

use super::{Home, Ran, Running};

/// Write points that a killed process may get further than the one before; reached only where nothing came of fewer. An effect that
/// cannot tell whether it happened needs three commits in one process: failed, attempted, done.
const MOST_POINTS: u64 = 13;
/// Far more kills than a release has write points.
const MOST_KILLS: usize = 600;

/// A run that is killed at every write point until it ends by itself.
pub struct Chain<'a> {
    pub home: &'a Home,
    pub thread: String,
    pub kills: usize,
}

impl<'a> Chain<'a> {
    /// Kills a deploy before, then after its acceptance.
    pub fn deploy(home: &'a Home, project: &super::Project) -> Self {
        Self::begin(home, &["deploy", project.arg(), "--yes", "--json"])
    }

    /// Kills a command that begins a run before, then after the run's acceptance.
    pub fn begin(home: &'a Home, args: &[&str]) -> Self {
        let before = home.json(&["runs"]).as_array().unwrap().len();
        assert_eq!(home.crashes_at(1, args).unwrap_err().code, None);
        assert_eq!(home.json(&["runs"]).as_array().unwrap().len(), before);
        assert_eq!(home.crashes_at(2, args).unwrap_err().code, None);
        let runs = home.json(&["runs"]);
        assert_eq!(runs.as_array().unwrap().len(), before + 1);
        Self { home, thread: runs[0]["thread"].as_str().unwrap().to_owned(), kills: 2 }
    }

    /// Kills right before and right after each commit that takes the run on; returns how the run ended. `after` sees the record after
    /// each kill.
    pub fn kill_on(&mut self, mut after: impl FnMut(&Value)) -> Ran {
        let args = ["run", "resume", &self.thread, "--yes", "--json"];
        let (mut far, mut at) = (0, 1);
        while self.kills < MOST_KILLS {
            match self.home.crashes_at(at, &args) {
                Ok(ended) => return ended,
                Err(_) => self.kills += 1,
            }
            let record = self.home.json(&["run", "export", &self.thread]);
            after(&record);
            let now = progress(&record);
            assert!(now >= far, "it went back from {far} to {now}: {record}");
            // The first points of a process are its lease and, where it runs forward, its own beginning, which take nobody on.
            let first = if record["thread"]["unwinding"].is_null() { 4 } else { 2 };
            at = if now > far { first } else { at + 1 };
            assert!(at <= MOST_POINTS, "nothing goes on any more: {record}");
            far = now;
        }
        panic!("it does not end");
    }
}

/// How far a run is: everything in its record that is never taken back.
fn progress(record: &Value) -> usize {
    let count =
        |name: &str, weigh: fn(&Value) -> usize| record[name].as_array().unwrap().iter().map(weigh).sum::<usize>();
    let entry = |entry: &Value| match entry["status"].as_str().unwrap() {
        "intent" | "failed" => 1,
        "done" => 2,
        "undoing" => 3,
        "undone" => 4,
        other => panic!("an entry is {other}: {entry}"),
    };
    let interrupt = |asked: &Value| if asked["answer"].is_null() { 1 } else { 2 };
    let unwinding = usize::from(!record["thread"]["unwinding"].is_null() || record["thread"]["undone"] == true);
    count("checkpoints", |_| 1) + count("journal", entry) + count("interrupts", interrupt) + unwinding
}

impl Home {
    /// Runs a command that is killed at its n-th write point: `Err`; or that ends before: `Ok`.
    pub fn crashes_at(&self, n: u64, args: &[&str]) -> Result<Ran, Ran> {
        let mut command = self.command(args);
        command.env("TIDEGATE_CRASH_AT", n.to_string());
        let ran = Running::start(command).end();
        if ran.code.is_none() { Err(ran) } else { Ok(ran) }
    }

    /// A release that was killed however often ended as if nothing had happened.
    pub fn assert_as_if_nothing_had_happened(&self, ended: &Ran, thread: &str, says: &str) {
        assert_eq!(ended.code, Some(0), "{ended:?}\n{}", self.logs());
        let output = ended.json();
        assert_eq!(
            (output["deployment_id"].as_str(), output["health_check_passed"].as_bool()),
            (Some(thread), Some(true))
        );
        assert_eq!(super::version(&output), says);
        let rows = self.history("hello");
        let live: Vec<&Value> = rows.iter().filter(|row| row["live"] == true).collect();
        assert!(live.len() == 1 && live[0]["deployment_id"] == thread && live[0]["status"] == "COMPLETED", "{rows:?}");
        assert_eq!((self.builds().len(), self.releases().len()), (1, 1), "{:?} {:?}", self.builds(), self.releases());
        let slots = self.slots();
        assert_eq!(slots, [live[0]["slot_token"].as_str().unwrap()]);
        self.assert_only(&[&slots[0]]);
        let record = self.json(&["run", "export", thread]);
        assert_eq!(record["thread"]["status"], "succeeded");
        assert_eq!(record["interrupts"].as_array().unwrap().len(), 1, "more than one approval was asked: {record}");
        let events = record["events"].as_array().unwrap();
        let asked = events.iter().filter(|row| row["event"]["type"] == "interrupted").count();
        assert_eq!(asked, 1, "{record}");
        // Each effect has one receipt, however often it was attempted.
        for entry in record["journal"].as_array().unwrap() {
            let done = |row: &&Value| {
                let place = format!("/{}#", entry["key"]["name"].as_str().unwrap());
                let at = row["event"]["place"].as_str().unwrap_or_default();
                row["event"]["type"] == "effect_done"
                    && at.contains(&place)
                    && at.contains(entry["key"]["node"].as_str().unwrap())
            };
            if entry["kind"] == "effect" {
                assert_eq!(
                    (entry["status"].as_str(), events.iter().filter(done).count()),
                    (Some("done"), 1),
                    "{entry}"
                );
            }
        }
    }

    /// A release that was killed and failed: FAILED, and nothing is left but what was there before.
    pub fn assert_undone(&self, ended: &Ran, thread: &str, code: &str, slots: &[String], builds: usize) {
        // The last kill may have been after the end: then resuming is refused, with how it ended.
        let error = ended.error();
        let over = error["code"] == "thread_over" && error["cause"].as_str().is_some_and(|why| why.starts_with(code));
        let fits = (ended.code == Some(1) && error["code"] == code) || (ended.code == Some(4) && over);
        assert!(fits, "{ended:?}\n{}", self.logs());
        let row = self.history("hello").into_iter().find(|row| row["deployment_id"] == thread).unwrap();
        assert!(row["status"] == "FAILED" && row["reason"].is_string() && row["live"] == false, "{row}");
        assert_eq!(self.json(&["run", "show", thread])["status"], "failed");
        assert_eq!((self.slots(), self.names("slots")), (slots.to_vec(), slots.to_vec()));
        assert_eq!((self.builds().len(), self.releases().len()), (builds, builds));
        self.assert_only(&slots.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
