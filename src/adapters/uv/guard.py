"""Ends a BentoML worker when its arbiter is gone. Installed by Tidegate; does nothing unless TIDEGATE_SLOT_GUARD is set."""

import os
import sys

_WORKER = "_bentoml_impl.worker.service"


def _follow(parent):
    """Asks the kernel to kill this process when `parent`, which started it, ends."""
    import ctypes
    import signal

    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _main():
    state = os.environ.get("TIDEGATE_SLOT_GUARD", "")
    if state == "arm":
        # The arbiter: its children learn whom to follow. It must not follow its own parent: slots outlive the daemon.
        os.environ["TIDEGATE_SLOT_GUARD"] = str(os.getpid())
    elif state.isdigit() and sys.platform == "linux" and _WORKER in getattr(sys, "orig_argv", ()):
        if os.getppid() == int(state):
            _follow(int(state))
        elif not os.path.exists("/proc/" + state):
            os._exit(1)  # the arbiter that started this worker is gone already


_main()
