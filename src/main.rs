use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match tidegate::host::dispatch(&args) {
        Some(code) => code,
        None => {
            eprintln!("tidegate: only the hidden host-keeper and host-daemon commands exist yet");
            ExitCode::from(2)
        }
    }
}
