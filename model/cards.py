"""What cards can do at best, from their makers' data sheets: dense bfloat16 rate and memory bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

EAGER_LAUNCH_S = 5e-6
"""What a kernel costs the host when Python launches it."""
GRAPH_LAUNCH_S = 2e-6
"""What a kernel costs when a CUDA graph launches it."""


@dataclass(frozen=True)
class Card:
    """`flops_per_s`: what large bfloat16 products reach, four fifths of the data sheet's; `bytes_per_s`: memory."""

    name: str
    flops_per_s: float
    bytes_per_s: float

    def busy_s(self, flops: float, moved_bytes: float) -> float:
        """Seconds of one kernel that is bound by arithmetic or by memory, whichever takes longer."""
        return max(flops / self.flops_per_s, moved_bytes / self.bytes_per_s)


CARDS = {
    "h200": Card("H200", 790e12, 4.8e12),
    "h100": Card("H100 SXM", 790e12, 3.35e12),
    "a100": Card("A100 80 GB", 250e12, 2.0e12),
}
