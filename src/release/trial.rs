//! What a new version has to go through before it gets all of the traffic: a canary's steps, an A/B test, a shadow. Three ways to ask for
//! it, one way to do it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::canary::{CanaryPlan, CanaryStep};
use super::units::{Millis, Share};
use crate::judge::answers::{Answers, AnswersRule};
use crate::judge::{Check, ErrorRatio, Rule};

/// How long a shadow compares where nobody says.
pub const DEFAULT_SHADOW_MS: u64 = 600_000;
/// The new version's part of an A/B test where nobody says.
pub const DEFAULT_AB_SHARE: f64 = 0.5;
/// How long an A/B test lasts where nobody says: a day, because callers of the morning are not those of the evening.
pub const DEFAULT_AB_MS: u64 = 86_400_000;

/// What a caller is known by, so that it stays at its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SplitBy {
    /// A cookie that the gateway sets.
    Cookie,
    /// The address that the connection comes from.
    ClientIp,
    /// The value of this request header; a request without it is drawn.
    Header(String),
}

/// Smallest share that the gateway can divide by, 0 to 1.
const SMALLEST_SHARE: f64 = 0.000_01;

impl SplitBy {
    /// Why it makes no sense, if it does not.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Header(name)
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
            {
                Err(format!("by: `{name}` is no name of a header, such as x-user-id"))
            }
            _ => Ok(()),
        }
    }
}

/// How an A/B test is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbTestSpec {
    /// The new version's part of the callers; absent: half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What a caller is known by: `cookie`, `client-ip`, or `{ header: x-user-id }`; absent: a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SplitBy>,
    /// How long; absent: a day.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Millis>,
    /// What is held meanwhile; absent: error rate and p99 are no higher than the live version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Rule>,
}

/// An A/B test as it will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbTestPlan {
    /// The new version's part of the callers, 0 to 1.
    pub share: f64,
    /// What a caller is known by.
    pub by: SplitBy,
    /// How long, in milliseconds.
    pub for_ms: u64,
    /// What is held meanwhile.
    pub analysis: Rule,
}

/// How a shadow is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// Beginnings of paths whose requests may be repeated, e.g. `/classify`: only their author knows that a call changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Vec<String>>,
    /// Part of those requests that is repeated; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// How long; absent: ten minutes.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Millis>,
    /// What of the answers must agree, and how often; absent: all of it, up to the noise of arithmetic, 99 of 100 times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<AnswersRule>,
    /// What else is held; absent: as many answers as the live version's come without an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Rule>,
}

/// A shadow as it will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowPlan {
    /// Beginnings of paths whose requests are repeated.
    pub repeat: Vec<String>,
    /// Part of those requests that is repeated, 0 to 1.
    pub share: f64,
    /// How long, in milliseconds.
    pub for_ms: u64,
    /// What of the answers must agree.
    pub compare: AnswersRule,
    /// What else is held.
    pub analysis: Rule,
}

/// What is done, whoever asked for it in whatever words.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its word in codes: `canary`, `ab_test`, `shadow`.
    pub word: &'static str,
    /// What people call it: `canary`, `A/B test`, `shadow`.
    pub called: &'static str,
    /// Its steps before all of the traffic.
    pub steps: Vec<CanaryStep>,
    /// What is held.
    pub analysis: Rule,
    /// From which share of the traffic on, in parts of the whole.
    pub judged_from: u32,
    /// Keeps callers at a version.
    pub by: Option<SplitBy>,
    /// Repeats requests instead of dividing them.
    pub shadow: Option<ShadowPlan>,
}

impl Trial {
    /// Whether a person must decide on the way.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.steps.contains(&CanaryStep::Approval)
    }

    /// How many shares of the traffic it gives, one after the other.
    #[must_use]
    pub fn shares(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, CanaryStep::Weight(_))).count()
    }
}

fn watched(analysis: Option<&Rule>, for_ms: u64) -> Rule {
    analysis.cloned().unwrap_or_else(|| Rule { window_ms: for_ms.max(1), ..Rule::default() })
}

impl AbTestSpec {
    /// With its defaults: the judge watches as long as it lasts.
    #[must_use]
    pub fn plan(&self) -> AbTestPlan {
        let for_ms = self.duration.map_or(DEFAULT_AB_MS, |duration| duration.0);
        AbTestPlan {
            share: self.share.map_or(DEFAULT_AB_SHARE, |share| share.0),
            by: self.by.clone().unwrap_or(SplitBy::Cookie),
            for_ms,
            analysis: watched(self.analysis.as_ref(), for_ms),
        }
    }

    /// The same with what `over` says differently.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self {
            share: over.share.or(self.share),
            by: over.by.or(self.by),
            duration: over.duration.or(self.duration),
            analysis: over.analysis.or(self.analysis),
        }
    }
}

impl AbTestPlan {
    /// What is done.
    pub fn trial(&self) -> Trial {
        let steps = vec![CanaryStep::share(self.share), CanaryStep::Wait(self.for_ms)];
        let (analysis, by) = (self.analysis.clone(), Some(self.by.clone()));
        Trial { word: "ab_test", called: "A/B test", steps, analysis, by, shadow: None, judged_from: 0 }
    }

    /// Why it makes no sense, if it does not.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if !(self.share >= SMALLEST_SHARE && self.share < 1.0) {
            return Err("share: more than 0 % and less than 100 %".to_owned());
        }
        if self.for_ms == 0 {
            return Err("for: a time such as 24h".to_owned());
        }
        self.by.check()?;
        self.analysis.validate().map_err(|e| format!("analysis: {e}"))
    }
}

