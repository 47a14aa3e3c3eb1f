//! Several processes on one file. A child is this test binary again, told by its environment what to do.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tidegate::graph::{Record, Store, StoreError, ThreadId};
use tidegate::store::{SqliteStore, this_process};

use super::{Tested, answer, checkpoint, create, normal, note, place, question, state, transaction};

const FILE: &str = "TIDEGATE_TEST_STORE_FILE";
const ROLE: &str = "TIDEGATE_TEST_STORE_ROLE";

fn child(path: &Path, role: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--exact", "processes::child_process", "--nocapture"])
        .env(FILE, path)
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

/// Does nothing unless it is told to by [`child`].
#[tokio::test]
async fn child_process() -> Tested {
    let (Ok(path), Ok(role)) = (std::env::var(FILE), std::env::var(ROLE)) else { return Ok(()) };
    let store = SqliteStore::open(path)?;
    let id = ThreadId::from("t");
    match role.as_str() {
        "acquire" => match store.acquire(&id, &this_process("child")).await {
            Ok(_) => say("won"),
            Err(StoreError::Held { .. }) => say("held"),
            Err(other) => return Err(other.into()),
        },
        "answer" => {
            let by = std::process::id().to_string();
            match store.answer(&question(&id).id, &answer(&by), None).await {
                Ok(_) => say(&format!("won by {by}")),
                Err(StoreError::Answered { by, .. }) => say(&format!("lost to {by}")),
                Err(other) => return Err(other.into()),
            }
        }
        "write" => {
            let epoch = store.acquire(&id, &this_process("child")).await?.epoch;
            for n in 1.. {
                let values = state(serde_json::json!({"items": (0..n).collect::<Vec<i64>>()}));
                let records = vec![Record::Checkpoint(Arc::new(checkpoint(n, values))), note(0)];
                store.commit(transaction(&id, epoch, records)).await?;
                say(&n.to_string());
            }
        }
        "fill" => fill(&store, &id).await?,
        other => return Err(format!("no role {other}").into()),
    }
    // Lives on until the parent lets go: the lease of a dead process is free.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn say(line: &str) {
    println!("\n>{line}");
}

/// The next line that a child says.
fn hear(out: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    while out.read_line(&mut line)? > 0 {
        if let Some(said) = line.strip_prefix('>') {
            return Ok(said.trim().to_owned());
        }
        line.clear();
    }
    Err(std::io::Error::other("the child said nothing more"))
}

fn race(path: &Path, role: &str) -> Result<Vec<String>, std::io::Error> {
    let spawn = || {
        let mut command = child(path, role)?;
        let out = command.stdout.take().map(BufReader::new);
        Ok((command, out))
    };
    let mut children = (0..4).map(|_| spawn()).collect::<Result<Vec<_>, std::io::Error>>()?;
    let said = children.iter_mut().filter_map(|(_, out)| out.as_mut().map(hear)).collect();
    for (child, _) in &mut children {
        child.kill()?;
        child.wait()?;
    }
    said
}

#[tokio::test]
async fn processes_race_for_a_lease_and_an_answer() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open(&path)?;
    let id = create(&store, "t").await?;
    store.acquire(&id, &this_process("parent")).await?;
    store.commit(transaction(&id, 1, vec![Record::Interrupt(Box::new(question(&id)))])).await?;
    store.release(&id, 1).await?;

    let said = race(&path, "acquire")?;
    assert_eq!(said.iter().filter(|word| *word == "won").count(), 1, "{said:?}");
    let taken = store.acquire(&id, &this_process("parent")).await?;
    assert_eq!(taken.epoch, 3, "the winner is dead, its lease is free at once");

    let said = race(&path, "answer")?;
    let winner = said.iter().find_map(|word| word.strip_prefix("won by ")).expect("one won");
    assert_eq!(said.iter().filter(|word| **word == format!("lost to {winner}")).count(), 3, "{said:?}");
    let kept = store.interrupt(&question(&id).id).await?.and_then(|i| i.answer).map(|a| a.by);
    assert_eq!(kept.as_deref(), Some(winner));
    Ok(())
}

#[tokio::test]
async fn handles_race_for_a_lease() -> Tested {
    let (_dir, path) = place()?;
    let stores = [SqliteStore::open_with(&path, normal())?, SqliteStore::open_with(&path, normal())?];
    let id = create(&stores[0], "t").await?;
    let (a, b) = (this_process("a"), this_process("b"));
    let ends = tokio::join!(stores[0].acquire(&id, &a), stores[1].acquire(&id, &b));
    let (held, owner) = match ends {
        (Ok(_), Err(held)) => (held, a),
        (Err(held), Ok(_)) => (held, b),
        other => return Err(format!("one must win: {other:?}").into()),
    };
    assert_eq!(held, StoreError::Held { thread: id, owner: Box::new(owner) });
    Ok(())
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_there() -> Tested {
    let (_dir, path) = place()?;
    let store = SqliteStore::open(&path)?;
    let id = create(&store, "t").await?;
    let mut accepted = 0_i64;
    for round in 0..5 {
        let mut child = child(&path, "write")?;
        let mut out = child.stdout.take().map(BufReader::new).ok_or("no output")?;
        for _ in 0..=round * 17 {
            accepted = hear(&mut out)?.parse()?;
        }
        child.kill()?;
        child.wait()?;
        while let Ok(line) = hear(&mut out) {
            accepted = line.parse()?;
        }
        let newest = store.latest(&id, "").await?.ok_or("no checkpoint")?;
        // One more may have been committed without being told.
        assert!((accepted..=accepted + 1).contains(&newest.step), "{accepted} accepted, {} there", newest.step);
        let items = newest.values.get("items").and_then(|v| v.as_array()).map(Vec::len);
        assert_eq!(items.map(|n| n as i64), Some(newest.step));
    }
    assert_eq!(store.verify_audit().await?.rows, 1);
    Ok(())
}

/// Writes until the file may not grow any more; then it may again.
async fn fill(store: &SqliteStore, id: &ThreadId) -> Tested {
    let epoch = store.acquire(id, &this_process("child")).await?.epoch;
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    // SAFETY: ignoring a signal installs no handler.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }?;
    setrlimit(Resource::RLIMIT_FSIZE, 400_000, hard)?;
    let mut kept = 0;
    let refused = loop {
        let records = (0..20).map(note).collect();
        match store.commit(transaction(id, epoch, records)).await {
            Ok(()) => kept += 20,
            Err(error) => break error,
        }
    };
    let there = store.events(id, 1, usize::MAX).await?.len();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard)?;
    store.commit(transaction(id, epoch, vec![note(1)])).await?;
    let after = store.events(id, 1, usize::MAX).await?.len();
    let word = if matches!(refused, StoreError::CannotWrite(_)) { "cannot write" } else { "other" };
    say(&format!("{word} {} {}", there - kept, after - kept));
    eprintln!("after {kept} events: {refused}");
    Ok(())
}

#[tokio::test]
async fn a_disk_that_takes_no_more_refuses_and_recovers() -> Tested {
    let (_dir, path) = place()?;
    create(&SqliteStore::open(&path)?, "t").await?;
    let mut child = child(&path, "fill")?;
    let said = child.stdout.take().map(BufReader::new).as_mut().map(hear).ok_or("no output")?;
    child.kill()?;
    child.wait()?;
    assert_eq!(said?, "cannot write 0 1");
    Ok(())
}
