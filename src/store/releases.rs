//! Rows of `ml_deployments`.

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params, params_from_iter};

use super::fault::{Done, decode, decode_opt, encode};
use super::threads::encode_opt;
use crate::graph::StoreError;
use crate::release::{
    Format, LedgerError, PlanState, ReleaseChange, ReleaseFilter, ReleaseKind, ReleaseRow, Strategy, Summary,
};

type Ledger<T> = Done<Result<T, LedgerError>>;

/// Adds a row, or returns the one of that id.
pub(super) fn open(conn: &Connection, row: &ReleaseRow) -> Ledger<ReleaseRow> {
    if let Some(stored) = get(conn, &row.deployment_id)? {
        return Ok(stored.check_same(row).map(|()| stored));
    }
    let newest: Option<String> = conn
        .prepare_cached("SELECT max(created_at) FROM ml_deployments WHERE model_name = ?1")?
        .query_row([&row.model_name], |row| row.get(0))?;
    let newest = newest.as_deref().map(parse_stamp).transpose()?;
    let row = row.clone().opened_after(newest);
    write(conn, &row)?;
    Ok(Ok(row))
}

/// Changes a row.
pub(super) fn update(conn: &Connection, id: &str, change: &ReleaseChange) -> Ledger<ReleaseRow> {
    let Some(mut row) = get(conn, id)? else { return Ok(Err(unknown(id))) };
    if let Err(refused) = row.apply(change) {
        return Ok(Err(refused));
    }
    write(conn, &row)?;
    Ok(Ok(row))
}

/// Makes one row of a model the live one, or none.
pub(super) fn set_live(conn: &Connection, model: &str, id: Option<&str>, at: DateTime<Utc>) -> Ledger<()> {
    if let Some(id) = id {
        let Some(row) = get(conn, id)? else { return Ok(Err(unknown(id))) };
        if row.model_name != model {
            let (owner, model) = (row.model_name, model.to_owned());
            return Ok(Err(LedgerError::ReleaseOfOther { deployment_id: id.to_owned(), owner, model }));
        }
    }
    // The old one first: the index admits one live row per model at any moment.
    let mut retire = conn.prepare_cached(
        "UPDATE ml_deployments SET live = 0, superseded_by = coalesce(?2, superseded_by), updated_at = max(updated_at, ?3)
         WHERE model_name = ?1 AND live = 1 AND deployment_id IS NOT ?2",
    )?;
    retire.execute(params![model, id, stamp(at)])?;
    let mut serve = conn.prepare_cached(
        "UPDATE ml_deployments SET live = 1, superseded_by = NULL, updated_at = max(updated_at, ?2)
         WHERE deployment_id = ?1 AND live = 0",
    )?;
    serve.execute(params![id, stamp(at)])?;
    Ok(Ok(()))
}

/// A row by its id.
pub(super) fn get(conn: &Connection, id: &str) -> Done<Option<ReleaseRow>> {
    let mut select = conn.prepare_cached("SELECT * FROM ml_deployments WHERE deployment_id = ?1")?;
    let mut rows = select.query([id])?;
    rows.next()?.map(read).transpose()
}

/// The row of a model that serves.
pub(super) fn live(conn: &Connection, model: &str) -> Done<Option<ReleaseRow>> {
    let mut select = conn.prepare_cached("SELECT * FROM ml_deployments WHERE model_name = ?1 AND live = 1")?;
    let mut rows = select.query([model])?;
    rows.next()?.map(read).transpose()
}

/// The condition of a filter, with its values.
fn wanted(filter: &ReleaseFilter) -> (String, Vec<Sql>) {
    let mut wanted = vec!["1".to_owned()];
    let mut values: Vec<Sql> = Vec::new();
    let mut equal = |column: &str, value: Option<Sql>| {
        if let Some(value) = value {
            wanted.push(format!("{column} = ?"));
            values.push(value);
        }
    };
    equal("model_name", filter.model.clone().map(Sql::from));
    equal("kind", filter.kind.map(|kind| Sql::from(kind.as_str().to_owned())));
    equal("environment", filter.environment.clone().map(Sql::from));
    equal("live", filter.live.map(Sql::from));
    if !filter.status.is_empty() {
        wanted.push(format!("status IN ({})", vec!["?"; filter.status.len()].join(", ")));
        values.extend(filter.status.iter().map(|status| Sql::from(status.as_str().to_owned())));
    }
    (wanted.join(" AND "), values)
}

/// How many rows a filter wants.
pub(super) fn count(conn: &Connection, filter: &ReleaseFilter) -> Done<u64> {
    let (wanted, values) = wanted(filter);
    let mut select = conn.prepare_cached(&format!("SELECT count(*) FROM ml_deployments WHERE {wanted}"))?;
    let found: i64 = select.query_row(params_from_iter(values), |row| row.get(0))?;
    // Counts are never negative.
    Ok(found.unsigned_abs())
}

