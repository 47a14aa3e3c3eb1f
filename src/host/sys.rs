//! The few operating system calls for which no safe wrapper is at hand; the only unsafe code of this room.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that becomes readable when the process `pid` ends, child of ours or not.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just given us this descriptor (close-on-exec) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes over a descriptor that was just received by SCM_RIGHTS.
pub(crate) fn adopt_received(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: recvmsg has just put this descriptor into our table for us; nobody else owns it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the runtime watch a descriptor until it can be read.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open as long as it lives and always the same; nobody here takes it out or exchanges it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Lets the calling thread run when others do not want to: its nice value is raised for good. Where that fails it has the place that it had.
pub(crate) fn give_way() {
    /// Beside a busy thread of nice value 0 it gets a tenth of a core.
    const NICE: libc::c_int = 10;
    // SAFETY: the call takes three integers. On Linux 0 is the calling thread (setpriority(2), C library/kernel differences).
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Makes a command's process nobody's: in a session of its own from its first moment (ctrl-C in our terminal is not meant for it),
/// and without any descriptor of ours but the three standard ones. A lock or a pipe that whoever called us had left open would
/// otherwise stay open as long as the daemon lives.
pub(crate) fn detach(command: &mut Command) {
    let in_child = || {
        // SAFETY: two system calls on integers, allowed between fork and exec. Marking for close-on-exec rather than closing leaves
        // the pipe alone over which std reports a failed exec.
        unsafe {
            libc::setsid();
            // Not known before Linux 5.11; then they stay open.
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        Ok(())
    };
    // SAFETY: see inside; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(in_child) };
}
