//! The engine under test, through the library: typed nodes, effects on a real directory, the store in memory and the one in SQLite.

mod compile;
mod crash;
mod effects;
mod flow;
mod interrupts;
mod leases;
mod limits;
mod random;
mod saga;
mod support;
mod travel;
mod versions;
mod waits;
