"""Commands that use Ray run in a child process, because Ray's native code can end a process without a message.

The parent waits. The child states its exit code before it exits; if it ends without one, the parent says what happened
and exits with the code of a run that can be resumed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence

from unipic.jobs.terminal.exit_codes import RESUME, STOPPED

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PR_SET_PDEATHSIG = 1  # of Linux' prctl: a signal for this process when its parent dies
SHOW_CURSOR = "\x1b[?25h"
SILENT_EXIT = "Ray ended the run without a message; one of its processes, the raylet or an agent, has probably died"


def uses_ray(arguments: Sequence[str]) -> bool:
    """Whether this command may start Ray."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    return command in ("run", "evaluate", "bench") or "--repair" in arguments


def guard() -> Callable[[int], None]:
    """Continue in a child process. The parent never returns: it exits when the child does, with the child's code.

    Call it before this process has threads, which no child inherits.

    Returns:
        States the child's exit code. A crash after that, while Python ends, changes nothing.
    """
    if sys.platform != "linux":
        return lambda _: None
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    parent = os.getpid()
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [*FORWARDED, signal.SIGCHLD])
    child = os.fork()
    if child:
        os.close(write_end)
        status = _wait_for(child)
        code = _stated(read_end)
        os._exit(_explain(status) if code is None else code)
    os.close(read_end)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl took effect
        os._exit(STOPPED)
    signal.pthread_sigmask(signal.SIG_SETMASK, earlier)

    def state(code: int) -> None:
        os.write(write_end, bytes([code]))

    return state


def _wait_for(child: int) -> int:
    """Forward signals to `child` until it ends; its wait status.

    A scheduler may send its signal to every process of a job, so that the child gets it twice: `Signals` expects that.
    """
    while True:
        came = signal.sigwaitinfo([*FORWARDED, signal.SIGCHLD])
        if came.si_signo != signal.SIGCHLD:
            if came.si_pid:  # the terminal's own (Ctrl-C) have no sender, and reach the child by themselves
                os.kill(child, came.si_signo)
            continue
        ended = -1
        while ended:  # as a container's first process it has orphans to reap, too
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == child:
                return status


def _stated(read_end: int) -> int | None:
    os.set_blocking(read_end, False)  # a process that the child forked may still hold the other end
    try:
        return next(iter(os.read(read_end, 1)), None)
    except BlockingIOError:
        return None


def _explain(status: int) -> int:
    """Say how a child ended that stated no exit code, and which code that makes."""
    code, message = STOPPED, SILENT_EXIT
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        message = f"the run was ended by {signal.Signals(number).name}"
        if number == signal.SIGKILL:
            message += "; the machine may have run out of memory"
        else:
            code = 128 + number
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    sys.stderr.write(f"error: {message}.\n  Committed units are kept; {RESUME}.\n")
    sys.stderr.flush()
    return code
