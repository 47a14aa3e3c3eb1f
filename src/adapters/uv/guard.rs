//! A few lines of Python in every environment that tie BentoML's workers to the process that started them.
//!
//! BentoML's arbiter starts each worker in a *session of its own*: killing the slot's process group does not reach the workers, and an
//! arbiter killed with SIGKILL leaves them serving on the port. With this guard the kernel ends a worker the moment its arbiter is
//! gone. It sleeps unless the variable [`GUARD_VARIABLE`] is set, as the serve command does.

use std::fs;
use std::io;
use std::path::Path;

/// `arm`, set by the serve command; the arbiter replaces it by its own process id for its children to see.
pub(crate) const GUARD_VARIABLE: &str = "TIDEGATE_SLOT_GUARD";

const MODULE: &str = include_str!("guard.py");
/// Python runs the lines of `.pth` files that begin with `import` at every start.
const HOOK: &str = "import _tidegate_guard\n";

/// Installs the guard in the environment at `dir`.
pub(super) fn install(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir.join("lib"))? {
        let packages = entry?.path().join("site-packages");
        if packages.is_dir() {
            fs::write(packages.join("_tidegate_guard.py"), MODULE)?;
            fs::write(packages.join("_tidegate_guard.pth"), HOOK)?;
        }
    }
    Ok(())
}
