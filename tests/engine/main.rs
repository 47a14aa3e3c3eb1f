//! The engine under test, through the library: typed nodes, effects on a real directory, the store in memory and the one in SQLite.

mod channels;
mod commands;
mod compile;
mod crash;
mod effects;
mod flow;
mod interrupts;
mod items;
mod leases;
mod limits;
mod persistence;
mod saga;
mod support;
mod travel;
mod versions;
mod waits;
