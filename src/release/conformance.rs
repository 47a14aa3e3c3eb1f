//! What every release ledger must do: one suite, run against the one in memory and the one in SQLite.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::ledger::{LedgerError, ReleaseChange, ReleaseFilter, ReleaseKind, ReleaseLedger, ReleaseRow, Summary};
use super::state::PlanState;
use super::way_back::{leads_forward, rollback_target};

/// What a ledger did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {detail}")]
pub struct Violation {
    /// The rule.
    pub check: &'static str,
    /// What was seen.
    pub detail: String,
}

impl From<LedgerError> for Violation {
    fn from(error: LedgerError) -> Self {
        Self { check: "a call that must succeed", detail: error.to_string() }
    }
}

/// Holds an **empty** ledger against every rule of [`ReleaseLedger`].
///
/// # Errors
/// The first rule that it breaks.
pub async fn ledger_conformance(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    same("an empty ledger counts nothing", ledger.summary().await?, Summary::default())?;
    same("an empty ledger has nothing live", ledger.live("iris").await?, None)?;
    rows_open_once(ledger).await?;
    changes_are_kept(ledger).await?;
    states_are_guarded(ledger).await?;
    one_is_live(ledger).await?;
    rollbacks_find_their_target(ledger).await?;
    lists_are_ordered(ledger).await?;
    counts_agree(ledger).await?;
    times_follow_the_order_of_opening(ledger).await
}

/// Times are whole milliseconds, which every store can keep.
fn at(ms: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(1_795_168_800_000 + ms)
}

fn same<T: PartialEq + std::fmt::Debug>(check: &'static str, got: T, expected: T) -> Result<(), Violation> {
    if got == expected {
        return Ok(());
    }
    Err(Violation { check, detail: format!("got {got:?}, expected {expected:?}") })
}

fn refused<T: std::fmt::Debug>(
    check: &'static str,
    got: Result<T, LedgerError>,
    code: &'static str,
) -> Result<(), Violation> {
    match got {
        Err(error) => same(check, error.code(), code),
        Ok(value) => Err(Violation { check, detail: format!("got {value:?}, expected the error {code}") }),
    }
}

async fn rows_open_once(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    let mut full = ReleaseRow::new("c-1", "iris", ReleaseKind::Deploy, at(1));
    full.previous_version = Some("v0".to_owned());
    full.plan = Some(json!({"steps": [1, 2.5, "three"], "é": null}));
    full.requested_by = Some("ada".to_owned());
    full.environment = Some("prod".to_owned());
    full.metrics_baseline = [("p99".to_owned(), 12.25)].into();
    same("open returns the row", ledger.open(full.clone()).await?, full.clone())?;
    same("get returns every column", ledger.get("c-1").await?, Some(full.clone()))?;
    let mut again = ReleaseRow::new("c-1", "iris", ReleaseKind::Deploy, at(99));
    again.environment = Some("dev".to_owned());
    same("opening again returns the stored row", ledger.open(again).await?, full.clone())?;
    same("opening again changes nothing", ledger.get("c-1").await?, Some(full))?;
    let other = ReleaseRow::new("c-1", "wine", ReleaseKind::Deploy, at(1));
    refused("an id of another model is refused", ledger.open(other).await, "release_conflict")?;
    let other = ReleaseRow::new("c-1", "iris", ReleaseKind::Rollback, at(1));
    refused("an id of another kind is refused", ledger.open(other).await, "release_conflict")?;
    same("an unknown row is none", ledger.get("nobody").await?, None)
}

async fn changes_are_kept(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    let change = ReleaseChange {
        model_version: Some("v1".to_owned()),
        endpoint_url: Some("http://127.0.0.1:7311/iris".to_owned()),
        content_digest: Some("sha256:11".to_owned()),
        release_dir: Some("/home/r/v1".to_owned()),
        slot: Some("blue".to_owned()),
        slot_token: Some("blue-c-1".to_owned()),
        output: Some(json!({"ok": true})),
        metrics_baseline: Some([("p50".to_owned(), 0.5)].into()),
        ..ReleaseChange::to(PlanState::Approved, at(5))
    };
    let mut expected = ledger.get("c-1").await?.ok_or(Violation { check: "get", detail: "c-1 is gone".to_owned() })?;
    expected.apply(&change)?;
    same("update returns the changed row", ledger.update("c-1", change.clone()).await?, expected.clone())?;
    same("a repeated update is the same", ledger.update("c-1", change).await?, expected.clone())?;
    same("a change is kept", ledger.get("c-1").await?, Some(expected))?;
    refused("an unknown row cannot change", ledger.update("nobody", ReleaseChange::at(at(5))).await, "release_unknown")
}

