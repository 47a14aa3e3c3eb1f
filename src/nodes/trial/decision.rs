//! A step `approval`: a person is asked, and the new version is watched as long as the question stands.

use std::time::Duration;

use super::watch::Stretch;
use super::{OnTrial, TrialState, Writes};
use crate::graph::{NodeError, Outcome};
use crate::judge::Verdict;
use crate::nodes::approval_gate::{ApprovalQuestion, terms};
use crate::nodes::deployment_executor::package;
use crate::ports::WHOLE;
use crate::release::{CheckResult, Evidence, Findings, step_words};

impl OnTrial<'_> {
    /// One visit of the node, however long it takes: the question is the visit's. Each stretch is kept, so a run that goes on after a
    /// crash knows what the judge has seen.
    pub(super) async fn decide(&self, state: TrialState) -> Result<Outcome<Writes>, NodeError> {
        let question = ApprovalQuestion::about(&self.shown(&state)?);
        let posed = self.cx.pose(&question, Duration::from_millis(question.open_ms(&self.reads.plan))).await?;
        let (mut state, mut route) = (state, None);
        loop {
            let watcher = self.watcher(Some(&posed));
            let watched = self.cx.pin("watch", watcher.watch(state, None)).await?;
            let Stretch { state: seen, bad, lapsed, settled } = watched;
            self.unharmed(&seen, bad)?;
            if lapsed {
                route = Some(self.divide("divide", seen.weight, &[], route.as_ref()).await?);
            }
            state = self.told(seen).await?;
            if settled {
                break;
            }
        }
        let decision = question.approved(self.cx, &self.reads.plan, posed.answer().await).await?;
        self.cx.emit("trial", serde_json::json!({"approved": decision.by, "step": state.step}));
        Ok(Outcome::update(Writes { trial: self.next(state), route }))
    }

    /// What the decision rests on: what validation found, how the new version has fared so far, and what comes next.
    fn shown(&self, state: &TrialState) -> Result<Evidence, NodeError> {
        let plan = &self.reads.plan;
        let package = package(self.reads.package.clone())?;
        let found = self.reads.validated.clone();
        let (mut checks, diff_to_live) = found.map(|found| (found.checks, found.diff_to_live)).unwrap_or_default();
        let report = state.report.clone().unwrap_or_else(|| state.monitor.report());
        let [requests, errors] = report.candidate;
        let harmless = requests > 0 && report.judgement.verdict != Verdict::Fail;
        let share = f64::from(state.weight) * 100.0 / f64::from(WHOLE);
        let detail = format!("{requests} requests at {share} %, {errors} errors; {}", state.reason());
        checks.push(CheckResult::new(self.trial.word, harmless, detail));
        let (version, content_digest) = (package.model_version, package.content_digest);
        let findings = Findings { version, content_digest, checks, diff_to_live };
        let shown = Evidence::new(plan, findings);
        let rest = self.trial.steps.get(state.step + 1..).unwrap_or_default();
        let mut traffic_plan = step_words(rest, plan.model.as_str(), &plan.slots.candidate);
        traffic_plan.extend(plan.traffic.iter().skip(self.trial.shares()).cloned());
        let because = format!("a step of the {} asks for one", self.trial.called);
        let terms = terms(&*self.world.expressions, plan, &shown)?;
        Ok(Evidence { traffic_plan, because, terms, ..shown })
    }
}
