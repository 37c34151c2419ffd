from __future__ import annotations

import torch
from safetensors.torch import load_file

from tests.model.make_own_oracle import FILE, answers
from unipic.model.engine import Engine


def test_what_the_code_answers_has_not_changed(engine: Engine) -> None:
    expected, found = load_file(FILE), answers(engine)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        if name == "caption_ids":
            assert torch.equal(found[name], values)
        elif values.dtype == torch.uint8:
            assert (found[name].int() - values.int()).abs().max() <= 1, name
        else:
            torch.testing.assert_close(
                found[name], values, atol=2e-4, rtol=1e-5, msg=lambda said, n=name: f"{n}: {said}"
            )
