"""Where this checkout and what lies beside it are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / ".package"
"""Holds the folder that is imported as `unipic`."""
SHARED = ROOT.parent / "shared"
"""Reference numbers and benchmarks, where they are kept beside the checkout; tests that need them skip without."""
