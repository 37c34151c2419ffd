"""Products of one input that are computed at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Joined:
    """Linear layers that read the same input, as one product: their weights lie side by side in one tensor.

    The layers keep their names and share that memory, so that checkpoints load and save as before. Where a layer was
    given other memory since (a copy, another dtype), the layers run one by one.
    """

    def __init__(self, *layers: nn.Linear) -> None:
        self._layers = layers
        self.weight: Tensor = torch.cat([layer.weight.data for layer in layers])
        self.bias: Tensor | None = None
        if layers[0].bias is not None:
            self.bias = torch.cat([layer.bias.data for layer in layers])
        start = 0
        for layer in layers:
            stop = start + layer.out_features
            layer.weight.data = self.weight[start:stop]
            if self.bias is not None:
                layer.bias.data = self.bias[start:stop]
            start = stop

    @property
    def shared(self) -> bool:
        """Whether the layers' weights are still the joined ones."""
        if torch.compiler.is_compiling():  # a compiler cannot look at addresses; it is given models that are laid out
            return True
        mine, first = self.weight, self._layers[0].weight
        return mine.dtype == first.dtype and mine.device == first.device and mine.data_ptr() == first.data_ptr()

    def __call__(self, x: Tensor) -> Tensor:
        """(…, D) → (…, sum of the layers' widths)."""
        if self.shared:
            return F.linear(x, self.weight, self.bias)
        return torch.cat([layer(x) for layer in self._layers], dim=-1)
