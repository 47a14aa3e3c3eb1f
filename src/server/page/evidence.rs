//! What a decision rests on, as it is shown.

use std::collections::BTreeMap;

use super::chart::{self, Bars};
use super::words::measured;
use crate::app::OpenQuestion;
use crate::release::{AnswerDifference, Before, Bound, CheckResult, ReleaseRow};

/// Most differing answers that are shown.
const MOST_DIFFERENCES: usize = 50;

/// The evidence of a release.
pub(super) struct Shown {
    pub model: String,
    pub version: String,
    pub previous: Option<String>,
    pub environment: Option<String>,
    pub content: String,
    pub checks: Vec<Check>,
    pub failed: usize,
    /// Whether a check could be shown beside what the live version had.
    pub beside_live: bool,
    pub compared: bool,
    pub differences: Vec<Difference>,
    pub left_out: usize,
    pub traffic: Vec<String>,
    pub because: String,
    /// Whether nothing is built yet.
    pub before_work: bool,
}

/// A check.
pub(super) struct Check {
    pub name: String,
    pub passed: bool,
    pub detail: String,
    pub bars: Option<Bars>,
    /// What the bars show, in words.
    pub beside: String,
}

/// A place where an answer is another one than the live version's.
pub(super) struct Difference {
    pub case: String,
    pub path: String,
    pub live: String,
    pub candidate: String,
    pub why: String,
}

impl Shown {
    /// Of a release's question; `live`: the release of the version that serves as it is asked.
    pub fn of(question: &OpenQuestion, live: Option<&ReleaseRow>) -> Option<Self> {
        let evidence = &question.approval.as_ref()?.evidence;
        let had = live.map(|row| row.metrics_baseline.clone()).unwrap_or_default();
        let checks: Vec<Check> = evidence.checks.iter().map(|one| check(one, &had)).collect();
        let all = evidence.diff_to_live.as_deref().unwrap_or_default();
        let differences: Vec<Difference> = all.iter().flat_map(places).collect();
        Some(Self {
            model: evidence.model.clone(),
            version: evidence.version.clone(),
            previous: evidence.previous_version.clone(),
            environment: evidence.environment.clone(),
            content: evidence.content_digest.clone(),
            failed: checks.iter().filter(|check| !check.passed).count(),
            beside_live: checks.iter().any(|check| check.bars.as_ref().is_some_and(Bars::has_live)),
            checks,
            compared: evidence.diff_to_live.is_some(),
            left_out: differences.len().saturating_sub(MOST_DIFFERENCES),
            differences: differences.into_iter().take(MOST_DIFFERENCES).collect(),
            traffic: evidence.traffic_plan.clone(),
            because: evidence.because.clone(),
            before_work: evidence.before == Before::Work,
        })
    }

    /// The checks in a sentence.
    pub fn verdict(&self) -> String {
        match (self.checks.len(), self.failed) {
            (0, _) if self.before_work => "nothing is built yet".to_owned(),
            (0, _) => "nothing was checked yet".to_owned(),
            (all, 0) => format!("all {all} checks passed"),
            (all, failed) => format!("{failed} of {all} checks failed"),
        }
    }
}

fn check(one: &CheckResult, had: &BTreeMap<String, f64>) -> Check {
    // The name that the live version's measurement got in its baseline.
    let live = one.limit.as_ref().and_then(|limit| had.get(&format!("{}_{}", one.name, limit.unit))).copied();
    let beside = one.limit.as_ref().map(|limit| {
        let bound = if limit.bound == Bound::AtMost { "at most" } else { "at least" };
        let live = live.map(|live| format!(", live version {}", measured(live, &limit.unit))).unwrap_or_default();
        format!("allowed {bound} {}{live}", measured(limit.value, &limit.unit))
    });
    Check {
        name: one.name.clone(),
        passed: one.passed,
        detail: one.detail.clone(),
        bars: chart::check(one, live),
        beside: beside.unwrap_or_default(),
    }
}

fn places(case: &AnswerDifference) -> impl Iterator<Item = Difference> + '_ {
    let text = |value: &Option<serde_json::Value>| match value {
        Some(value) => super::words::short(&value.to_string(), 200),
        None => "nothing".to_owned(),
    };
    case.differences.iter().map(move |place| Difference {
        case: case.case.clone(),
        path: place.path.clone(),
        live: text(&place.expected),
        candidate: text(&place.got),
        why: place.why.clone(),
    })
}
