//! How a new version gets its traffic: the contract's words, and what a strategy must be able to say about itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::canary::CanaryStep;
use super::trial::{SplitBy, Trial};
use super::units::duration_text;

/// The strategies, by the contract's words. Not every known one can be executed; see [`Strategies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The new version beside the live one; all traffic at once; the old one kept warm.
    BlueGreen,
    /// A growing share of the traffic.
    Canary,
    /// Replica by replica.
    Rolling,
    /// A copy of the traffic; its answers are compared and dropped.
    Shadow,
    /// A split by user, to compare two versions.
    AbTest,
    /// The old one stops before the new one starts.
    Recreate,
}

impl Strategy {
    /// All strategies.
    pub const ALL: [Self; 6] =
        [Self::BlueGreen, Self::Canary, Self::Rolling, Self::Shadow, Self::AbTest, Self::Recreate];

    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlueGreen => "blue-green",
            Self::Canary => "canary",
            Self::Rolling => "rolling",
            Self::Shadow => "shadow",
            Self::AbTest => "ab-test",
            Self::Recreate => "recreate",
        }
    }

    /// The strategy of a word; `None` for any other word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == word)
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where versions run, by slot name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// The slot of the new version, e.g. `green`.
    pub candidate: String,
    /// The slot that serves now; absent at a first release.
    #[serde(default)]
    pub live: Option<String>,
}

/// What a strategy needs to know to describe itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The version that is live, if one is.
    pub live_version: Option<&'a str>,
    /// The slot that serves now, if one does.
    pub live_slot: Option<&'a str>,
    /// How long the new version is watched after it got the traffic, in milliseconds.
    pub bake_ms: u64,
    /// What it goes through before all of the traffic; none where there is nothing to compare with.
    pub trial: Option<&'a Trial>,
    /// How long requests may wait while it is recreated, in milliseconds.
    pub hold_ms: u64,
    /// How long the version before stays warm, in milliseconds; absent: until another one takes its place.
    pub standby_ms: Option<u64>,
}

/// A way to bring a version to its traffic. Implementations are pure: they say what will be done, nodes do it.
pub trait DeploymentStrategy: Send + Sync {
    /// Which one it is.
    fn strategy(&self) -> Strategy;
    /// Where the versions run: of blue and green the one that does not serve is the new version's.
    fn slots(&self, situation: &Situation<'_>) -> Slots {
        let candidate = if situation.live_slot == Some("blue") { "green" } else { "blue" };
        Slots { candidate: candidate.to_owned(), live: situation.live_slot.map(str::to_owned) }
    }
    /// How many versions are in memory beside the live one; 0: the live one is gone before the new one comes.
    fn additional_copies(&self) -> u32 {
        1
    }
    /// What happens to the traffic, step by step, one sentence each.
    fn traffic(&self, situation: &Situation<'_>) -> Vec<String>;
}

/// Blue-green: the new version in the slot that is not live, then all traffic at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlueGreen;

impl DeploymentStrategy for BlueGreen {
    fn strategy(&self) -> Strategy {
        Strategy::BlueGreen
    }

    fn traffic(&self, situation: &Situation<'_>) -> Vec<String> {
        let slots = self.slots(situation);
        let steps = vec![format!("all traffic of /{} moves to {} at once", situation.model, slots.candidate)];
        ended(steps, &slots, situation)
    }
}

/// What happens behind the last step of the traffic: the version before stays warm, the new one is watched.
fn ended(mut steps: Vec<String>, slots: &Slots, situation: &Situation<'_>) -> Vec<String> {
    if let (Some(slot), Some(version)) = (&slots.live, situation.live_version) {
        let time = situation.standby_ms.map(|ms| format!(" for {}", duration_text(ms))).unwrap_or_default();
        steps.push(format!("requests under way in {slot} end there; {slot} (version {version}) stays warm{time}"));
    }
    if situation.bake_ms > 0 {
        let back = if slots.live.is_some() { "the traffic goes back" } else { "the endpoint is closed again" };
        steps.push(format!(
            "{} is watched for {}; if it goes bad {back}",
            slots.candidate,
            duration_text(situation.bake_ms)
        ));
    }
    steps
}

/// Canary: the new version in the slot that is not live, a growing share of the traffic, judged beside the live one all the while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Canary;

impl DeploymentStrategy for Canary {
    fn strategy(&self) -> Strategy {
        Strategy::Canary
    }

