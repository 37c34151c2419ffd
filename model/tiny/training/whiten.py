"""An affine change of the autoencoder's latents, folded into its own 1×1 convolutions.

A trained autoencoder spends most of its latents' spread on the background and little on outlines, so a diffusion loss
on them would learn outlines last. After whitening, differences of shapes and of backgrounds weigh the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unipic.model.vae import Vae

# Spread, in units of the latents as trained, below which a direction counts as noise and is not scaled up to 1.
FLOOR = 0.2


@torch.no_grad()
def whiten(vae: Vae, latents: Tensor, *, floor: float = FLOOR) -> Tensor:
    """Change `vae` in place so that its unscaled mean latents are whitened; returns `latents` (P, N, C) so changed.

    Afterwards all directions have a spread near each other and 1 in the mean, images decode as before, and the
    log variance that `moments` returns, which only training the autoencoder needs, no longer belongs to the mean.
    """
    flat = latents.flatten(0, 1).double()
    channels, mean = flat.shape[1], flat.mean(0)
    spread, directions = torch.linalg.eigh(torch.cov(flat.T))
    gain = 1 / (spread + floor**2).sqrt()
    gain /= ((flat - mean) @ directions * gain).std()
    forward, backward = (directions * gain).T, directions / gain
    weight, bias = vae.quant_conv.weight, vae.quant_conv.get_parameter("bias")
    weight[:channels] = torch.einsum("ij,jkhw->ikhw", forward, weight[:channels].double()).to(weight)
    bias[:channels] = (forward @ (bias[:channels].double() - mean)).to(bias)
    weight, bias = vae.post_quant_conv.weight, vae.post_quant_conv.get_parameter("bias")
    matrix = weight[:, :, 0, 0].double()
    bias.add_((matrix @ mean).to(bias))
    weight.copy_((matrix @ backward)[:, :, None, None])
    return ((flat - mean) @ forward.T).float().unflatten(0, latents.shape[:2])
