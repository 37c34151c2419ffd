"""Exit codes of `unipic`, a promise to scripts and schedulers."""

from __future__ import annotations

DONE = 0
FAULT = 1
"""The job or the command line is wrong, or something failed that trying again does not mend."""
REJECTED = 2
"""Finished, with more rows rejected than `limits.max_rejected`."""
STOPPED = 3
"""Stopped early; the same command goes on from there."""
