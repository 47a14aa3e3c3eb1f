//! The database's file, looked at and mended from outside: a home whose database does not open needs it most.

use std::path::Path;

use chrono::Utc;

use super::Home;
use crate::graph::Failure;
use crate::store::{self, ProcLiveness};
pub use crate::store::{Checkup, Repaired, Salvaged, TableState};

/// What is wrong with the home's database; nothing is changed. Blocks for as long as reading it takes.
pub fn examine_database(home: &Home) -> Result<Checkup, Failure> {
    store::examine(&home.database(), &ProcLiveness, Utc::now()).map_err(|error| error.failure())
}

/// Mends what can be mended without inventing anything, after a copy. Nobody may use the database meanwhile.
pub fn repair_database(home: &Home) -> Result<Repaired, Failure> {
    store::repair(&home.database(), &ProcLiveness, Utc::now()).map_err(|error| error.failure())
}

/// Takes what can be read into the new file `into`.
pub fn salvage_database(home: &Home, into: &Path) -> Result<Salvaged, Failure> {
    store::salvage(&home.database(), into).map_err(|error| error.failure())
}
