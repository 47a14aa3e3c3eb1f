//! Expressions of a workflow file, for those who know them as texts only.

use serde_json::{Map, Value};

use super::PortError;

/// Evaluates the expressions of workflow files.
pub trait Expressions: Send + Sync {
    /// Why an expression over these names can never be evaluated, if it cannot.
    fn check(&self, source: &str, names: &[&str]) -> Result<(), PortError>;
    /// The value of an expression over named values.
    fn value(&self, source: &str, names: &Map<String, Value>) -> Result<Value, PortError>;
}
