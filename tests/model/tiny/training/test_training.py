from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unipic.model.checkpoint import verify
from unipic.model.engine import CaptionItem, CaptionSettings, EditItem, Engine, GenerateItem, SamplingSettings
from unipic.model.prompts import PromptWriter
from unipic.model.tiny.training.ema import Ema
from unipic.model.tiny.training.losses import HeadLoss, _think_after
from unipic.model.tiny.training.pool import Batches, build_pool
from unipic.model.tiny.training.sizes import tiny_config
from unipic.model.tiny.training.train import train
from unipic.model.tiny.training.train_joint import JointRecipe, initialise, train_joint
from unipic.model.tiny.training.train_vae import VaeRecipe
from unipic.model.tiny.training.vocabulary import vocabulary_size, write_vocabulary
from unipic.model.tiny.world.grammar import PLURALS, caption_text
from unipic.model.tiny.world.scene import COLOURS, SHAPES
from unipic.model.tiny.world.split import held_out_in
from unipic.model.unipic import UniPic

_SHORT_VAE = VaeRecipe(quadrant_steps=1, quadrant_rows=2, picture_steps=1, picture_rows=2, bank_pictures=4)
_SHORT_JOINT = JointRecipe(
    steps=2, generation_rows=3, edit_rows=2, caption_rows=2, warmup_steps=1, edits_per_kind=3, scenes_per_task=3
)


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> PromptWriter:
    folder = tmp_path_factory.mktemp("vocabulary") / "tokenizer"
    write_vocabulary(folder)
    return PromptWriter(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "out", work=folder / "work", device="cpu", vae_recipe=_SHORT_VAE, joint_recipe=_SHORT_JOINT)
    return folder


def _model(seed: int = 0) -> UniPic:
    torch.manual_seed(seed)
    model = UniPic(tiny_config(scale=1.0, vocab_size=vocabulary_size()))
    initialise(model)
    return model


@pytest.mark.parametrize("word", [*SHAPES, *PLURALS.values(), *COLOURS, "photo", "replace"])
def test_every_word_of_the_grammar_is_one_token(writer: PromptWriter, word: str) -> None:
    empty = writer.edit("").text_tokens
    assert writer.edit(word).text_tokens == empty + 1
    assert writer.edit(f"{word} {word}").text_tokens == empty + 2


def test_any_other_text_still_goes_through_the_tokenizer_and_back(writer: PromptWriter) -> None:
    text = "Ein Bär, zwei Äpfel & 3 <|im_end|> 猫"
    after = writer.edit(text).after or ()
    ending = len(writer.edit("").after or ()) - 1
    assert writer.text(after[1 : len(after) - ending]) == text


def test_training_reads_prompts_as_sampling_does(writer: PromptWriter) -> None:
    model = _model().eval()
    prompts = [writer.generate("a photo of a ring"), writer.generate("a photo of a red heart and a blue star")]
    positions = model.mar.positions(4)
    visible = torch.tensor([[1, 13], [0, 2]])
    with torch.no_grad():
        x, z = model.see(torch.randn(2, 16, 16), positions, visible=visible)
        embeddings, lengths = model.embed_prompts(prompts)
        cache, _ = model.llm.read_prompts(embeddings, lengths, room=z.shape[1])
        torch.testing.assert_close(
            _think_after(model, embeddings, lengths, x, z), model.think(x, z, cache), atol=1e-5, rtol=0
        )


def test_a_head_that_knows_the_noise_has_next_to_no_loss() -> None:
    clean = torch.randn(64, 16)
    bars = HeadLoss().get_buffer("bars")

    class Knows(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, steps: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            bar = bars[steps][:, None]
            noise = (noisy - bar.sqrt() * clean.repeat(4, 1)) / (1 - bar).sqrt()
            return torch.cat([noise, torch.full_like(noise, -1.0)], dim=-1)

    loss = HeadLoss()(Knows(), torch.zeros(64, 8), clean, times=4)  # type: ignore[arg-type]
    assert abs(float(loss)) < 1e-3


def test_batches_pair_every_answer_with_its_picture_and_show_nothing_held_out(writer: PromptWriter) -> None:
    pool = build_pool(edits_per_kind=20, scenes_per_task=20, seed=0)
    assert not any(held_out_in(scene) for scene in pool.scenes)
    marks = torch.arange(len(pool.scenes)).float()[:, None, None].expand(-1, 16, 16)
    batches = Batches(pool, marks, writer, device="cpu")
    answers, pictures = batches.captions(random.Random(1), 40)
    for ids, length, picture in zip(answers.ids, answers.lengths, pictures, strict=True):
        assert ids[length - 1] == writer.end_id
        assert writer.text(ids[:length].tolist()) == caption_text(pool.scenes[int(picture[0, 0])])
    text, _ = batches.generation(random.Random(1), 200)
    dropped = sum(
        tuple(row[:n].tolist()) == writer.generate_unconditional().before
        for row, n in zip(text.ids, text.lengths, strict=True)
    )
    assert 5 <= dropped <= 40


def test_the_average_follows_the_weights() -> None:
    module = torch.nn.Linear(2, 2)
    ema = Ema(module, decay=0.5)
    torch.nn.init.constant_(module.weight, 3.0)
    for _ in range(40):
        ema.update(module)
    torch.testing.assert_close(ema.average.weight, module.weight.detach())


def test_one_command_ends_in_a_sound_checkpoint_that_runs_all_three_tasks(trained: Path) -> None:
    verify(trained / "out")
    engine = Engine.load(trained / "out")
    settings = SamplingSettings(image_size=64, num_iterations=2, diffusion_steps=3)
    picture = engine.generate([GenerateItem("a photo of a ring", seed=1)], settings)[0]
    assert picture.shape == (64, 64, 3)
    assert engine.edit([EditItem("remove the ring", picture, seed=1)], settings).shape == (1, 64, 64, 3)
    assert len(engine.caption([CaptionItem("Describe the image in detail.", picture)], CaptionSettings(64, 3))) == 1
    assert list((trained / "work").glob("samples-*.png"))


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(writer: PromptWriter, tmp_path: Path) -> None:
    pool = build_pool(edits_per_kind=3, scenes_per_task=3, seed=0)
    torch.manual_seed(0)
    batches = Batches(pool, torch.randn(len(pool.scenes), 16, 16), writer, device="cpu")

    def stop(model: UniPic, step: int) -> None:
        if step == 1:
            raise KeyboardInterrupt

    def run(state: Path, show: Callable[[UniPic, int], None]) -> UniPic:
        quiet: list[str] = []
        return train_joint(
            _model(), batches, recipe=_SHORT_JOINT, state=state, report=quiet.append, show=show, show_every=1
        )

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(tmp_path / "stopped.pt", stop)
    resumed = run(tmp_path / "stopped.pt", lambda model, step: None).state_dict()
    for name, weight in run(tmp_path / "whole.pt", lambda model, step: None).state_dict().items():
        assert torch.equal(weight, resumed[name]), name


def test_training_does_not_write_over_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="already exists"):
        train(trained / "out", work=tmp_path, device="cpu", vae_recipe=_SHORT_VAE, joint_recipe=_SHORT_JOINT)
