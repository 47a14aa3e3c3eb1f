//! The `tidegate` program: parse, run, exit code.

use std::process::ExitCode;

/// A run makes and drops many small values: this one does that faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    // The host daemon's own processes choose their runtime themselves and stay small.
    if let Some(code) = tidegate::host::dispatch(&args) {
        return code;
    }
    tidegate::cli::main()
}
