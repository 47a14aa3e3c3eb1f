//! The steps of a canary: how much of the traffic the new version gets, and for how long. Argo Rollouts' `setWeight` and `pause`, as short
//! texts: `5%`, `10m`, `pause`, `analysis`, `approval`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::trial::SplitBy;
use super::units::{Share, UnitError, duration_text, parse_duration_ms, parse_share};
use crate::judge::{DEFAULT_WINDOW_MS, Rule};

/// All of the traffic: weights are parts of this.
pub const WHOLE_WEIGHT: u32 = 100_000;
/// More steps are a mistake.
const MOST_STEPS: usize = 100;
/// The word of a step that waits for a person.
const PAUSE: &str = "pause";
/// The word of a step that waits for the judge.
const ANALYSIS: &str = "analysis";
/// The word of a step that needs a decision.
const APPROVAL: &str = "approval";

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryStep {
    /// The new version gets so much of the traffic, in parts of [`WHOLE_WEIGHT`].
    Weight(u32),
    /// It stays so for so many milliseconds.
    Wait(u64),
    /// It stays so until somebody promotes it.
    Pause,
    /// It stays so until the judge, who begins anew at this share, lets it pass.
    Analysis,
    /// It stays so, watched, until somebody has approved what was shown; a rejection, or none in time, ends the release.
    Approval,
}

impl CanaryStep {
    /// The step that gives so much of the traffic, 0 to 1.
    pub fn share(share: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1")]
        Self::Weight((share.clamp(0.0, 1.0) * f64::from(WHOLE_WEIGHT)).round() as u32)
    }

    /// The share that it gives, in parts of [`WHOLE_WEIGHT`]; 0 where it gives none.
    fn weight(self) -> u32 {
        if let Self::Weight(weight) = self { weight } else { 0 }
    }
}

/// A step as text: `5%`, `10m`, `pause`, `analysis`, `approval`.
impl fmt::Display for CanaryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weight(weight) => write!(f, "{}%", f64::from(*weight) * 100.0 / f64::from(WHOLE_WEIGHT)),
            Self::Wait(ms) => f.write_str(&duration_text(*ms)),
            Self::Pause => f.write_str(PAUSE),
            Self::Analysis => f.write_str(ANALYSIS),
            Self::Approval => f.write_str(APPROVAL),
        }
    }
}

impl std::str::FromStr for CanaryStep {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let wrong = || UnitError {
            value: text.to_owned(),
            what: "a canary's step",
            accepted: "a share such as 5%, a time such as 10m, `pause`, `analysis` or `approval`",
        };
        if text == PAUSE {
            return Ok(Self::Pause);
        }
        if text == ANALYSIS {
            return Ok(Self::Analysis);
        }
        if text == APPROVAL {
            return Ok(Self::Approval);
        }
        if text.ends_with('%') {
            let share = parse_share(text).map_err(|_| wrong())?;
            return Ok(Self::share(share));
        }
        parse_duration_ms(text).map(Self::Wait).map_err(|_| wrong())
    }
}

impl Serialize for CanaryStep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CanaryStep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for CanaryStep {
    fn schema_name() -> Cow<'static, str> {
        "CanaryStep".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A share of the traffic, a time, `pause`, `analysis` or `approval`: 5%, 10m, pause",
            "examples": ["5%", "10m", PAUSE, ANALYSIS, APPROVAL],
        })
    }
}

/// Steps that make sense together: the first gives a share, each share is larger than the one before, and the last is at most all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct CanarySteps(Vec<CanaryStep>);