    fn traffic(&self, situation: &Situation<'_>) -> Vec<String> {
        let slots = self.slots(situation);
        let planned = situation.trial.map(|trial| trial.steps.as_slice()).unwrap_or_default();
        let mut steps = step_words(planned, situation.model, &slots.candidate);
        if steps.is_empty() {
            return BlueGreen.traffic(situation);
        }
        if let Some(by) = situation.trial.and_then(|trial| trial.by.as_ref()) {
            steps.push(format!("callers stay at their version, by {}", by_words(by)));
        }
        steps.push(format!("if the judge found no harm all of /{} goes to {}", situation.model, slots.candidate));
        ended(steps, &slots, situation)
    }
}

/// What a canary's steps do, a sentence for each share; steps before the first share say what happens at the one before.
#[must_use]
pub fn step_words(planned: &[CanaryStep], model: &str, candidate: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for step in planned {
        let stays = match step {
            CanaryStep::Weight(_) => {
                steps.push(format!("{step} of /{model} goes to {candidate}"));
                continue;
            }
            CanaryStep::Wait(ms) => format!("for {}", duration_text(*ms)),
            CanaryStep::Pause => "until `tidegate promote`".to_owned(),
            CanaryStep::Analysis => "until the judge lets it pass".to_owned(),
            CanaryStep::Approval => "until somebody approves it".to_owned(),
        };
        match steps.last_mut() {
            Some(last) => last.push_str(&format!(", {stays}")),
            None => steps.push(format!("it stays so {stays}")),
        }
    }
    steps
}

fn by_words(by: &SplitBy) -> String {
    match by {
        SplitBy::Cookie => "a cookie".to_owned(),
        SplitBy::ClientIp => "their address".to_owned(),
        SplitBy::Header(name) => format!("the header {name}"),
    }
}

/// A/B test: a fixed part of the callers, each of whom stays at its version, until a verdict or a person ends it.
#[derive(Debug, Clone, Copy, Default)]
pub struct AbTest;

impl DeploymentStrategy for AbTest {
    fn strategy(&self) -> Strategy {
        Strategy::AbTest
    }

    fn traffic(&self, situation: &Situation<'_>) -> Vec<String> {
        let slots = self.slots(situation);
        let Some(trial) = situation.trial else { return BlueGreen.traffic(situation) };
        let (share, by) = (trial.steps.first().map(ToString::to_string), trial.by.as_ref().map(by_words));
        let steps = vec![
            format!(
                "{} of the callers of /{} get {} and stay there, by {}, for {}",
                share.unwrap_or_default(),
                situation.model,
                slots.candidate,
                by.unwrap_or_default(),
                duration_text(trial.watched_ms())
            ),
            format!(
                "if it lost all callers go back at once; if the judge found no harm all of /{} goes to {}",
                situation.model, slots.candidate
            ),
        ];
        ended(steps, &slots, situation)
    }
}

/// Shadow: a copy of live requests, whose answers are compared and dropped; then all traffic at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shadow;

impl DeploymentStrategy for Shadow {
    fn strategy(&self) -> Strategy {
        Strategy::Shadow
    }

    fn traffic(&self, situation: &Situation<'_>) -> Vec<String> {
        let slots = self.slots(situation);
        let Some(shadow) = situation.trial.and_then(|trial| trial.shadow.as_ref()) else {
            return BlueGreen.traffic(situation);
        };
        let steps = vec![
            format!(
                "{} % of the requests to {} of /{} are repeated at {} for {}; users get no answer of it",
                shadow.share * 100.0,
                shadow.repeat.join(", "),
                situation.model,
                slots.candidate,
                duration_text(shadow.for_ms)
            ),
            format!("if its answers agree all of /{} goes to {}", situation.model, slots.candidate),
        ];
        ended(steps, &slots, situation)
    }
}

/// Rolling: batches of replicas take each other's place, each ready and judged before the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rolling;

impl DeploymentStrategy for Rolling {
    fn strategy(&self) -> Strategy {
        Strategy::Rolling
    }

    fn traffic(&self, situation: &Situation<'_>) -> Vec<String> {
        let slots = self.slots(situation);
        let Some(trial) = situation.trial.filter(|trial| !trial.steps.is_empty()) else {
            return BlueGreen.traffic(situation);
        };
        let shares: Vec<String> = trial.steps.iter().step_by(2).map(ToString::to_string).collect();
        let each = trial.watched_ms() / (shares.len() as u64).max(1);
        let steps = vec![
            format!(
                "replicas of {} take the place of those before in {} batches; after each {} of /{}, watched for {}",
                slots.candidate,
                shares.len() + 1,
                shares.join(", "),
                situation.model,
                duration_text(each)
            ),
            format!("with the last batch all of /{} goes to {}", situation.model, slots.candidate),
        ];
        ended(steps, &slots, situation)
    }
}

/// Recreate: requests wait while the live version stops and the new one starts. For machines where two copies do not fit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recreate;

impl DeploymentStrategy for Recreate {
    fn strategy(&self) -> Strategy {
        Strategy::Recreate
    }

