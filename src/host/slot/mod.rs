//! The supervisor: starts slots, watches them, starts them again, ends them, and finds them again after its own death.

mod env;
mod life;
pub(crate) mod log;
mod process;
mod readiness;
mod request;
mod scratch;
mod secrets;
mod stop;
mod supervisor;
mod task;

use std::path::PathBuf;

pub(crate) use env::secrets;
pub(crate) use life::Life;
pub(crate) use secrets::Memory;
pub(crate) use supervisor::Supervisor;

use crate::ports::SlotRequest;

/// Where a slot's output goes.
pub(crate) fn log_path(request: &SlotRequest) -> PathBuf {
    request.slot_dir.join("slot.log")
}
