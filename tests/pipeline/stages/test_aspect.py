"""Edits keep the aspect ratio of their images where the job says so; other jobs' outputs stay what they were."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import FakeEngine, all_rows, make_job
from tests.inprocess import run_here
from tests.tables import write_table
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.lineage import row_params
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
ORIENTATION, QUARTER_TURN = 0x0112, 6


class Echo(FakeEngine):
    """Answers with the square it was given."""

    def answer(self, rows: Any) -> list[bytes | str]:
        return [row["pixels"] for row in rows]


def photo(width_px: int, height_px: int, *, turned: bool = False) -> bytes:
    """Red left half, blue right half."""
    pixels = np.zeros((height_px, width_px, 3), np.uint8)
    pixels[:, : width_px // 2, 0] = pixels[:, width_px // 2 :, 2] = 255
    data, exif = BytesIO(), Image.Exif()
    if turned:
        exif[ORIENTATION] = QUARTER_TURN
    Image.fromarray(pixels).save(data, "PNG", exif=exif)
    return data.getvalue()


def sizes(root: Path, **changes: Any) -> list[tuple[int, int]]:
    images = [photo(300, 200), photo(200, 300), photo(90, 90), photo(300, 200, turned=True)]
    write_table(root, id=list("abcd"), image=images, prompt=["p"] * 4)
    job = make_job(root, "edit", params__image_size=64, **changes)
    run_here(job, make_engine=Echo)
    assert verify(job.output.uri, STORAGE).problems == []
    opened = [Image.open(BytesIO(row["image"]["bytes"])) for row in all_rows(job)]
    for image in opened:
        colours = np.asarray(image).astype(int)
        assert (colours.max(axis=2) - colours.min(axis=2) > 100).mean() > 0.8, "no grey border is left"
    return [image.size for image in opened]


@pytest.mark.parametrize("samples", [1, 2])
def test_padded_edits_have_the_ratio_of_their_images_as_viewers_show_them(tmp_path: Path, samples: int) -> None:
    expected = [(64, 43), (43, 64), (64, 64), (43, 64)]
    found = sizes(tmp_path, params__fit="pad", params__samples_per_row=samples)
    assert found == [size for size in expected for _ in range(samples)]


def test_without_it_edits_are_squares_and_their_lineage_has_no_word_of_it(tmp_path: Path) -> None:
    assert sizes(tmp_path) == [(64, 64)] * 4
    assert "fit" not in row_params(make_job(tmp_path, "edit"))
    assert row_params(make_job(tmp_path, "edit", params__fit="pad"))["fit"] == "pad"
