"""A client over Ray reports as a direct call does, with one call a micro-batch."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from unipic.pipeline.execution.ray_cluster import supervisor_actor
from unipic.pipeline.supervision.client import RemoteClient, ask_health
from unipic.pipeline.supervision.failures import Failure, RayLost
from unipic.pipeline.supervision.supervisor import UnitHistory


@pytest.fixture
def actor(ray_session: None) -> Iterator[Any]:
    with supervisor_actor() as actor:
        yield actor


def test_what_a_replica_reports_arrives_before_it_goes_on(actor: Any) -> None:
    client = RemoteClient(actor)
    assert client.request_load("one") == "warm up"
    client.warmup_loaded(1.5)
    client.warmup_passed("one row answered in 0.1 s")
    client.replica_loading("one")
    client.replica_loaded("one")
    assert client.begin_task("a", "prepare") == 0
    assert client.start_unit("a", "one") == UnitHistory([])
    client.attempt("a", (0, 4), "one")
    client.answered("a", (0, 4), 4)
    assert ask_health(actor).rows_answered == 0, "answers are reported with the next attempt"
    client.attempt("a", (4, 6), "one")
    assert ask_health(actor).rows_answered == 4
    client.answered("a", (4, 6), 2)
    client.flush()
    health = ask_health(actor)
    assert (health.rows_answered, health.replicas, health.working) == (6, 1, {})
    assert health.admission.message == "one replica loaded in 1.5 s, one row answered in 0.1 s"


def test_a_client_travels_to_another_process_with_nothing_unreported(actor: Any) -> None:
    client = RemoteClient(actor)
    client.answered("a", (0, 4), 4)
    assert pickle.loads(pickle.dumps(client)).unreported == []


def test_a_failed_warm_up_travels_whole(actor: Any) -> None:
    failure = Failure("EngineError", "broken", "preflight", details="a traceback")
    RemoteClient(actor).warmup_failed(failure)
    assert ask_health(actor).admission.failure == failure


def test_a_supervisor_that_is_gone_is_an_error_that_says_so(actor: Any) -> None:
    ray.kill(actor)
    with pytest.raises(RayLost, match=r"the run's supervisor, .*, has ended\. Committed units are safe"):
        ask_health(actor)


def test_a_replica_that_waits_for_a_run_that_has_ended_leaves_without_an_error(actor: Any) -> None:
    client = RemoteClient(actor)
    assert client.request_load("one") == "warm up" and client.request_load("two") == "wait"
    ray.kill(actor)
    assert client.request_load("two") == "leave"
