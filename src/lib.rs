//! Tidegate releases machine-learning models the way a careful engineer would: it plans, packages with BentoML, deploys beside the
//! version that is live, validates, asks a human where policy says so, moves traffic, watches, and goes back by itself when the
//! evidence says so. See `ARCHITECTURE.md` for the map of the rooms.

#![warn(missing_docs, clippy::too_many_lines, clippy::todo)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod adapters;
pub mod app;
pub mod bench;
pub mod cli;
pub mod graph;
pub mod host;
pub mod judge;
pub mod nodes;
pub mod ports;
pub mod release;
pub mod server;
pub mod store;
pub mod workflow;
