"""A drill with everything real: Ray, kill -9, and an S3 server behind a proxy that fails. Started again until done."""

from __future__ import annotations

import json
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.drill import Verdict, judge
from tests.chaos.processes import IDLE, REPLICA, TASK, Life, strike
from tests.chaos.proxy import Weather, proxy
from tests.chaos.schedules import Schedule, job_of, places
from tests.fakes import part_bytes
from tests.inprocess import run_here
from tests.servers import ENV, S3Server
from unipic.pipeline.job import Job
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

KINDS = (
    "kill a replica",
    "kill the driver and all with it",
    "kill a task",
    "kill the driver alone",
    "freeze a worker",
    "a frozen worker outlives its run",
    "remove a node",
    "storage alone",
)
WORK_S = 0.15
FROZEN_S = 2.0
RESTLESS_LIVES = 4
CALM_LIVES = 3


@dataclass(frozen=True)
class Blow:
    """One fault: after so many units of a life, what."""

    after_units: int
    kind: str


def real_schedule(seed: int) -> tuple[Schedule, list[list[Blow]], float]:
    """The job, the blows of each life, and the share of requests that fail."""
    dice = random.Random(f"real {seed}")
    files = tuple(
        tuple("" if dice.random() < 0.1 else f"a thing, {at}" for at in range(dice.randint(14, 22))) for _ in range(2)
    )
    plan = Schedule(
        seed=seed,
        task="generate",
        files=files,
        rows_per_unit=dice.randint(3, 5),
        batch_size=dice.randint(2, 3),
        images=dice.choice(["inline", "files"]),
        samples=1,
        conditional=False,
        company=False,
        retry=False,
        crash_rate=0.0,
        storage_rate=dice.choice([0.0, 0.02, 0.05]),
    )
    kind = KINDS[seed % len(KINDS)]
    lives = [[Blow(dice.randint(0, 3), kind)]]
    if kind == "storage alone":
        return plan, [], 0.1
    others = ("kill a replica", "kill a task", "kill the driver and all with it", "freeze a worker")
    while len(lives) < RESTLESS_LIVES and dice.random() < 0.35:
        lives.append([Blow(dice.randint(0, 3), dice.choice(others))])
    if dice.random() < 0.5:
        lives[0].append(Blow(dice.randint(1, 2), dice.choice(others)))
    return plan, lives, plan.storage_rate


def real_drill(seed: int, root: Path, server: S3Server) -> Verdict:
    """Run the real drill that `seed` stands for; `root` is an empty folder."""
    plan, lives, storage_rate = real_schedule(seed)
    bucket = server.bucket()
    direct = _job(plan, root, bucket, server.endpoint_url)
    store = Storage(direct.storage)
    for path in sorted((root / "manifest").glob("*.parquet")):
        store.write(f"{bucket}/manifest/{path.name}", path.read_bytes())
    run_here(direct)
    undisturbed = part_bytes(direct)
    for one in list(store.list(direct.output.uri, recursive=True)):
        store.delete(one.uri)
    weather = Weather(seed, storage_rate)
    verdict = Verdict(seed, rows=plan.rows)
    log = root / "answered.txt"
    with proxy(server.endpoint_url, weather) as door, _place(lives) as place:
        job = _job(plan, root, bucket, door.endpoint_url)
        spec = {"job": job.model_dump(mode="json"), "work_s": WORK_S, "log": str(log), "address": place.address}
        (root / "spec.json").write_text(json.dumps(spec))
        _restart_until_done(lives, root, place, weather, verdict)
    verdict.faults.update({f"proxy: {kind}": times for kind, times in weather.tally.items()})
    judge(
        verdict,
        direct,
        expected=places(plan, direct),
        undisturbed=undisturbed,
        disturbed=part_bytes(direct),
        storage=store,
    )
    well = sum(bool(prompt) for prompts in plan.files for prompt in prompts)
    verdict.rows_redone = sum(map(int, log.read_text().split())) - well
    return verdict


def _job(plan: Schedule, root: Path, bucket: str, endpoint_url: str) -> Job:
    options = StorageOptions(endpoint_url=endpoint_url, backoff_max_s=1.0).model_dump()
    return job_of(
        plan, root, input__manifest=f"{bucket}/manifest/*.parquet", output__uri=f"{bucket}/out", storage=options
    )


@dataclass
class Place:
    """Where runs have their Ray: one of their own each (`address` None), or a cluster of two nodes."""

    env: dict[str, str]
    address: str | None = None
    cluster: Any = None
    second: Any = None

    def remove_node(self) -> bool:
        if self.second is None:
            return False
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None
        return True


@contextmanager
def _place(lives: list[list[Blow]]) -> Iterator[Place]:
    temp = tempfile.mkdtemp(prefix="drill")  # short: sockets live in it, and their paths may have 107 bytes
    env = {**ENV, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": temp, "OMP_NUM_THREADS": "1"}
    try:
        if not any(blow.kind == "remove a node" for life in lives for blow in life):
            yield Place(env)
            return
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "temp_dir": temp})
        try:
            second = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
            yield Place(env, cluster.address, cluster, second)
        finally:
            cluster.shutdown()
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _restart_until_done(lives: list[list[Blow]], root: Path, place: Place, weather: Weather, verdict: Verdict) -> None:
    ended: list[Life] = []
    frozen: list[psutil.Process] = []
    try:
        for number in range(len(lives) + CALM_LIVES):
            if number > len(lives):
                weather.rate = 0.0
            verdict.lives += 1
            life = Life(root / "spec.json", env=place.env)
            ended.append(life)
            for blow in lives[number] if number < len(lives) else []:
                if life.wait_for_units(blow.after_units):
                    _deal(blow.kind, life, place, frozen, verdict)
            if frozen and number:
                life.wait_for_units(1)
                while frozen:
                    strike(frozen.pop(), signal.SIGCONT)
            if life.wait() == 0:
                return
        verdict.broken.append(f"not done after {verdict.lives} starts; the last said {ended[-1].said[-1:]}")
    except TimeoutError as hang:
        verdict.broken.append(str(hang))
        ended[-1].kill_all()
    finally:
        for process in frozen:
            strike(process, signal.SIGCONT)
        verdict.broken += [f"outlived its run: {name}" for life in ended for name in life.left_behind()]


def _deal(kind: str, life: Life, place: Place, frozen: list[psutil.Process], verdict: Verdict) -> None:
    if kind == "remove a node" and not place.remove_node():
        kind = "kill a replica"
    if kind in ("kill a replica", "kill a task", "freeze a worker", "a frozen worker outlives its run"):
        wanted = TASK if kind == "kill a task" else REPLICA
        target = life.find(wanted)
        if target is None and (target := life.find(IDLE)) is not None:
            verdict.faults["  of these, a worker that was idle"] += 1
        if target is None:
            return
        if kind.startswith("kill"):
            strike(target, signal.SIGKILL)
        else:
            strike(target, signal.SIGSTOP)
        if kind == "freeze a worker":
            threading.Timer(FROZEN_S, strike, (target, signal.SIGCONT)).start()
        elif kind == "a frozen worker outlives its run":
            frozen.append(target)
            life.kill_all(but=target)
    elif kind == "kill the driver and all with it":
        life.kill_all()
    elif kind == "kill the driver alone":
        life.processes()
        strike(life.root, signal.SIGKILL)
    verdict.faults[kind] += 1
