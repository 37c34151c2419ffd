"""`import unipic`: each public name is there, says what it is, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unipic
from tests.patience import HANGS_S
from tests.places import PACKAGE, ROOT

FACE = ast.parse((PACKAGE / "unipic" / "__init__.py").read_text())
JOB = """
name: my-pictures
task: generate
input: {manifest: HERE/prompts.csv, columns: {id: key, prompt: text}}
model: {checkpoint: "builtin:tiny", dtype: float32, device: cpu}
params: {image_size: 64, num_iterations: 4, diffusion_steps: 5}
output: {uri: HERE/out/pictures}
compute: {batch_size: 2}
"""
PROMPTS = "key,text\na-1,a red circle\na-2,a blue square\na-3,two green triangles\na-4,a yellow star\n"


def names_for_type_checkers() -> dict[str, str]:
    """Name → module of every import under TYPE_CHECKING."""
    block = next(node for node in FACE.body if isinstance(node, ast.If))
    return {
        alias.name: node.module or "" for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_exported_members() -> None:
    typed = names_for_type_checkers()
    assert len(set(unipic.__all__)) == len(unipic.__all__)
    assert {*typed, "__version__"} == set(unipic.__all__) == set(dir(unipic))
    for name, module in typed.items():
        member = getattr(unipic, name)
        assert member is getattr(importlib.import_module(module), name), f"{name} is not what {module} has"
        assert inspect.isclass(member) or inspect.isfunction(member), f"{name} is neither a class nor a function"
        assert (member.__doc__ or "").split("\n")[0].rstrip().endswith((".", ":", ";")), f"{name} has no docstring"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", unipic.__version__)


def test_the_whole_tree_of_errors_is_public() -> None:
    errors = importlib.import_module("unipic.pipeline.errors")
    tree = {name for name, member in vars(errors).items() if inspect.isclass(member) and issubclass(member, Exception)}
    assert tree <= set(unipic.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'unipic' has no attribute 'rum'"):
        unipic.rum  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[Path]:
    """The current folder while the examples run: it holds `my-job.yaml` and, once `run` has been tried, its output."""
    here = tmp_path_factory.mktemp("examples")
    (here / "my-job.yaml").write_text(JOB.replace("HERE", str(here)))  # the session's workers are in another folder
    (here / "prompts.csv").write_text(PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        yield here


def run_examples(name: str, text: str, known: dict[str, object]) -> None:
    """Runs the `>>>` lines of a docstring, which may use and add to `known`."""
    test = doctest.DocTestParser().get_doctest(text, known, name, None, None)
    assert test.examples, f"{name} shows no example"
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=told.append, clear_globs=False)
    known.update(test.globs)
    assert not runner.failures, "".join(told)


def test_the_examples_of_the_functions_run_and_are_true(folder: Path) -> None:
    known: dict[str, object] = {"unipic": unipic}
    for function in (
        unipic.run,
        unipic.plan,
        unipic.status,
        unipic.verify,
        unipic.seal,
        unipic.compact,
        unipic.trace,
        unipic.replay,
    ):
        run_examples(function.__name__, inspect.getdoc(function) or "", known)
    for function in (unipic.repair, unipic.prune, unipic.examples, unipic.load_job):
        run_examples(function.__name__, inspect.getdoc(function) or "", known)


def test_the_examples_of_the_engine_run_and_are_true(folder: Path) -> None:
    known: dict[str, object] = {"unipic": unipic}
    for method in (unipic.Engine.load, unipic.Engine.generate, unipic.Engine.edit, unipic.Engine.caption):
        run_examples(method.__name__, inspect.getdoc(method) or "", known)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    """As a user would run it: one program in an empty folder, with a Ray of its own."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    program = tmp_path / "from_the_readme.py"
    program.write_text("\n".join(blocks))
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_program_that_uses_the_package_decides_what_is_logged() -> None:
    code = "import logging, unipic; logging.getLogger('unipic.run').warning('of interest to some'); {}"
    shown = [
        subprocess.run(
            [sys.executable, "-c", code.format(line)], capture_output=True, text=True, check=True, timeout=HANGS_S
        ).stderr
        for line in ("", "logging.basicConfig(); logging.getLogger('unipic.run').warning('and now')")
    ]
    assert shown == ["", "WARNING:unipic.run:and now\n"]
