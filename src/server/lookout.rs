//! One look for all who follow a thread: what another process has written rings the thread's bell, as this one's commits do by themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::bell::Bell;
use crate::app::{App, Mark};
use crate::graph::{Stop, StoreError, ThreadId};

/// How often it is looked. Where nothing was written a look is one number, whoever follows how many threads.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How the threads stood that somebody followed; `None`: one that has not begun.
type Known = HashMap<ThreadId, Option<Mark>>;

/// Looks until the server is to stop.
pub(super) async fn keep_looking(app: Arc<App>, bell: Arc<Bell>, mut stop: watch::Receiver<Stop>) {
    let mut watch = app.database().watch();
    let mut known = Known::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => return,
        }
        let heard = bell.heard();
        let is_known = heard.iter().all(|id| known.contains_key(id));
        let looked = match watch.has_changed().await {
            Ok(false) if is_known => continue,
            Ok(_) => look(&app, &bell, heard, &known).await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(marks) => known = marks,
            // Each who follows looks by themselves from time to time.
            Err(error) => tracing::warn!("cannot look for what others have written: {error}"),
        }
    }
}

/// Rings for those that stand otherwise than they did, and for those that were not known: they may have changed since somebody listens.
async fn look(app: &App, bell: &Bell, heard: Vec<ThreadId>, known: &Known) -> Result<Known, StoreError> {
    let mut now: Known = heard.iter().map(|id| (id.clone(), None)).collect();
    now.extend(app.database().marks(heard).await?.into_iter().map(|(id, mark)| (id, Some(mark))));
    now.iter().filter(|(id, mark)| known.get(*id) != Some(mark)).for_each(|(id, _)| bell.ring(id));
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Home;

    #[tokio::test]
    async fn what_another_handle_writes_rings_the_bell() {
        let dir = tempfile::tempdir().unwrap();
        let open = || async { Arc::new(App::open(Home::open(Some(dir.path())).unwrap(), "test", None).await.unwrap()) };
        let (here, elsewhere) = (open().await, open().await);
        let thread = ThreadId::new();
        let bell = Arc::new(Bell::default());
        let mut ear = bell.listen(&thread);
        let mut other = bell.listen(&ThreadId::new());
        let (_stop, stopping) = watch::channel(Stop::No);
        let looking = tokio::spawn(keep_looking(here, bell, stopping));
        let rings = async |ear: &mut watch::Receiver<u64>| {
            tokio::time::timeout(Duration::from_secs(20), ear.changed()).await.unwrap().unwrap();
        };
        // Each is told once that it may look: something may have been written since it listens.
        rings(&mut ear).await;
        rings(&mut other).await;
        let workflow = elsewhere.workflow("tests/workflows/trivial.yaml").unwrap();
        let input = serde_json::Map::from_iter([("x".to_owned(), 1.into())]);
        let accepted = elsewhere.accept(Some(thread), &workflow, input, Default::default()).await;
        assert!(accepted.is_ok());
        rings(&mut ear).await;
        assert!(!other.has_changed().unwrap(), "only the thread that was written");
        looking.abort();
    }
}
