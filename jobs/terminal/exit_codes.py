"""Exit codes of `unipic`. Scripts and schedulers rely on them."""

from __future__ import annotations

DONE = 0
FAULT = 1
"""The job or the command line is wrong, or a retry cannot fix the failure."""
REJECTED = 2
"""Finished, with more rejected rows than `limits.max_rejected` allows."""
STOPPED = 3
"""Stopped early; the same command resumes."""
INTERRUPT = 130
"""Ctrl-C, in a command that has nothing to resume."""

RESUME = "run the same command again to resume"
INTERRUPTED = f"interrupted: committed units are kept; {RESUME}"