    fn additional_copies(&self) -> u32 {
        0
    }

    fn traffic(&self, situation: &Situation<'_>) -> Vec<String> {
        let slots = self.slots(situation);
        let Some((live, version)) = slots.live.as_ref().zip(situation.live_version) else {
            return BlueGreen.traffic(situation);
        };
        let mut steps = vec![
            format!(
                "requests to /{} wait, each at most {}, while {live} (version {version}) stops",
                situation.model,
                duration_text(situation.hold_ms)
            ),
            format!("{} starts and is checked; then the requests that waited go on there", slots.candidate),
        ];
        if situation.bake_ms > 0 {
            steps.push(format!(
                "{} is watched for {}; if it goes bad requests wait again, and version {version} is started anew",
                slots.candidate,
                duration_text(situation.bake_ms)
            ));
        }
        steps
    }
}

/// The strategies that can be executed.
#[derive(Clone)]
pub struct Strategies(BTreeMap<Strategy, Arc<dyn DeploymentStrategy>>);

impl Strategies {
    /// Those that come with Tidegate.
    pub fn builtin() -> Self {
        let none = Self(BTreeMap::new());
        let beside = none.with(Arc::new(BlueGreen)).with(Arc::new(Canary)).with(Arc::new(Shadow));
        beside.with(Arc::new(AbTest)).with(Arc::new(Rolling)).with(Arc::new(Recreate))
    }

    /// Adds a strategy, or replaces the one of the same word.
    #[must_use]
    pub fn with(mut self, strategy: Arc<dyn DeploymentStrategy>) -> Self {
        self.0.insert(strategy.strategy(), strategy);
        self
    }

    /// The strategy of a word, if it can be executed.
    pub fn get(&self, strategy: Strategy) -> Option<&dyn DeploymentStrategy> {
        self.0.get(&strategy).map(AsRef::as_ref)
    }

    /// The words of those that can be executed.
    pub fn available(&self) -> Vec<Strategy> {
        self.0.keys().copied().collect()
    }
}

impl fmt::Debug for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_contracts() {
        for strategy in Strategy::ALL {
            assert_eq!(serde_json::to_value(strategy).expect("json"), strategy.as_str());
            assert_eq!(Strategy::parse(strategy.as_str()), Some(strategy));
        }
    }

    #[test]
    fn blue_and_green_alternate() {
        let slots = |live| {
            let situation = Situation {
                model: "iris",
                live_version: Some("v1"),
                live_slot: live,
                bake_ms: 0,
                trial: None,
                hold_ms: 0,
                standby_ms: None,
            };
            BlueGreen.slots(&situation).candidate
        };
        assert_eq!(
            (slots(None), slots(Some("blue")), slots(Some("green"))),
            ("blue".into(), "green".into(), "blue".into())
        );
    }

    #[test]
    fn some_can_be_executed() {
        assert_eq!(Strategies::builtin().available().len(), Strategy::ALL.len());
    }

    #[test]
    fn a_canary_says_its_steps() {
        let steps =
            [CanaryStep::Weight(5_000), CanaryStep::Wait(600_000), CanaryStep::Weight(50_000), CanaryStep::Pause];
        let trial = Trial {
            word: "canary",
            called: "canary",
            steps: steps.to_vec(),
            analysis: crate::judge::Rule::default(),
            by: Some(SplitBy::Header("x-user".into())),
            shadow: None,
            judged_from: 0,
        };
        let situation = Situation {
            model: "iris",
            live_version: Some("v1"),
            live_slot: Some("blue"),
            bake_ms: 0,
            trial: Some(&trial),
            hold_ms: 0,
            standby_ms: None,
        };
        let told = Canary.traffic(&situation);
        assert_eq!(told[0], "5% of /iris goes to green, for 10m");
        assert_eq!(told[1], "50% of /iris goes to green, until `tidegate promote`");
        assert!(told[2].contains("x-user") && told[3].contains("the judge"), "{told:?}");
        assert!(told[4].contains("stays warm"), "{told:?}");
        let first = Situation { live_version: None, live_slot: None, trial: None, ..situation };
        assert_eq!(Canary.traffic(&first), BlueGreen.traffic(&first));
        let kept = Situation { standby_ms: Some(3_600_000), ..situation };
        assert!(BlueGreen.traffic(&kept)[1].ends_with("stays warm for 1h"), "{:?}", BlueGreen.traffic(&kept));
    }
}