async fn states_are_guarded(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    let before = ledger.get("c-1").await?;
    let skipped = ReleaseChange { reason: Some("x".to_owned()), ..ReleaseChange::to(PlanState::Completed, at(6)) };
    refused("APPROVED cannot become COMPLETED", ledger.update("c-1", skipped).await, "release_state")?;
    same("a refused change changes nothing", ledger.get("c-1").await?, before)?;
    ledger.update("c-1", ReleaseChange::start(at(6))).await?;
    refused("only one may start", ledger.update("c-1", ReleaseChange::start(at(6))).await, "release_state")?;
    let done = ledger.update("c-1", ReleaseChange::to(PlanState::Completed, at(7))).await?;
    same("a finished row knows when", done.finished_at, Some(at(7)))?;
    let again = ledger.update("c-1", ReleaseChange::to(PlanState::Completed, at(8))).await?;
    same("a repeated end keeps its time", again.finished_at, Some(at(7)))?;
    let late = ReleaseChange::failed("late", at(9));
    refused("COMPLETED cannot become FAILED", ledger.update("c-1", late).await, "release_state")?;
    ledger.open(ReleaseRow::new("c-bad", "iris", ReleaseKind::Deploy, at(10))).await?;
    let failed = ledger.update("c-bad", ReleaseChange::failed("no memory", at(11))).await?;
    same(
        "a failure keeps its reason",
        (failed.status, failed.reason.as_deref()),
        (PlanState::Failed, Some("no memory")),
    )
}

async fn one_is_live(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    completed(ledger, "c-2", "v2", ReleaseKind::Deploy, 20).await?;
    ledger.open(ReleaseRow::new("w-1", "wine", ReleaseKind::Deploy, at(21))).await?;
    refused("an unknown row cannot be live", ledger.set_live("iris", Some("nobody"), at(22)).await, "release_unknown")?;
    refused("a row of another model cannot", ledger.set_live("iris", Some("w-1"), at(22)).await, "release_of_other")?;
    ledger.set_live("wine", Some("w-1"), at(23)).await?;
    ledger.set_live("iris", Some("c-1"), at(23)).await?;
    ledger.set_live("iris", Some("c-2"), at(24)).await?;
    ledger.set_live("iris", Some("c-2"), at(25)).await?;
    same("the newer one is live", live_id(ledger, "iris").await?.as_deref(), Some("c-2"))?;
    let old = ledger.get("c-1").await?.map(|row| (row.live, row.superseded_by, row.updated_at));
    same("the older one is superseded", old, Some((false, Some("c-2".to_owned()), at(24))))?;
    same("another model is left alone", live_id(ledger, "wine").await?.as_deref(), Some("w-1"))?;
    let active: Vec<_> = ledger.active().await?.into_iter().map(|row| row.deployment_id).collect();
    same("one per model is active", active, vec!["w-1".to_owned(), "c-2".to_owned()])?;
    ledger.set_live("wine", None, at(26)).await?;
    same("nothing may be live", live_id(ledger, "wine").await?, None)?;
    let retired = ledger.get("w-1").await?.and_then(|row| row.superseded_by);
    same("retired is not superseded", retired, None)?;
    ledger.set_live("nosuch", None, at(27)).await?;
    Ok(())
}

async fn rollbacks_find_their_target(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    let target = |history: &[ReleaseRow], to| rollback_target(history, to).map(|row| row.deployment_id.clone());
    let forward = |history: &[ReleaseRow], to: &str| {
        let row = |id: &str| history.iter().find(|row| row.deployment_id == id);
        history.iter().find(|row| row.live).zip(row(to)).is_some_and(|(live, row)| leads_forward(history, live, row))
    };
    let history = ledger.history("iris").await?;
    same("the version before is a way back", forward(&history, "c-1"), false)?;
    same("a rollback goes to the version before", target(&history, None).as_deref(), Some("c-1"))?;
    completed(ledger, "r-1", "v1", ReleaseKind::Rollback, 30).await?;
    ledger.set_live("iris", Some("r-1"), at(31)).await?;
    let history = ledger.history("iris").await?;
    same("what a rollback left is no way back", forward(&history, "c-2"), true)?;
    same("a version rolled back from is not gone back to", target(&history, None), None)?;
    same("but it may be named", target(&history, Some("v2")).as_deref(), Some("c-2"))?;
    ledger.set_live("iris", Some("c-2"), at(32)).await?;
    let back = ledger.get("c-2").await?.map(|row| (row.live, row.superseded_by));
    same("what is live is not superseded", back, Some((true, None)))
}

