//! Implementations of the ports, one folder each.

pub mod local;
