//! Tidegate releases machine-learning models the way a careful engineer would: it plans, packages with BentoML, deploys beside the
//! version that is live, validates, asks a human where policy says so, moves traffic, watches, and goes back by itself when the
//! evidence says so. See `ARCHITECTURE.md` for the map of the rooms.

pub mod adapters;
pub mod ports;
