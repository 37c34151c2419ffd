"""A command that uses Ray runs in a child process, because Ray's native code can end it without a message.

The parent waits. If the child ends without having said that it is finished, the parent says what happened and exits
with the code of a run that can be resumed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from unipic.jobs.terminal.exit_codes import RESUME, STOPPED

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FINISHED = b"."
PR_SET_PDEATHSIG = 1  # of Linux' prctl: a signal for this process when its parent dies
SHOW_CURSOR = "\x1b[?25h"


def uses_ray(arguments: list[str]) -> bool:
    """Whether this command may start Ray."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    return command in ("run", "evaluate") or "--repair" in arguments


def guard() -> Callable[[], None]:
    """Continue in a child process. The parent never returns: it exits when the child does, with the child's code.

    Returns:
        What the child has to call just before it exits.
    """
    if not hasattr(signal, "sigwaitinfo"):  # such as on macOS
        return lambda: None
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    parent = os.getpid()
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [*FORWARDED, signal.SIGCHLD])
    child = os.fork()
    if child:
        os.close(write_end)
        _exit_with(_wait_for(child), os.read(read_end, 1) == FINISHED)
    os.close(read_end)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl took effect
        os._exit(STOPPED)
    signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
    return lambda: os.close(write_end) if os.write(write_end, FINISHED) else None


def _wait_for(child: int) -> int:
    """Forward signals to `child` until it ends; its wait status."""
    while True:
        came = signal.sigwaitinfo([*FORWARDED, signal.SIGCHLD])
        if came.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
        elif came.si_pid:  # the terminal's own signals (Ctrl-C) have no sender, and reach the child by themselves
            os.kill(child, came.si_signo)


def _exit_with(status: int, finished: bool) -> NoReturn:
    if finished and os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    code = STOPPED
    message = "Ray ended the run without a message; one of its processes, the raylet or an agent, has probably died"
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
    os._exit(code)
