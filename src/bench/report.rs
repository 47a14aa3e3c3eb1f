//! The figures.

use serde::Serialize;

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name in tables: `chain-10, FULL`.
    pub what: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What bare SQLite does in the same run, in the same unit.
    pub floor: Option<f64>,
    /// The target; of the ratio to the floor where there is one, else of the value.
    pub target: Option<Limit>,
    /// What else there is to know.
    pub note: String,
}

impl Figure {
    /// A figure by itself.
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, floor: None, target: None, note: String::new() }
    }

    /// Beside its floor.
    #[must_use]
    pub fn floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self
    }

    /// With a target.
    #[must_use]
    pub fn target(mut self, target: Limit) -> Self {
        self.target = Some(target);
        self
    }

    /// With a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// The value as a share of the floor.
    pub fn ratio(&self) -> Option<f64> {
        self.floor.filter(|floor| *floor > 0.0).map(|floor| self.value / floor)
    }

    /// Whether the target is reached.
    pub fn is_reached(&self) -> Option<bool> {
        let value = self.ratio().unwrap_or(self.value);
        self.target.map(|target| match target {
            Limit::AtLeast(least) => value >= least,
            Limit::AtMost(most) => value <= most,
        })
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The figures, in order.
    pub figures: Vec<Figure>,
    /// How long one commit takes on this disk, in microseconds.
    pub commit_us: u128,
    /// How long measuring took, in milliseconds.
    pub took_ms: u128,
}
