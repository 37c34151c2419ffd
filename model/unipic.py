"""The whole model: parts, the projections between them, and strict loading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from unipic.model.caches import PromptCache
from unipic.model.config import ReplicaConfig
from unipic.model.llm import LanguageModel
from unipic.model.mar import Mar, Positions
from unipic.model.prompts import Prompt
from unipic.model.replay import HeadReplays
from unipic.model.vae import Vae


class UniPic(nn.Module):
    """One replica's parts under the names their weights have in a checkpoint: vae, mar, llm, proj_in, proj_out."""

    def __init__(self, config: ReplicaConfig) -> None:
        super().__init__()
        wide, llm_width = config.mar.encoder_width, config.llm.width
        self.config = config
        self.head_replays = HeadReplays()
        self.vae = Vae(config.vae)
        self.mar = Mar(config.mar, latent_channels=config.vae.latent_channels)
        self.llm = LanguageModel(config.llm)
        self.proj_in = nn.Sequential(nn.Linear(wide, llm_width), nn.SiLU(), nn.Linear(llm_width, llm_width))
        self.proj_out = nn.Sequential(nn.Linear(llm_width, llm_width), nn.SiLU(), nn.Linear(llm_width, wide))

    @property
    def device(self) -> torch.device:
        return self.mar.fake_latent.device

    @property
    def dtype(self) -> torch.dtype:
        return self.mar.fake_latent.dtype

    def lay_out(self) -> None:
        """Lay weights out for speed, once they are loaded; names and values stay."""
        self.vae.lay_out()
        self.llm.lay_out()
        self.mar.head.lay_out()

    def see(self, latents: Tensor, positions: Positions, *, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode visible tokens for the decoder and for the language model.

        `latents`: (B, N, C) scaled; `visible`: (B, V) int64 ascending, None for all N.
        Returns x_enc (B, S + V, D_m), buffers first, and z_enc (B, V + S, D_l), buffers last.
        """
        if visible is None:
            visible = torch.arange(latents.shape[1], device=latents.device).expand(latents.shape[0], -1)
        x = self.mar.encode(latents, positions, visible=visible)
        return x, self.proj_in(x.roll(-self.config.mar.buffer_tokens, dims=1))

    def think(self, x: Tensor, z: Tensor, cache: PromptCache) -> Tensor:
        """x_enc and z_enc of the visible tokens, (B, …) each, → what the MAR decoder reads, (B or k·B, S + V, D_m).

        A cache of k·B rows holds k prompts for each image (k = 2 for guidance): they share x_enc and z_enc.
        """
        times = cache.rows // z.shape[0]
        hidden = self.llm.extend(z.repeat(times, 1, 1), cache)
        return x.repeat(times, 1, 1) + self.proj_out(hidden.roll(self.config.mar.buffer_tokens, dims=1))

    def embed_prompts(self, prompts: Sequence[Prompt], *, pictures: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prompts → right-padded embeddings (B, P, D_l) and lengths (B,) int64.

        `pictures`: z_enc (B, N + S, D_l), row i of which stands at the place of the image in prompt i.
        """
        rows = []
        for index, prompt in enumerate(prompts):
            pieces = [self._embed_ids(prompt.before)]
            if prompt.after is not None:
                if pictures is None:
                    raise ValueError(f"prompt {index} has a place for a picture, but no pictures were given")
                pieces += [pictures[index], self._embed_ids(prompt.after)]
            rows.append(torch.cat(pieces))
        lengths = torch.tensor([len(row) for row in rows])  # on the CPU: the host reads them, and must not wait
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    def _embed_ids(self, ids: Sequence[int]) -> Tensor:
        return self.llm.embed(torch.tensor(ids, dtype=torch.int64, device=self.device))


def expected_shapes(config: ReplicaConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight a replica of these sizes has."""
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in UniPic(config).state_dict().items()}


def assemble(
    config: ReplicaConfig,
    weights: Iterable[tuple[str, Tensor]],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> UniPic:
    """Build a replica from named weights, one at a time, without ever holding a second copy of them.

    Raises ValueError that lists every missing, unexpected and mis-shaped name.
    """
    with torch.device("meta"):
        model = UniPic(config)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    state, faults = {}, []
    for name, weight in weights:
        if name not in expected:
            faults.append(f"unexpected {name}")
        elif tuple(weight.shape) != expected[name]:
            faults.append(f"{name} has shape {tuple(weight.shape)}, not {expected[name]}")
            expected.pop(name)
        else:
            state[name] = weight.to(device=device, dtype=dtype)
    faults += [f"missing {name}" for name in expected if name not in state]
    if faults:
        raise ValueError("weights do not fit the configuration: " + "; ".join(faults))
    model.load_state_dict(state, strict=True, assign=True)
    model.llm.restore_buffers(device)
    model.lay_out()
    return model.requires_grad_(False).eval()