/// Rows that a filter wants, newest first.
pub(super) fn list(conn: &Connection, filter: &ReleaseFilter) -> Done<Vec<ReleaseRow>> {
    let (wanted, mut values) = wanted(filter);
    // A negative limit is none.
    values.push(Sql::from(filter.limit.map_or(-1, i64::from)));
    values.push(Sql::from(i64::from(filter.offset)));
    let order = "ORDER BY created_at DESC, deployment_id DESC LIMIT ? OFFSET ?";
    let sql = format!("SELECT * FROM ml_deployments WHERE {wanted} {order}");
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Counts over all rows.
pub(super) fn summary(conn: &Connection) -> Done<Summary> {
    let sql = "SELECT count(*), coalesce(sum(live), 0), coalesce(sum(status IN ('DRAFT', 'APPROVED', 'EXECUTING')), 0),
         coalesce(sum(status = 'COMPLETED'), 0), coalesce(sum(status = 'FAILED'), 0), coalesce(sum(kind = 'rollback'), 0),
         count(DISTINCT model_name) FROM ml_deployments";
    let counts = conn.prepare_cached(sql)?.query_row([], |row| {
        // Counts are never negative.
        let count = |column| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
        Ok(Summary {
            total: count(0)?,
            active: count(1)?,
            in_progress: count(2)?,
            completed: count(3)?,
            failed: count(4)?,
            rollbacks: count(5)?,
            models: count(6)?,
        })
    });
    Ok(counts.optional()?.unwrap_or_default())
}

fn unknown(id: &str) -> LedgerError {
    LedgerError::ReleaseUnknown { deployment_id: id.to_owned() }
}

/// Always the same length in UTC: sorts as text.
fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn parse_stamp(text: &str) -> Done<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(text);
    Ok(parsed.map_err(|e| StoreError::Damaged(format!("`{text}` in ml_deployments is no time: {e}")))?.to_utc())
}

const WRITE: &str = "INSERT INTO ml_deployments (deployment_id, model_name, model_version, endpoint_url, deployment_strategy, status,
       created_at, previous_version, reason, content_digest, release_dir, slot, slot_token, plan, output, metrics_baseline,
       requested_by, environment, live, superseded_by, updated_at, finished_at, kind)
     VALUES (:deployment_id, :model_name, :model_version, :endpoint_url, :deployment_strategy, :status, :created_at,
       :previous_version, :reason, :content_digest, :release_dir, :slot, :slot_token, :plan, :output, :metrics_baseline,
       :requested_by, :environment, :live, :superseded_by, :updated_at, :finished_at, :kind)
     ON CONFLICT (deployment_id) DO UPDATE SET model_version = excluded.model_version, endpoint_url = excluded.endpoint_url,
       deployment_strategy = excluded.deployment_strategy, status = excluded.status,
       previous_version = excluded.previous_version, reason = excluded.reason, content_digest = excluded.content_digest,
       release_dir = excluded.release_dir, slot = excluded.slot, slot_token = excluded.slot_token, plan = excluded.plan,
       output = excluded.output, metrics_baseline = excluded.metrics_baseline, requested_by = excluded.requested_by,
       environment = excluded.environment, live = excluded.live, superseded_by = excluded.superseded_by,
       updated_at = excluded.updated_at, finished_at = excluded.finished_at";

fn write(conn: &Connection, row: &ReleaseRow) -> Done<()> {
    if let Some((name, value)) = row.metrics_baseline.iter().find(|(_, value)| !value.is_finite()) {
        // JSON has no word for it: it would be read as damage.
        return Err(StoreError::Failed(format!("metric `{name}` is {value}, which cannot be stored")).into());
    }
    conn.prepare_cached(WRITE)?.execute(named_params! {
        ":deployment_id": row.deployment_id,
        ":model_name": row.model_name,
        ":model_version": row.model_version,
        ":endpoint_url": row.endpoint_url,
        ":deployment_strategy": row.deployment_strategy.as_str(),
        ":status": row.status.as_str(),
        ":created_at": stamp(row.created_at),
        ":previous_version": row.previous_version,
        ":reason": row.reason,
        ":content_digest": row.content_digest,
        ":release_dir": row.release_dir,
        ":slot": row.slot,
        ":slot_token": row.slot_token,
        ":plan": encode_opt(row.plan.as_ref())?,
        ":output": encode_opt(row.output.as_ref())?,
        ":metrics_baseline": encode(&row.metrics_baseline)?,
        ":requested_by": row.requested_by,
        ":environment": row.environment,
        ":live": row.live,
        ":superseded_by": row.superseded_by,
        ":updated_at": stamp(row.updated_at),
        ":finished_at": row.finished_at.map(stamp),
        ":kind": row.kind.as_str(),
    })?;
    Ok(())
}

fn read(row: &Row<'_>) -> Done<ReleaseRow> {
    let text = |column: &str| row.get::<_, String>(column);
    let opt = |column: &str| row.get::<_, Option<String>>(column);
    let (strategy, status, kind) = (text("deployment_strategy")?, text("status")?, text("kind")?);
    Ok(ReleaseRow {
        format: Format,
        deployment_id: text("deployment_id")?,
        model_name: text("model_name")?,
        model_version: opt("model_version")?,
        endpoint_url: opt("endpoint_url")?,
        deployment_strategy: Strategy::parse(&strategy).ok_or_else(|| word("strategy", &strategy))?,
        status: PlanState::parse(&status).ok_or_else(|| word("status", &status))?,
        created_at: parse_stamp(&text("created_at")?)?,
        previous_version: opt("previous_version")?,
        reason: opt("reason")?,
        content_digest: opt("content_digest")?,
        release_dir: opt("release_dir")?,
        slot: opt("slot")?,
        slot_token: opt("slot_token")?,
        plan: decode_opt(opt("plan")?, "a release's plan")?,
        output: decode_opt(opt("output")?, "a release's output")?,
        metrics_baseline: decode(&text("metrics_baseline")?, "a release's metrics")?,
        requested_by: opt("requested_by")?,
        environment: opt("environment")?,
        live: row.get("live")?,
        superseded_by: opt("superseded_by")?,
        updated_at: parse_stamp(&text("updated_at")?)?,
        finished_at: opt("finished_at")?.map(|at| parse_stamp(&at)).transpose()?,
        kind: ReleaseKind::parse(&kind).ok_or_else(|| word("kind", &kind))?,
    })
}

fn word(what: &str, word: &str) -> StoreError {
    StoreError::Damaged(format!("`{word}` in ml_deployments is no {what}"))
}
