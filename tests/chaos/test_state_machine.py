"""Any order of starts, steps, deaths, storage faults and new manifest files, two runs among them: the same promises."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.chaos.drill import ALLOWED_EARLY
from tests.chaos.faults import OPEN_FAULTS, WRITE_FAULTS, Died, Fates, deadly_crash_points, fated
from tests.chaos.lives import World, life, passing
from tests.fakes import make_job, part_bytes, write_prompts
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.crashpoints import POINTS
from unipic.pipeline.errors import OutputError, UniPicError
from unipic.pipeline.storage.storage import Storage

WHICH = st.sampled_from(["one", "other"])
BLOWS = st.sampled_from(["", "", *POINTS, *OPEN_FAULTS, *WRITE_FAULTS])
PROMPTS = st.lists(st.sampled_from(["a cat", "a dog", "", None]), min_size=1, max_size=7)


class OneBlow(Fates):
    """Deals `blow` at the next place it fits, then nothing."""

    blow = ""

    def crash(self, point: str) -> bool:
        return self._deal(point)

    def request(self, verb: str, uri: str, kinds: tuple[str, ...]) -> str:
        blow = self.blow
        return blow if blow in kinds and verb != "told" and self._deal(blow) else ""

    def _deal(self, blow: str) -> bool:
        if blow != self.blow:
            return False
        self.blow = ""
        return True


class Runs(RuleBasedStateMachine):
    """Two runs of one job at most, started and struck at will."""

    @initialize(prompts=PROMPTS, rows_per_unit=st.integers(1, 3), conditional=st.booleans())
    def begin(self, prompts: list[str | None], rows_per_unit: int, conditional: bool) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.files = 0
        self.add_a_file(prompts)
        self.job = make_job(self.root, compute__rows_per_unit=rows_per_unit, compute__batch_size=2)
        self.world = World(self.job, conditional=conditional, crash_rate=0.0, storage_rate=0.0)
        self.running: dict[str, tuple[OneBlow, Iterator[str]]] = {}
        self.crashes = deadly_crash_points()
        self.crashes.__enter__()

    @rule(prompts=PROMPTS)
    @precondition(lambda self: self.files < 3)
    def add_a_file(self, prompts: list[str | None]) -> None:
        write_prompts(self.root / "manifest" / f"m{self.files}.parquet", prompts)
        self.files += 1

    @rule(which=WHICH, blow=BLOWS)
    def go_on(self, which: str, blow: str) -> None:
        """Start that run if it is not there; let it do one unit, struck by `blow` on the way if that can be."""
        if which not in self.running:
            fates = OneBlow(which, Counter(), crash_rate=0.0, storage_rate=0.0)
            self.running[which] = fates, life(self.world, fates)
        fates, steps = self.running[which]
        fates.blow = blow
        with fated(fates):
            try:
                next(steps)
            except StopIteration:
                del self.running[which]
            except (Died, UniPicError) as end:
                assert isinstance(end, Died) or passing(end), end
                del self.running[which]

    @rule(which=WHICH)
    def kill_between_units(self, which: str) -> None:
        self.running.pop(which, None)

    @invariant()
    def only_whole_units_are_there(self) -> None:
        try:
            report = verify(self.job.output.uri, Storage())
        except OutputError:  # no run has begun
            return
        assert set(report.counts) <= set(ALLOWED_EARLY), report.problems

    def teardown(self) -> None:
        if not hasattr(self, "job"):
            return
        self.crashes.__exit__(None, None, None)
        try:
            elsewhere = self.job.output.model_copy(update={"uri": f"{self.root}/calm"})
            calm = self.job.model_copy(update={"output": elsewhere})
            for job in (self.job, calm):
                world = World(job, conditional=True, crash_rate=0.0, storage_rate=0.0)
                for _ in life(world, world.fates("end")):
                    pass
            assert verify(self.job.output.uri, Storage()).ok
            assert part_bytes(self.job) == part_bytes(calm)
        finally:
            shutil.rmtree(self.root)


class TestRuns(Runs.TestCase):
    settings = settings(
        max_examples=15,
        stateful_step_count=12,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
