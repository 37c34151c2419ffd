"""Promises of the job file: nothing wrong gets through, every fault is reported at once with its place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.patience import PROMPT_S
from unipic.jobs.spec.load import load_job
from unipic.pipeline.errors import SpecError
from unipic.pipeline.job import CaptionJob, EditJob, GenerateJob

GOOD = """\
name: pictures
task: generate
input:
  manifest: prompts.parquet
  columns: {prompt: text}
model: {checkpoint: checkpoints/tiny}
params:
  guidance: 3
output: {uri: out}
compute:
  batch_size: 4
"""


def faults_of(text: str, folder: Path, *overrides: str) -> list[str]:
    path = folder / "job.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"job\.yaml|--set") as caught:
        load_job(path, overrides)
    return [line.replace(str(path), "job.yaml") for line in caught.value.message.splitlines()]


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_becomes_the_job_of_its_task(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    job = load_job(path)
    assert isinstance(job, GenerateJob)
    assert (job.compute.batch_size, job.params.guidance, job.input.columns.prompt) == (4, 3.0, "text")
    assert isinstance(load_job(path, ["task=edit"]), EditJob)
    assert isinstance(load_job(path, ["task=caption", "params={}"]), CaptionJob)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("batch_size: 4", "batch_size: 0", "job.yaml:11 compute.batch_size: must be at least 1, got 0"),
        (
            "batch_size: 4",
            "batch_size: big",
            "job.yaml:11 compute.batch_size: must be 'auto' or a whole number, got 'big'",
        ),
        ("batch_size: 4", "replicas: 0", "job.yaml:11 compute.replicas: must be at least 1, got 0"),
        ("batch_size: 4", "batch_sise: 4", "job.yaml:11 compute.batch_sise: unknown key; did you mean batch_size?"),
        ("guidance: 3", 'guidance: "3"', "job.yaml:8 params.guidance: must be a number, got '3': remove the quotes"),
        (
            "guidance: 3",
            "guidance: 3e0",
            "job.yaml:8 params.guidance: must be a number, got '3e0': YAML reads it as text; write 3",
        ),
        (
            "guidance: 3",
            "question: Why?",
            "job.yaml:8 params.question: unknown key here; it is a parameter of caption jobs",
        ),
        ("guidance: 3", "image_size: 100", "job.yaml:8 params.image_size: must be a multiple of 16, got 100"),
        (
            "guidance: 3",
            "seed: 010",
            "job.yaml:8 params.seed: 010 is the octal number 8 in YAML; remove the leading zero, or quote it",
        ),
        ("guidance: 3", "guidance: .nan", "job.yaml:8 params.guidance: must be a finite number, got .nan"),
        ("guidance: 3", "guidance:", "job.yaml:8 params.guidance: is empty: give it a value, or remove the key"),
        ("name: pictures", "name: no", 'job.yaml:1 name: must be text, got false: quote it, "no"'),
        (
            "name: pictures",
            "name: 12:30:45",
            "job.yaml:1 name: 12:30:45 is the number 45045 in YAML; quote it if it is text",
        ),
        (
            "name: pictures",
            "name: 2024-01-02",
            'job.yaml:1 name: 2024-01-02 is a date in YAML; quote it: "2024-01-02"',
        ),
        (
            "name: pictures",
            "batch_size: 1\nname: x",
            "job.yaml:1 batch_size: unknown key here; it belongs under compute",
        ),
        (
            "task: generate",
            "task: generat",
            "job.yaml:2 task: must be 'generate', 'edit' or 'caption', got 'generat'; did you mean generate?",
        ),
        ("model: {checkpoint: checkpoints/tiny}\n", "", "job.yaml:1 model: is missing"),
        ("uri: out", "images: files", "job.yaml:9 output.uri: is missing"),
        (
            "{prompt: text}",
            "{prompt: text, no: x}",
            'job.yaml:5 input.columns: the key no is not text: YAML reads it as false; quote it, "no"',
        ),
        ("{prompt: text}", "[prompt]", "job.yaml:5 input.columns: must be a map of keys, got a list"),
    ],
)
def test_each_kind_of_fault_is_one_sentence_with_its_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert faults_of(changed(old, new), tmp_path) == [fault]


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        GOOD.replace("name: pictures", "name: ''").replace("guidance: 3", "guidance: 0").replace("size: 4", "size: 0")
    )
    assert faults_of(text + "extra: 1\n", tmp_path, "limits.max_hours=0") == [
        "job.yaml:1 name: must not be empty",
        "job.yaml:8 params.guidance: must be at least 1, got 0",
        "job.yaml:11 compute.batch_size: must be at least 1, got 0",
        "job.yaml:12 extra: unknown key; "
        "valid keys: name, task, input, model, params, output, compute, limits, storage, openlineage",
        "--set limits.max_hours: must be more than 0, got 0",
    ]


def test_an_unknown_task_does_not_hide_the_other_faults(tmp_path: Path) -> None:
    found = faults_of(changed("task: generate", "task: [draw]").replace("size: 4", "size: 0"), tmp_path)
    assert [fault.split(":")[1] for fault in found] == ["2 task", "11 compute.batch_size"]


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    text = GOOD + "  batch_size: 8\n"
    assert faults_of(text, tmp_path) == ["job.yaml:12 compute.batch_size: is duplicated on lines 11 and 12: keep one"]


def test_an_alias_bomb_is_refused_in_bounded_time(tmp_path: Path) -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 60)]
    started = time.monotonic()
    found = faults_of(GOOD + "\n".join(bomb), tmp_path)
    assert time.monotonic() - started < PROMPT_S
    assert any("aliases (*a0) are not supported" in fault for fault in found)


def test_endless_nesting_and_oversize_files_are_refused(tmp_path: Path) -> None:
    assert faults_of("a: " + "[" * 50_000, tmp_path) == [
        "job.yaml:1: is not valid YAML: is nested more than 20 levels deep"
    ]
    assert "larger than 1 MiB" in faults_of("#" * (1 << 20) + "\n", tmp_path)[0]


def test_a_python_tag_is_refused_and_nothing_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    found = faults_of(changed("name: pictures", f'name: !!python/object/apply:os.mkdir ["{canary}"]'), tmp_path)
    assert len(found) == 1
    assert "python/object/apply:os.mkdir is not allowed" in found[0]
    assert not canary.exists()


def test_broken_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    assert faults_of("name: x\n  task: y\n", tmp_path)[0].startswith("job.yaml:2: is not valid YAML: ")
    assert faults_of("", tmp_path) == ["job.yaml:1: is empty; `unipic init MANIFEST > job.yaml` writes a job"]
    assert faults_of("- a\n", tmp_path) == ["job.yaml:1: must be a map of keys, such as `name: my-job`"]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("uri: out", "uri: 's3://me:hunter2canary@bucket/out'", "output.uri"),
        ("prompts.parquet", "AKIAHUNTER2CANARY000", "input.manifest"),
        ("prompts.parquet", "'https://host/x?X-Amz-Signature=hunter2canary'", "input.manifest"),
        ("output:", "storage: {secret_access_key: hunter2canary}\noutput:", "storage.secret_access_key"),
        ("output:", "password: hunter2canary\noutput:", "password"),
        ("output:", "storage: {endpoint_url: 'http://a:hunter2canary@b'}\noutput:", "storage.endpoint_url"),
    ],
)
def test_credentials_in_a_job_are_refused_and_not_repeated(tmp_path: Path, old: str, new: str, place: str) -> None:
    (fault,) = faults_of(changed(old, new), tmp_path)
    assert f" {place}: credentials do not belong in a job" in fault
    assert "AWS_ACCESS_KEY_ID" in fault
    assert "hunter2canary" not in fault.lower()


def test_overrides_win_over_the_file_and_later_ones_over_earlier(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(changed("batch_size: 4", "batch_size: 0"))
    job = load_job(
        path, ["compute.batch_size=7", "compute.batch_size=auto", "limits.until='07:00'", "input.keep=[a, b]"]
    )
    assert (job.compute.batch_size, job.limits.until, job.input.keep) == ("auto", "07:00", ("a", "b"))
    assert load_job(path, ["compute.batch_size=2", "compute.replicas={min: 1, max: 3}"]).compute.replicas.max == 3


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("compute.batch_size=0", "--set compute.batch_size: must be at least 1, got 0"),
        ("compute.batch_sise=1", "--set compute.batch_sise: unknown key; did you mean batch_size?"),
        ("compute.replicas={max: 0}", "--set compute.replicas (compute.replicas.max): must be at least 1, got 0"),
        ("compute", "--set compute: must have the form key=value, such as compute.batch_size=8"),
        ("name.x=1", "--set name.x: name has the value 'pictures', not keys; set name as a whole"),
        (
            "name=!!python/none x",
            "--set name: the tag tag:yaml.org,2002:python/none is not allowed: use maps, lists, text and numbers",
        ),
    ],
)
def test_a_wrong_override_is_reported_under_its_own_name(tmp_path: Path, override: str, fault: str) -> None:
    assert fault in faults_of(GOOD, tmp_path, override)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"the job file .*nowhere\.yaml does not exist"):
        load_job(tmp_path / "nowhere.yaml")
    with pytest.raises(SpecError, match="is a folder, not a job file"):
        load_job(tmp_path)


def test_a_manifest_in_the_place_of_its_job_is_named_with_the_command_that_writes_one(tmp_path: Path) -> None:
    path = tmp_path / "my prompts.csv"
    path.write_text("key,prompt\na,a red circle\n")
    with pytest.raises(SpecError, match="looks like a manifest, not a job file") as caught:
        load_job(path)
    assert caught.value.remedy == f"`unipic init '{path}' > job.yaml` writes a job for it."


def test_a_column_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: n\ntask: generate\ninput: {manifest: m, keep: [b, a, b]}\nmodel: {checkpoint: c}\noutput: {uri: o}\n"
    )
    with pytest.raises(SpecError, match=r"job\.yaml:3 input\.keep: must name each column once; twice there: b$"):
        load_job(path)
