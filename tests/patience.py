"""How long a test waits for what takes seconds where nothing else is at work: only what hangs takes longer."""

from __future__ import annotations

HANGS_S = 600.0
"""For processes and runs. pytest's own limit on a test is longer, so that a test can say what hung."""
PROMPT_S = 120.0
"""For what is refused at once, against limits of half an hour and more."""
