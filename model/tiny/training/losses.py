"""The three losses of the published recipe over one replica: generation, editing and captioning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unipic.model import diffusion
from unipic.model.head import DiffusionHead
from unipic.model.unipic import UniPic

# The noise's error carries little about the image at high noise, and mostly its grain at low noise. Weights of noise
# over signal, within these bounds, make shape and colour learn earlier.
_WEIGHTS = (0.2, 4.0)


@dataclass(frozen=True)
class TextBatch:
    """Right-padded ids (B, P) int64 and each row's length (B,) int64."""

    ids: Tensor
    lengths: Tensor


class HeadLoss(nn.Module):
    """Diffusion loss of token latents at random steps: squared error of the noise, and the learned variance's bound."""

    def __init__(self) -> None:
        super().__init__()
        tables = diffusion.tables(diffusion.TRAINING_STEPS)
        for name, values in {
            "bars": tables.alphas_cumprod,
            "log_betas": tables.log_betas,
            "log_posterior": tables.posterior_log_variance,
            "of_clean": tables.posterior_mean_coef1,
        }.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, head: DiffusionHead, z: Tensor, clean: Tensor, *, times: int) -> Tensor:
        """`z` (M, D), `clean` (M, C) latents; each token is noised to `times` random steps. Returns the mean loss."""
        z, clean = z.repeat(times, 1), clean.float().repeat(times, 1)
        # One step from each of equal stretches of the schedule, so that a batch covers it evenly.
        steps = torch.randperm(len(z), device=z.device) + torch.rand(len(z), device=z.device)
        steps = (steps / len(z) * diffusion.TRAINING_STEPS).long().clamp(max=diffusion.TRAINING_STEPS - 1)
        noise = torch.randn_like(clean)
        bar = self.get_buffer("bars")[steps][:, None]
        noisy = bar.sqrt() * clean + (1 - bar).sqrt() * noise
        estimate, v = head(noisy.to(z.dtype), steps, z).float().chunk(2, dim=-1)
        # The bound trains only the variance: its mean passes no gradient.
        log_true = self.get_buffer("log_posterior")[steps][:, None]
        share = (v + 1) / 2
        log_guess = share * self.get_buffer("log_betas")[steps][:, None] + (1 - share) * log_true
        shift = self.get_buffer("of_clean")[steps][:, None] * ((1 - bar) / bar).sqrt() * (noise - estimate.detach())
        bound = -1 + log_guess - log_true + (log_true - log_guess).exp() + shift**2 * (-log_guess).exp()
        weight = ((1 - bar) / bar).sqrt().clamp(*_WEIGHTS)
        return (weight * (estimate - noise) ** 2).mean() + 0.5 / math.log(2) * bound.mean()


def _think_after(model: UniPic, prompt: Tensor, lengths: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Input of the MAR decoder, after the language model read each row's prompt (B, P, D_l) and then z.

    The rows' z follow their own prompts at once, all padding at the end, so causal attention needs no mask.
    """
    total, length = prompt.shape[1] + z.shape[1], z.shape[1]
    places = torch.arange(total, device=z.device)[None]
    end = lengths[:, None]
    source = torch.where(places < end, places, (places - end + prompt.shape[1]).clamp(max=total - 1))
    both = torch.cat([prompt, z], dim=1)
    hidden = _run_llm(model, both.gather(1, source.unsqueeze(-1).expand_as(both)))
    index = (end + torch.arange(length, device=z.device)).unsqueeze(-1).expand(-1, -1, z.shape[-1])
    return x + model.proj_out(hidden.gather(1, index).roll(model.config.mar.buffer_tokens, dims=1))


def _run_llm(model: UniPic, embeddings: Tensor) -> Tensor:
    positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
    out = model.llm.model(
        inputs_embeds=embeddings,
        position_ids=positions,
        attention_mask={"full_attention": None},
        use_cache=False,
    )
    hidden: Tensor = out.last_hidden_state
    return hidden


def _split_tokens(rows: int, tokens: int, visible: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A random choice of `visible` of the tokens in each row, ascending, and the rest."""
    order = torch.rand(rows, tokens, device=device).argsort(dim=1)
    return order[:, :visible].sort(dim=1).values, order[:, visible:]


def _reconstruct(
    model: UniPic, loss: HeadLoss, latents: Tensor, decoded: Tensor, wanted: Tensor, *, times: int
) -> Tensor:
    clean = latents.gather(1, wanted.unsqueeze(-1).expand(-1, -1, latents.shape[-1]))
    return loss(model.mar.head, decoded.flatten(0, 1), clean.flatten(0, 1), times=times)


def generation_loss(
    model: UniPic, loss: HeadLoss, text: TextBatch, latents: Tensor, *, visible: int, times: int
) -> Tensor:
    """`latents` (B, N, C), scaled, of the images that the prompts ask for; `visible`: how many tokens are given."""
    rows, tokens, _ = latents.shape
    positions = model.mar.positions(round(tokens**0.5))
    shown, wanted = _split_tokens(rows, tokens, visible, latents.device)
    x, z = model.see(latents, positions, visible=shown)
    x = _think_after(model, model.llm.embed(text.ids), text.lengths, x, z)
    decoded = model.mar.decode(x, positions, visible=shown, wanted=wanted)
    return _reconstruct(model, loss, latents, decoded, wanted, times=times)


def _prompt_with_picture(model: UniPic, before: Tensor, z: Tensor, after: Tensor) -> Tensor:
    start = model.llm.embed(before).expand(z.shape[0], -1, -1)
    return torch.cat([start, z, model.llm.embed(after)], dim=1)


def edit_loss(
    model: UniPic,
    loss: HeadLoss,
    before: Tensor,
    after: TextBatch,
    source: Tensor,
    target: Tensor,
    *,
    visible: int,
    times: int,
) -> Tensor:
    """`before` (K,) ids in front of the image, `after` those behind it; `source`, `target` (B, N, C) latents."""
    rows, tokens, _ = target.shape
    positions = model.mar.positions(round(tokens**0.5))
    shown, wanted = _split_tokens(rows, tokens, visible, target.device)
    source_x, source_z = model.see(source, positions)
    x, z = model.see(target, positions, visible=shown)
    prompt = _prompt_with_picture(model, before, source_z, after.ids)
    lengths = after.lengths + before.shape[0] + source_z.shape[1]
    x = _think_after(model, prompt, lengths, x, z)
    blank = model.mar.decoder_embed(source_x)
    decoded = model.mar.decode(x, positions, visible=shown, wanted=wanted, blank=blank)
    return _reconstruct(model, loss, target, decoded, wanted, times=times)


def caption_loss(model: UniPic, before: Tensor, question: Tensor, answers: TextBatch, latents: Tensor) -> Tensor:
    """Next-token loss of the answers, which end with their end token. `question` (Q,) ids behind the image."""
    rows = latents.shape[0]
    _, z = model.see(latents, model.mar.positions(round(latents.shape[1] ** 0.5)))
    prompt = _prompt_with_picture(model, before, z, torch.cat([question.expand(rows, -1), answers.ids], dim=1))
    hidden = _run_llm(model, prompt)
    length = answers.ids.shape[1]
    logits = model.llm.logits(hidden[:, -length - 1 : -1]).float()
    counted = torch.arange(length, device=logits.device) < answers.lengths[:, None]
    return F.cross_entropy(logits[counted], answers.ids[counted])