impl CanarySteps {
    /// Holds steps against each other. All of the traffic at the end is understood.
    ///
    /// # Errors
    /// The first thing that makes no sense, in words.
    pub fn new(steps: Vec<CanaryStep>) -> Result<Self, String> {
        if !matches!(steps.first(), Some(CanaryStep::Weight(_))) {
            return Err("a canary's first step is a share of the traffic, such as 5%".to_owned());
        }
        if steps.len() > MOST_STEPS {
            return Err(format!("a canary has at most {MOST_STEPS} steps, not {}", steps.len()));
        }
        let mut before = 0;
        for step in &steps {
            if let CanaryStep::Weight(weight) = step {
                if *weight <= before {
                    return Err(format!("the share {step} is not larger than the one before"));
                }
                before = *weight;
            }
        }
        if before == WHOLE_WEIGHT && steps.last() != Some(&CanaryStep::Weight(WHOLE_WEIGHT)) {
            return Err("nothing comes after 100%: how the version is watched then is `bake`".to_owned());
        }
        Ok(Self(steps.into_iter().filter(|step| *step != CanaryStep::Weight(WHOLE_WEIGHT)).collect()))
    }

    /// `5%,10m,25%,10m,100%`.
    ///
    /// # Errors
    /// The first step that is none, or what makes no sense, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let steps: Result<Vec<CanaryStep>, UnitError> = text.split(',').map(str::parse).collect();
        Self::new(steps.map_err(|e| e.to_string())?)
    }

    /// The steps before all of the traffic.
    pub fn steps(&self) -> &[CanaryStep] {
        &self.0
    }

    /// How long it takes where nobody pauses it, in milliseconds.
    pub fn watched_ms(&self) -> u64 {
        waits_ms(&self.0)
    }

    /// The steps from the one on that gives at least so much of the traffic.
    fn from(&self, parts: u32) -> &[CanaryStep] {
        let first = self.0.iter().position(|step| matches!(step, CanaryStep::Weight(weight) if *weight >= parts));
        first.map_or(&[], |first| &self.0[first..])
    }
}

fn waits_ms(steps: &[CanaryStep]) -> u64 {
    let waits = steps.iter().map(|step| if let CanaryStep::Wait(ms) = step { *ms } else { 0 });
    waits.fold(0, u64::saturating_add)
}

impl Default for CanarySteps {
    fn default() -> Self {
        let share = |parts| CanaryStep::Weight(parts * (WHOLE_WEIGHT / 100));
        let wait = CanaryStep::Wait(600_000);
        Self(vec![share(5), wait, share(25), wait, share(50), wait])
    }
}

impl<'de> Deserialize<'de> for CanarySteps {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// How a canary is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanarySpec {
    /// Its steps; absent: 5 %, 25 % and 50 % for ten minutes each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<CanarySteps>,
    /// What is held while it has a part of the traffic; absent: error rate and p99 are no higher than the live version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Rule>,
    /// The judge begins with the first step that gives at least so much of the traffic (Argo's `startingStep`); absent: with the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis_from: Option<Share>,
    /// Keeps a caller at the version that it had: `cookie`, `client-ip`, or `{ header: x-user-id }`; absent: each request is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SplitBy>,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryPlan {
    /// Its steps.
    pub steps: CanarySteps,
    /// What is held meanwhile.
    pub analysis: Rule,
    /// From which share of the traffic on, in parts of [`WHOLE_WEIGHT`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub analysis_from: u32,
    /// What keeps a caller at its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SplitBy>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(parts: &u32) -> bool {
    *parts == 0
}

impl CanaryPlan {
    /// Refuses what could judge nothing.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn check(&self) -> Result<(), String> {
        self.analysis.validate().map_err(|e| format!("analysis: {e}"))?;
        let judged = self.steps.from(self.analysis_from);
        let from = CanaryStep::Weight(self.analysis_from);
        if judged.is_empty() {
            return Err(format!("analysis_from: no step gives {from} of the traffic, so nothing would be judged"));
        }
        let before = self.steps.steps().len() - judged.len();
        if self.steps.steps()[..before].contains(&CanaryStep::Analysis) {
            return Err(format!(
                "analysis_from: a step `analysis` comes before {from}, and the judge does not look yet"
            ));
        }
        Ok(())
    }
}

