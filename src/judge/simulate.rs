//! Traffic that never was, from a seed: to see what a rule would have said before one trusts it with a release.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::sample::{Arm, Sample};

/// A small generator of pseudo-random numbers (SplitMix64): the same seed gives the same traffic on every machine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform, above 0 and below 1.
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Standard normal (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// How many of something that happens `mean` times on average (Knuth; for small means).
    pub fn poisson(&mut self, mean: f64) -> u64 {
        let (floor, mut product, mut n) = ((-mean).exp(), self.uniform(), 0);
        while product > floor {
            product *= self.uniform();
            n += 1;
        }
        n
    }
}

/// How one version behaves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// Share of its requests that fail, 0 to 1.
    pub error_rate: f64,
    /// Its median latency in milliseconds; latencies are log-normal. 0: none is measured.
    pub median_ms: f64,
}

/// What traffic there is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traffic {
    /// Requests per second to the baseline.
    pub rps: f64,
    /// What the candidate gets beside it: 1 is as much, 0.05 a twentieth.
    pub candidate_weight: f64,
    /// Whether requests come at random times (Poisson); else evenly.
    pub random_arrivals: bool,
    /// Standard deviation of the logarithm of a latency.
    pub sigma: f64,
    /// Autocorrelation of the log latency from one second to the next, 0 to 1 (below).
    pub autocorrelation: f64,
    /// Share of the log latency's variance that lasts from second to second; the rest is each request's own.
    pub lasting: f64,
    /// Bursts per hour in which one client, who always meets the same version, has only failing requests.
    pub bursts_per_hour: f64,
    /// Failing requests of a burst, on average.
    pub burst_requests: f64,
    /// How long a burst takes, in seconds.
    pub burst_s: u64,
}

impl Default for Traffic {
    /// One request per second to each version, evenly; independent latencies; no bursts.
    fn default() -> Self {
        Self {
            rps: 1.0,
            candidate_weight: 1.0,
            random_arrivals: false,
            sigma: 0.5,
            autocorrelation: 0.0,
            lasting: 0.0,
            bursts_per_hour: 0.0,
            burst_requests: 20.0,
            burst_s: 5,
        }
    }
}

/// One version under simulated traffic.
#[derive(Debug, Clone)]
struct Version {
    behaviour: Behaviour,
    /// The lasting part of the log latency, standard normal.
    level: f64,
    /// Requests due, in fractions.
    due: f64,
}

/// Samples of both versions, second by second, without end. A burst meets the candidate with its share of the traffic.
#[derive(Debug, Clone)]
pub struct Simulation {
    traffic: Traffic,
    baseline: Version,
    candidate: Version,
    dice: Dice,
    at_s: u64,
    /// The burst under way: whether it is the candidate's, and its last second.
    burst: Option<(bool, u64)>,
}

impl Simulation {
    /// Two versions from a seed.
    pub fn new(traffic: Traffic, baseline: Behaviour, candidate: Behaviour, seed: u64) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D).wrapping_add(1));
        let mut version = |behaviour| Version { behaviour, level: dice.normal(), due: 0.0 };
        let (baseline, candidate) = (version(baseline), version(candidate));
        Self { traffic, baseline, candidate, dice, at_s: 0, burst: None }
    }

    /// From the next second on the candidate behaves like this.
    pub fn change(&mut self, candidate: Behaviour) {
        self.candidate.behaviour = candidate;
    }

    fn bursts(&mut self) -> (u64, u64) {
        let traffic = self.traffic;
        let share = traffic.candidate_weight / (1.0 + traffic.candidate_weight);
        if self.burst.is_none_or(|(_, last)| self.at_s > last) {
            let begins = self.dice.happens(traffic.bursts_per_hour / 3600.0);
            self.burst = begins.then(|| (self.dice.happens(share), self.at_s + traffic.burst_s.max(1) - 1));
        }
        match self.burst {
            None => (0, 0),
            Some((candidates, _)) => {
                let n = self.dice.poisson(traffic.burst_requests / traffic.burst_s.max(1) as f64);
                if candidates { (0, n) } else { (n, 0) }
            }
        }
    }
}

/// A second of one version, with `failing` requests of a burst.
fn second(version: &mut Version, rps: f64, traffic: &Traffic, dice: &mut Dice, failing: u64) -> Arm {
    let keeps = traffic.autocorrelation;
    version.level = keeps * version.level + (1.0 - keeps * keeps).sqrt() * dice.normal();
    version.due += if traffic.random_arrivals { dice.poisson(rps) as f64 } else { rps };
    let mut arm = Arm { requests: failing, errors: failing, latencies: Histogram::default() };
    while version.due >= 1.0 - 1e-9 {
        version.due -= 1.0;
        arm.requests += 1;
        arm.errors += u64::from(dice.happens(version.behaviour.error_rate));
        if version.behaviour.median_ms <= 0.0 {
            continue;
        }
        let own = if traffic.lasting < 1.0 { (1.0 - traffic.lasting).sqrt() * dice.normal() } else { 0.0 };
        let z = traffic.lasting.sqrt() * version.level + own;
        arm.latencies.record((version.behaviour.median_ms * 1000.0 * (traffic.sigma * z).exp()) as u64);
    }
    arm
}

impl Iterator for Simulation {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        self.at_s += 1;
        let bursts = self.bursts();
        let baseline = second(&mut self.baseline, self.traffic.rps, &self.traffic, &mut self.dice, bursts.0);
        let rps = self.traffic.rps * self.traffic.candidate_weight;
        let candidate = second(&mut self.candidate, rps, &self.traffic, &mut self.dice, bursts.1);
        Some(Sample { at_ms: self.at_s * 1000, baseline, candidate })
    }
}

#[cfg(test)]
mod tests;
