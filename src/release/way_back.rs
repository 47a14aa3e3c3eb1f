//! Where a rollback leads, and what is no way back.

use chrono::{DateTime, Utc};

use super::ledger::{ReleaseKind, ReleaseRow};
use super::state::PlanState;

/// The row that a rollback of a model goes back to, and why there is none. `history` is newest first.
///
/// With `to`: the newest completed deploy of that version. Without: the version that the live deploy took the place of; or, when a
/// rollback is live, the newest completed deploy of another version, leaving out those that a rollback replaced, because they were found bad.
pub fn rollback_target<'a>(history: &'a [ReleaseRow], to: Option<&str>) -> Option<&'a ReleaseRow> {
    let live = history.iter().find(|row| row.live)?;
    let took_over = |row: &&ReleaseRow| {
        row.superseded_by.as_deref() == Some(&live.deployment_id) && row.created_at < live.created_at
    };
    let replaced = history.iter().find(took_over);
    let to = to.or_else(|| match live.kind {
        ReleaseKind::Deploy => replaced.and_then(|row| row.model_version.as_deref()),
        ReleaseKind::Rollback => None,
    });
    let kind_of = |id: &str| history.iter().find(|row| row.deployment_id == id).map(|row| row.kind);
    let rolled_back = |row: &ReleaseRow| row.superseded_by.as_deref().and_then(kind_of) == Some(ReleaseKind::Rollback);
    history.iter().find(|row| {
        row.kind == ReleaseKind::Deploy
            && row.status == PlanState::Completed
            && row.model_version.is_some()
            && row.model_version != live.model_version
            && match to {
                Some(version) => row.model_version.as_deref() == Some(version),
                // What is younger than a live deploy was left by the gateway's fall-back to it.
                None => !rolled_back(row) && (live.kind == ReleaseKind::Rollback || row.created_at < live.created_at),
            }
    })
}

/// Whether going "back" to the version of `target` would in truth be one more release: when it served last it was left for one that was
/// released before it, by a rollback or by the gateway, because it was found bad. `history` is newest first, as for [`rollback_target`].
pub fn leads_forward(history: &[ReleaseRow], live: &ReleaseRow, target: &ReleaseRow) -> bool {
    let served = |row: &&ReleaseRow| {
        row.status == PlanState::Completed
            && row.model_version == target.model_version
            && row.deployment_id != live.deployment_id
    };
    let last = history.iter().find(served).unwrap_or(target);
    let by = |id: &str| history.iter().find(|row| row.deployment_id == id);
    let successor = last.superseded_by.as_deref().and_then(by);
    successor.is_some_and(|successor| released(history, successor) < released(history, last))
}

/// When what a row serves was released.
fn released(history: &[ReleaseRow], row: &ReleaseRow) -> DateTime<Utc> {
    let deploys = |other: &&ReleaseRow| {
        other.kind == ReleaseKind::Deploy
            && other.status == PlanState::Completed
            && other.model_version == row.model_version
            && other.created_at <= row.created_at
    };
    history.iter().find(deploys).map_or(row.created_at, |deploy| deploy.created_at)
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;

    /// Rows of what was done one after the other, newest first: its id, its version, and by whom it was superseded. The last one is live.
    fn history(done: &[(&str, &str, Option<&str>)]) -> Vec<ReleaseRow> {
        let row = |(n, (id, version, by)): (usize, &(&str, &str, Option<&str>))| {
            let kind = if id.starts_with('r') { ReleaseKind::Rollback } else { ReleaseKind::Deploy };
            let at = DateTime::UNIX_EPOCH + Duration::seconds(i64::try_from(n).unwrap());
            ReleaseRow {
                model_version: Some((*version).to_owned()),
                status: PlanState::Completed,
                superseded_by: by.map(str::to_owned),
                live: by.is_none(),
                ..ReleaseRow::new(id, "m", kind, at)
            }
        };
        done.iter().enumerate().map(row).rev().collect()
    }

    /// Where a rollback leads, and whether that is forward.
    fn way(done: &[(&str, &str, Option<&str>)], to: Option<&str>) -> Option<(String, bool)> {
        let history = history(done);
        let live = history.iter().find(|row| row.live).unwrap();
        let target = rollback_target(&history, to)?;
        Some((target.model_version.clone().unwrap(), leads_forward(&history, live, target)))
    }

    #[test]
    fn what_was_found_bad_is_forward_and_all_else_is_back() {
        let two = [("d1", "1", Some("d2")), ("d2", "2", None)];
        assert_eq!(way(&two, None), Some(("1".into(), false)));
        let back = [("d1", "1", Some("d2")), ("d2", "2", Some("r1")), ("r1", "1", None)];
        assert_eq!(way(&back, Some("2")), Some(("2".into(), true)), "it was gone back from");
        // What was replaced by a release was not found bad, whatever is older.
        let far = [("d1", "1", Some("d2")), ("d2", "2", Some("d3")), ("d3", "3", Some("r1")), ("r1", "1", None)];
        assert_eq!((way(&far, Some("2")), way(&far, Some("3"))), (Some(("2".into(), false)), Some(("3".into(), true))));
    }

    #[test]
    fn the_newest_time_that_a_version_served_counts() {
        // 2 was left, put back on purpose, and replaced by a release: it is what served before.
        let again = [
            ("d1", "1", Some("d2")),
            ("d2", "2", Some("r1")),
            ("r1", "1", Some("r2")),
            ("r2", "2", Some("d3")),
            ("d3", "3", None),
        ];
        assert_eq!(way(&again, None), Some(("2".into(), false)));
        // From 1 somebody went forward to 3 on purpose: 1 was not found bad by that.
        let forth = [
            ("d1", "1", Some("d2")),
            ("d2", "2", Some("d3")),
            ("d3", "3", Some("r1")),
            ("r1", "1", Some("r2")),
            ("r2", "3", None),
        ];
        assert_eq!(way(&forth, Some("1")), Some(("1".into(), false)));
        // 2 served as a rollback and was left by another one.
        let left = [
            ("d1", "1", Some("d2")),
            ("d2", "2", Some("d3")),
            ("d3", "3", Some("r1")),
            ("r1", "2", Some("r2")),
            ("r2", "1", Some("d4")),
            ("d4", "4", None),
        ];
        assert_eq!((way(&left, Some("2")), way(&left, None)), (Some(("2".into(), true)), Some(("1".into(), false))));
        // 1 was released again and left: whether it is named or not.
        let twice = [("d1", "1", Some("d2")), ("d2", "2", Some("d3")), ("d3", "1", Some("r1")), ("r1", "2", None)];
        assert_eq!((way(&twice, Some("1")), way(&twice, None)), (Some(("1".into(), true)), Some(("1".into(), true))));
    }

    #[test]
    fn what_the_gateway_fell_back_from_is_forward() {
        let fell = [("d1", "1", None), ("d2", "2", Some("d1"))];
        assert_eq!(way(&fell, Some("2")), Some(("2".into(), true)));
        let since = [("d1", "1", Some("d3")), ("d2", "2", Some("d1")), ("d3", "3", None)];
        assert_eq!((way(&since, Some("2")), way(&since, None)), (Some(("2".into(), true)), Some(("1".into(), false))));
    }
}
