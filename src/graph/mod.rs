//! The engine: a durable, LangGraph-style graph of typed nodes over named channels.
//!
//! It knows nothing of deployment, of SQLite, of the terminal. A pure core (`core`) says what is due and what a superstep leaves;
//! a driver (`driver`) runs tasks on tokio and commits to a [`Store`]; a node speaks to its [`Context`] and through it to the
//! journal, never to the store.

mod builder;
mod change;
mod channel;
mod checkpoint;
mod command;
mod compile;
mod context;
mod core;
mod draw;
mod driver;
mod durability;
mod effect;
mod event;
mod export;
mod failure;
mod idle;
mod ids;
mod import;
mod inbox;
mod items;
mod journal;
mod memory;
mod migrate;
mod namespace;
mod node;
mod opening;
mod path;
mod question;
mod replay;
mod saga;
mod scope;
mod state;
mod store;
mod task;
mod thread;
mod topology;
mod travel;
mod untracked;
mod visit;
mod visits;
mod wait;

pub use builder::StateGraph;
pub use change::StateUpdate;
pub use channel::{Channel, ChannelKind, ChannelType, Reducer, Write, kind};
pub use checkpoint::{Change, Checkpoint, Source, Task, TaskPath, TaskResult, Trigger, apply_changes};
pub use command::{Above, Command, Commands};
pub use compile::{CompileErrors, FITS, Finding, Place};
pub use context::{Context, MESSAGE};
pub use core::CoreState;
pub use draw::{Glow, Picture, Traced, TracedNode, dot, length, mermaid, svg};
pub use driver::{Advance, Clock, Engine, EngineError, NewThread, Nodes, RunEnd, StateSnapshot, Stops, SystemClock};
pub use durability::Durability;
pub use effect::{Effect, EffectCx, Effects, Probe};
pub use event::{Event, EventRow, EventSink, NoSink};
pub use export::{Export, Seal};
pub use failure::{Failure, FailureDetails};
pub use ids::{CheckpointId, InterruptId, Name, ThreadId};
pub use inbox::{Inbox, StopAsk};
pub use items::{Item, MOST_FOUND, Shared};
pub use journal::{Answer, Entry, EntryEvent, EntryKind, EntryStatus, Interrupt, JournalKey, digest};
pub use memory::{MemoryStore, claim};
pub use node::{
    CachePolicy, DynNode, Field, Goto, Node, NodeError, NodeInfo, NodePolicy, OnError, Outcome, Persistence, Produced,
    RetryPolicy, Typed, View,
};
pub use opening::Born;
pub use path::{Step, Visit, VisitState, path};
pub use question::Posed;
pub use replay::{replay, replay_with};
pub use scope::Stop;
pub use state::State;
pub use store::{Claim, MOST_SIGNALS, Opening, Partial, Recall, Record, Store, StoreError, ThreadFilter, Transaction};
pub use thread::{IllegalThreadEvent, Imported, Liveness, Owner, Thread, ThreadEvent, ThreadStatus, Unwinding};
pub use topology::{Barrier, Body, CompiledGraph, Destination, END, Leaving, NodeEntry, Router, START};
pub use visits::Visits;
pub use wait::{Alarm, Signal, Until, Uptime, Woken};