impl CanarySpec {
    /// With its defaults: the judge watches as long as the steps take.
    #[must_use]
    pub fn plan(&self) -> CanaryPlan {
        let steps = self.steps.clone().unwrap_or_default();
        // Steps that wait for somebody take no time of their own.
        let analysis_from = self.analysis_from.map_or(0, |share| CanaryStep::share(share.0).weight());
        let window_ms = Some(waits_ms(steps.from(analysis_from))).filter(|ms| *ms > 0).unwrap_or(DEFAULT_WINDOW_MS);
        let watched = || Rule { window_ms, ..Rule::default() };
        let analysis = self.analysis.clone().unwrap_or_else(watched);
        CanaryPlan { analysis, analysis_from, steps, by: self.by.clone() }
    }

    /// The same with what `over` says differently.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let (steps, analysis, by) = (over.steps.clone(), over.analysis.clone(), over.by.clone());
        Self {
            steps: steps.or_else(|| self.steps.clone()),
            analysis: analysis.or_else(|| self.analysis.clone()),
            analysis_from: over.analysis_from.or(self.analysis_from),
            by: by.or_else(|| self.by.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_are_short_texts_and_come_back() {
        let steps = CanarySteps::parse("0.5%, 90s, 25%, pause, 50%, 10m, 100%").expect("steps");
        assert_eq!(steps.watched_ms(), 690_000);
        assert_eq!(steps.steps()[..2], [CanaryStep::Weight(500), CanaryStep::Wait(90_000)]);
        let text = json!(steps);
        assert_eq!(serde_json::from_value::<CanarySteps>(text.clone()).expect("steps"), steps, "{text}");
        assert_eq!(CanarySteps::parse("5%,10m,25%,10m,50%,10m").expect("steps"), CanarySteps::default());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, part) in [
            ("10m,5%", "first step"),
            ("", "a canary's step"),
            ("5%,5%", "not larger"),
            ("25%,10m,5%", "5% is not larger"),
            ("5%,10", "`10` is not a canary's step"),
            ("105%", "`105%`"),
            ("100%,10m", "`bake`"),
            ("0%", "0% is not larger"),
        ] {
            let error = CanarySteps::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(CanarySteps::parse(&format!("1%{}", ",1s".repeat(100))).is_err());
    }

    #[test]
    fn the_judge_watches_as_long_as_the_steps_take() {
        let spec: CanarySpec = serde_json::from_value(json!({"steps": ["5%", "1m", "50%", "2m"]})).expect("a spec");
        assert_eq!(spec.plan().analysis.window_ms, 180_000);
        let waits: CanarySpec =
            serde_json::from_value(json!({"steps": ["5%", "analysis", "50%", "pause"]})).expect("a spec");
        assert_eq!(waits.plan().analysis.window_ms, DEFAULT_WINDOW_MS);
        assert_eq!(waits.plan().steps.steps()[1], CanaryStep::Analysis);
        let over = CanarySpec { analysis: Some(Rule { alpha: 0.05, ..Rule::default() }), ..CanarySpec::default() };
        let both = spec.overlaid(&over).plan();
        assert_eq!((both.analysis.alpha, both.steps), (0.05, spec.plan().steps));
        assert!(serde_json::from_value::<CanarySpec>(json!({"step": []})).is_err());
    }

    #[test]
    fn the_judge_may_begin_at_a_later_share() {
        let planned = |steps: &[&str], from: &str| {
            let spec = json!({"steps": steps, "analysis_from": from});
            serde_json::from_value::<CanarySpec>(spec).expect("a spec").plan()
        };
        let later = planned(&["1%", "1m", "20%", "2m", "50%", "3m"], "10%");
        assert_eq!((later.analysis_from, later.analysis.window_ms, later.check()), (10_000, 300_000, Ok(())));
        assert_eq!(serde_json::from_value::<CanaryPlan>(json!(later)).expect("a plan"), later);
        let never = planned(&["1%", "1m", "20%", "2m"], "30%").check().expect_err("never");
        assert!(never.contains("no step gives 30%"), "{never}");
        let early = planned(&["1%", "analysis", "20%", "2m"], "20%").check().expect_err("too early");
        assert!(early.contains("comes before 20%"), "{early}");
        assert_eq!(json!(CanarySpec::default().plan()).get("analysis_from"), None);
    }
}