async fn lists_are_ordered(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    ledger.open(ReleaseRow::new("z-1", "iris", ReleaseKind::Deploy, at(20))).await?;
    let ids = |rows: Vec<ReleaseRow>| rows.into_iter().map(|row| row.deployment_id).collect::<Vec<_>>();
    let history = ids(ledger.history("iris").await?);
    same("history is newest first", history, ["z-1", "r-1", "c-2", "c-bad", "c-1"].map(str::to_owned).to_vec())?;
    let newest = ReleaseFilter { limit: Some(2), ..ReleaseFilter::default() };
    same("a limit keeps the newest", ids(ledger.list(&newest).await?), vec!["z-1".to_owned(), "r-1".to_owned()])?;
    let all = ids(ledger.list(&ReleaseFilter::default()).await?);
    let next = ReleaseFilter { offset: 1, ..newest.clone() };
    same(
        "an offset leaves out the newest",
        ids(ledger.list(&next).await?),
        all.iter().skip(1).take(2).cloned().collect(),
    )?;
    let rest = ReleaseFilter { offset: 2, ..ReleaseFilter::default() };
    same("an offset needs no limit", ids(ledger.list(&rest).await?), all.iter().skip(2).cloned().collect())?;
    same("limit and offset change no count", ledger.count(&next).await?, all.len() as u64)?;
    let iris = ReleaseFilter { model: Some("iris".to_owned()), ..ReleaseFilter::default() };
    same("a filter counts", ledger.count(&iris).await?, ledger.list(&iris).await?.len() as u64)?;
    let failed = ReleaseFilter { status: vec![PlanState::Failed], ..ReleaseFilter::default() };
    same("by state", ids(ledger.list(&failed).await?), vec!["c-bad".to_owned()])?;
    let rollbacks = ReleaseFilter { kind: Some(ReleaseKind::Rollback), ..ReleaseFilter::default() };
    same("by kind", ids(ledger.list(&rollbacks).await?), vec!["r-1".to_owned()])?;
    let prod = ReleaseFilter { environment: Some("prod".to_owned()), live: Some(false), ..ReleaseFilter::default() };
    same("by environment and life", ids(ledger.list(&prod).await?), vec!["c-1".to_owned()])?;
    let open = ReleaseFilter::in_progress("iris");
    same("in progress", ids(ledger.list(&open).await?), vec!["z-1".to_owned()])?;
    let none = ReleaseFilter { model: Some("nosuch".to_owned()), ..ReleaseFilter::default() };
    same("an unknown model has no rows", ledger.list(&none).await?, Vec::new())
}

async fn counts_agree(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    let rows = ledger.list(&ReleaseFilter::default()).await?;
    let expected = Summary { total: 6, active: 1, in_progress: 2, completed: 3, failed: 1, rollbacks: 1, models: 2 };
    same("the counts", ledger.summary().await?, expected)?;
    same("the counts are those of the rows", Summary::of(&rows), expected)
}

/// Two releases that begin at once read the clock before they open their rows, in whatever order.
async fn times_follow_the_order_of_opening(ledger: &dyn ReleaseLedger) -> Result<(), Violation> {
    let first = ledger.open(ReleaseRow::new("o-1", "order", ReleaseKind::Deploy, at(50))).await?;
    let second = ledger.open(ReleaseRow::new("o-2", "order", ReleaseKind::Deploy, at(49))).await?;
    same("the second row is the later one", second.created_at > first.created_at, true)?;
    same("it is kept so", ledger.get("o-2").await?.map(|row| row.created_at), Some(second.created_at))?;
    let of_another = ledger.open(ReleaseRow::new("o-3", "alone", ReleaseKind::Deploy, at(1))).await?;
    same("another model has its own order", of_another.created_at, at(1))
}

async fn live_id(ledger: &dyn ReleaseLedger, model: &str) -> Result<Option<String>, Violation> {
    Ok(ledger.live(model).await?.map(|row| row.deployment_id))
}

async fn completed(
    ledger: &dyn ReleaseLedger,
    id: &str,
    version: &str,
    kind: ReleaseKind,
    ms: i64,
) -> Result<(), Violation> {
    ledger.open(ReleaseRow::new(id, "iris", kind, at(ms))).await?;
    let version = ReleaseChange { model_version: Some(version.to_owned()), ..ReleaseChange::at(at(ms)) };
    ledger.update(id, version).await?;
    for status in [PlanState::Executing, PlanState::Completed] {
        ledger.update(id, ReleaseChange::to(status, at(ms))).await?;
    }
    Ok(())
}
