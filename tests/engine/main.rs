//! The engine under test, through the library: typed nodes, effects on a real directory, the store in memory and the one in SQLite.

mod channels;
mod claims;
mod commands;
mod compile;
mod crash;
mod disk;
mod effects;
mod faults;
mod flow;
mod followed;
mod interrupts;
mod items;
mod leases;
mod limits;
mod persistence;
mod processes;
mod random;
mod replays;
mod saga;
mod support;
mod travel;
mod versions;
mod waits;