impl ShadowSpec {
    /// With its defaults.
    #[must_use]
    pub fn plan(&self) -> ShadowPlan {
        let for_ms = self.duration.map_or(DEFAULT_SHADOW_MS, |duration| duration.0);
        // A repeated request comes second and to a cold cache: how long it takes says less than how it ends.
        let errors = || Rule {
            window_ms: for_ms.max(1),
            checks: vec![Check::ErrorRatio(ErrorRatio::default())],
            ..Rule::default()
        };
        ShadowPlan {
            repeat: self.repeat.clone().unwrap_or_default(),
            share: self.share.map_or(1.0, |share| share.0),
            for_ms,
            compare: self.compare.clone().unwrap_or_default(),
            analysis: self.analysis.clone().unwrap_or_else(errors),
        }
    }

    /// The same with what `over` says differently.
    #[must_use]
    pub fn overlaid(self, over: Self) -> Self {
        Self {
            repeat: over.repeat.or(self.repeat),
            share: over.share.or(self.share),
            duration: over.duration.or(self.duration),
            compare: over.compare.or(self.compare),
            analysis: over.analysis.or(self.analysis),
        }
    }
}

impl ShadowPlan {
    /// What is done.
    pub fn trial(&self) -> Trial {
        let steps = vec![CanaryStep::Weight(0), CanaryStep::Wait(self.for_ms)];
        Trial {
            word: "shadow",
            called: "shadow",
            steps,
            analysis: self.analysis.clone(),
            by: None,
            shadow: Some(self.clone()),
            judged_from: 0,
        }
    }

    /// Why it makes no sense, if it does not.
    ///
    /// # Errors
    /// In words.
    pub fn check(&self) -> Result<(), String> {
        if self.repeat.is_empty() {
            return Err("repeat: name the paths whose requests may be repeated, such as [/classify]; \
                        a repeated call must change nothing"
                .to_owned());
        }
        if let Some(path) = self.repeat.iter().find(|path| !path.starts_with('/')) {
            return Err(format!("repeat: `{path}` must begin with a slash"));
        }
        if !(self.share >= SMALLEST_SHARE && self.share <= 1.0) {
            return Err("share: more than 0 % and at most 100 %".to_owned());
        }
        if self.for_ms == 0 {
            return Err("for: a time such as 10m".to_owned());
        }
        Answers::new(self.compare.clone()).map_err(|e| format!("compare: {}", with_cause(&e)))?;
        self.analysis.validate().map_err(|e| format!("analysis: {e}"))
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl CanaryPlan {
    /// What is done.
    pub fn trial(&self) -> Trial {
        let (steps, analysis) = (self.steps.steps().to_vec(), self.analysis.clone());
        Trial {
            word: "canary",
            called: "canary",
            steps,
            analysis,
            by: self.by.clone(),
            shadow: None,
            judged_from: self.analysis_from,
        }
    }
}

impl Trial {
    /// How long it takes where nobody pauses it, in milliseconds.
    pub fn watched_ms(&self) -> u64 {
        let waits = self.steps.iter().map(|step| if let CanaryStep::Wait(ms) = step { *ms } else { 0 });
        waits.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_ab_test_has_its_defaults_and_its_limits() {
        let plan = AbTestSpec::default().plan();
        assert_eq!((plan.share, &plan.by, plan.analysis.window_ms), (0.5, &SplitBy::Cookie, DEFAULT_AB_MS));
        assert_eq!(plan.trial().steps, [CanaryStep::Weight(50_000), CanaryStep::Wait(DEFAULT_AB_MS)]);
        let spec = |value| serde_json::from_value::<AbTestSpec>(value).expect("a spec").plan().check();
        assert_eq!(spec(json!({"by": {"header": "x-user-id"}, "for": "2h", "share": "10%"})), Ok(()));
        assert!(spec(json!({"by": {"header": "x user"}})).expect_err("no header").contains("`x user`"));
        assert!(spec(json!({"share": "100%"})).expect_err("all").contains("share"));
        assert!(spec(json!({"for": "0s"})).expect_err("no time").contains("24h"));
        assert!(serde_json::from_value::<AbTestSpec>(json!({"by": "name"})).is_err());
    }

    #[test]
    fn a_shadow_repeats_only_what_is_declared() {
        let spec = |value| serde_json::from_value::<ShadowSpec>(value).expect("a spec").plan();
        assert!(spec(json!({})).check().expect_err("nothing declared").contains("/classify"));
        assert!(spec(json!({"repeat": ["x"]})).check().expect_err("no path").contains("`x`"));
        assert!(spec(json!({"repeat": ["/x"], "compare": {"compare": ["a["]}})).check().is_err());
        let plan = spec(json!({"repeat": ["/classify"], "for": "5m"}));
        assert_eq!((plan.check(), plan.share, plan.trial().watched_ms()), (Ok(()), 1.0, 300_000));
        assert_eq!(plan.trial().steps[0], CanaryStep::Weight(0));
    }

    #[test]
    fn an_overlay_keeps_what_it_does_not_name() {
        let base: ShadowSpec = serde_json::from_value(json!({"repeat": ["/a"], "for": "5m"})).expect("a spec");
        let over: ShadowSpec = serde_json::from_value(json!({"for": "1h"})).expect("a spec");
        let both = base.overlaid(over).plan();
        assert_eq!((both.repeat, both.for_ms), (vec!["/a".to_owned()], 3_600_000));
    }
}
