"""Second stage of training: generation, editing and captioning together, on latents."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unipic.model.tiny.training.ema import Ema
from unipic.model.tiny.training.losses import HeadLoss, caption_loss, edit_loss, generation_loss
from unipic.model.tiny.training.optimiser import JointOptimiser
from unipic.model.tiny.training.pool import Batches
from unipic.model.unipic import UniPic


@dataclass(frozen=True)
class JointRecipe:
    """Steps, rows and weights of the joint training."""

    steps: int = 24000
    generation_rows: int = 96
    edit_rows: int = 40
    caption_rows: int = 16
    noisings: int = 2
    peak_rate: float = 2e-3
    warmup_steps: int = 100
    # The rate falls to zero over this last share of the steps.
    decay_share: float = 0.35
    caption_weight: float = 0.3
    edits_per_kind: int = 6000
    scenes_per_task: int = 5000
    seed: int = 0


def joint_rate(step: int, recipe: JointRecipe) -> float:
    """Linear warm-up, a plateau, a linear fall to 2 % of the peak."""
    left = (recipe.steps - step) / max(1.0, recipe.decay_share * recipe.steps)
    return recipe.peak_rate * min((step + 1) / recipe.warmup_steps, 1.0, 0.02 + 0.98 * left)


def initialise(model: UniPic) -> None:
    """Starting weights of all but the autoencoder: as in the published parts, the head's last layers zero."""
    for module in [*model.mar.modules(), *model.proj_in.modules(), *model.proj_out.modules()]:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.mar.named_parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02 if "pos" not in name else 0.1)
    head = model.mar.head
    for block in head.res_blocks:
        nn.init.zeros_(block.get_parameter("adaLN_modulation.1.weight"))
    nn.init.zeros_(head.final_layer.get_parameter("adaLN_modulation.1.weight"))
    nn.init.zeros_(head.final_layer.linear.weight)
    for place in (0, 2):
        nn.init.normal_(head.time_embed.get_parameter(f"mlp.{place}.weight"), std=0.02)


def visible_tokens(rng: random.Random, tokens: int) -> int:
    """Number of visible tokens in a batch, from none to all but one; few are frequent: then the prompt matters."""
    return int(tokens * rng.random() ** 3)


def _step_loss(
    model: UniPic, head_loss: HeadLoss, batches: Batches, recipe: JointRecipe, rng: random.Random, tokens: int
) -> tuple[Tensor, list[float]]:
    text, latents = batches.generation(rng, recipe.generation_rows)
    shown = visible_tokens(rng, tokens)
    drawn = generation_loss(model, head_loss, text, latents, visible=shown, times=recipe.noisings)
    after, source, target = batches.editing(rng, recipe.edit_rows)
    shown = visible_tokens(rng, tokens)
    edited = edit_loss(model, head_loss, batches.before, after, source, target, visible=shown, times=recipe.noisings)
    answers, pictures = batches.captions(rng, recipe.caption_rows)
    told = caption_loss(model, batches.before, batches.question, answers, pictures)
    return drawn + 0.5 * edited + recipe.caption_weight * told, [part.item() for part in (drawn, edited, told)]


def train_joint(
    model: UniPic,
    batches: Batches,
    *,
    recipe: JointRecipe,
    state: Path,
    report: Callable[[str], None],
    show: Callable[[UniPic, int], None],
    show_every: int = 500,
) -> UniPic:
    """Train or resume from `state`; returns the moving average. `show` sees it every `show_every` steps."""
    device = model.device
    head_loss = HeadLoss().to(device)
    model.vae.requires_grad_(False)
    ema = Ema(model, decay=0.9985)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = JointOptimiser(model, weight_decay=0.02)
    first = _resume(state, model, ema, optimiser) if state.exists() else 0
    worker = _Worker(model)
    tokens = model.config.mar.grid**2
    started, means = time.monotonic(), torch.zeros(3)
    for step in range(first, recipe.steps):
        rng = random.Random(f"{recipe.seed}/{step}")
        torch.manual_seed(rng.getrandbits(60))
        worker.load()
        # On a CPU the fused attention's backward pass takes ten times as long as plain products at these sizes.
        with sdpa_kernel(SDPBackend.MATH):
            loss, parts = _step_loss(worker.model, head_loss, batches, recipe, rng, tokens)
            loss.backward()
        worker.hand_over_gradients()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step(joint_rate(step, recipe))
        ema.update(model)
        means += torch.tensor(parts)
        if (step + 1) % 100 == 0:
            drawn, edited, told = (means / 100).tolist()
            pace = (time.monotonic() - started) / (step + 1 - first)
            report(f"{step + 1}/{recipe.steps} draw {drawn:.4f} edit {edited:.4f} caption {told:.4f} {pace:.3f} s/step")
            means.zero_()
        if (step + 1) % show_every == 0 or step + 1 == recipe.steps:
            _save(state, step + 1, model, ema, optimiser)
            show(ema.average, step + 1)
    return ema.average


class _Worker:
    """Runs forward and backward on a bfloat16 copy, about four times faster, and trains the float32 weights."""

    def __init__(self, model: UniPic) -> None:
        self.model = copy.deepcopy(model).to(torch.bfloat16)
        self.model.llm.restore_buffers(model.device)
        pairs = zip(model.parameters(), self.model.parameters(), strict=True)
        self._pairs = [(whole, half) for whole, half in pairs if whole.requires_grad]

    @torch.no_grad()
    def load(self) -> None:
        for whole, half in self._pairs:
            half.copy_(whole)
            half.grad = None

    def hand_over_gradients(self) -> None:
        for whole, half in self._pairs:
            whole.grad = None if half.grad is None else half.grad.float()


def _resume(state: Path, model: UniPic, ema: Ema[UniPic], optimiser: JointOptimiser) -> int:
    saved = torch.load(state, weights_only=True, map_location=model.device)
    model.load_state_dict(saved["model"])
    ema.load_state_dict(saved["ema"])
    optimiser.load_state_dict(saved["optimiser"])
    return int(saved["step"])


def _save(state: Path, step: int, model: UniPic, ema: Ema[UniPic], optimiser: JointOptimiser) -> None:
    whole = {"model": model.state_dict(), "ema": ema.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    partial = state.with_suffix(".part")
    torch.save(whole, partial)
    partial.replace(state)
