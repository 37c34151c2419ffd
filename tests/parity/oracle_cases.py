"""Finds the reference case sets and converts each one's checkpoint once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.places import SHARED
from unipic.model.convert import convert
from unipic.model.loading import load_model, load_prompts

REFERENCE = SHARED / "oracle"
CHECKPOINT = "checkpoint"


def case_set_folders() -> list[Path]:
    """The folder that UNIPIC_ORACLE names, or the reference one: a case set itself, or a folder of several."""
    chosen = os.environ.get("UNIPIC_ORACLE")
    root = Path(chosen or REFERENCE)
    if (root / "cases.json").is_file():
        return [root]
    found = sorted(path.parent for path in root.glob("*/cases.json"))
    if chosen and not found:
        raise ValueError(f"UNIPIC_ORACLE names {root}, where no cases.json is")
    return found


def cases_of(kind: str) -> list[Any]:
    """(folder, case name) of every case of a kind, or one skipped parameter that says why there is none."""
    found = []
    for folder in case_set_folders():
        cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))["cases"]
        found += [
            pytest.param((folder, name), id=f"{folder.name}-{name}")
            for name, case in cases.items()
            if case["kind"] == kind
        ]
    return found or [nothing(f"no {kind} cases")]


def nothing(what: str) -> Any:
    where = os.environ.get("UNIPIC_ORACLE") or "../shared/oracle, which is absent,"
    return pytest.param(None, marks=pytest.mark.skip(reason=f"{where} holds {what}"))


@dataclass(frozen=True)
class CaseSet:
    """One case set, its checkpoint converted and loaded."""

    cases: dict[str, Any]
    config: dict[str, Any]
    tensors: dict[str, Any]
    model: Any
    prompts: Any


def load_case_set(folder: Path, converted: Path) -> CaseSet:
    body = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    config = body["config"]
    convert(
        folder / CHECKPOINT,
        converted,
        encoder_heads=config["mar"]["encoder_num_heads"],
        decoder_heads=config["mar"]["decoder_num_heads"],
        vae_scale=config["vae_scale"],
    )
    return CaseSet(
        cases=body["cases"],
        config=config,
        tensors=load_file(folder / "cases.safetensors"),
        model=load_model(converted, device="cpu", dtype=torch.float32),
        prompts=load_prompts(converted),
    )
