"""Compares the machines of a cluster with the driver's before any unit begins, and refuses those that differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import JobError
from unipic.pipeline.execution.node_facts import NodeFacts, mark, versions
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.supervision.failures import essence

ANSWER_S = 60.0  # a worker process starts within five; a machine that swaps needs longer, and is not refused
MOST = 32  # machines that are all asked; of more, one of each kind
SAID_MOST = 8
REMEDY = (
    "Install the same versions on every machine of the cluster, and give addresses that all of them can read; "
    "`unipic submit` brings the package along."
)
NAMES = {
    "package": "unipic-batch",
    "code": "unipic-batch code",
    "python": "Python",
    "torch": "PyTorch",
    "ray": "Ray",
}


def check_nodes(context: RunContext, file: ManifestFile) -> str:
    """Ask the machines of the connected cluster that may work on the job.

    Args:
        file: one of the manifest, which every machine has to read.

    Returns:
        A note on machines that did not answer, or "".

    Raises:
        JobError: a machine has something else than the driver, or lacks something; all of them, by name.
    """
    import ray

    question = ray.cloudpickle.dumps((context, file, mark(context, context.storage)))
    nodes = _asked([node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0)])
    answers = {_probe(node["NodeID"]).remote(question): node for node in nodes}
    ready, silent = ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER_S)
    ours, faults = versions(), []
    for answer in ready:
        node = answers[answer]
        for fault in _faults(_answered(answer), ours, gpu=bool(context.job.compute.gpus and _gpus(node))):
            faults.append(f"{_name(node)}: {fault}")
    if faults:
        more = [f"and {len(faults) - SAID_MOST} more"] if len(faults) > SAID_MOST else []
        raise JobError("\n".join(["the cluster cannot do this job:", *faults[:SAID_MOST], *more]), remedy=REMEDY)
    names = ", ".join(_name(answers[answer]) for answer in silent)
    return f"no answer within {ANSWER_S:.0f} s from {names}, which may differ from this machine" if names else ""


def _asked(nodes: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """All `nodes`, or where they are many, one of each kind."""
    if len(nodes) <= MOST:
        return nodes
    kinds = {}
    for node in nodes:
        size = {name: amount for name, amount in node["Resources"].items() if "node:" not in name}
        memory = ("memory", "object_store_memory")
        kinds[str(sorted((name, amount) for name, amount in size.items() if name not in memory))] = node
    return list(kinds.values())


def _probe(node_id: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_question())


def _question() -> Callable[[bytes], Any]:
    """What a machine is asked: a function inside of another travels by value, so that it runs without the package."""

    def facts(pickled: bytes) -> Any:
        try:
            from unipic.pipeline.execution import node_facts
        except ImportError as error:
            return str(error)
        import pickle

        found = node_facts.versions()
        if found.code != node_facts_code:
            return found  # what else it would say may mean something else there
        from dataclasses import replace

        return replace(found, unreachable=node_facts.unreachable(*pickle.loads(pickled)))

    node_facts_code = versions().code
    return facts


def _answered(answer: Any) -> NodeFacts | str:
    """What a machine said, or why it could not say anything."""
    import ray

    try:
        found: NodeFacts | str = ray.get(answer)
    except ray.exceptions.RayError as error:
        return essence(error)
    return found


def _faults(found: NodeFacts | str, ours: NodeFacts, *, gpu: bool) -> Iterator[str]:
    if isinstance(found, str):
        yield f"unipic-batch is not usable there ({found}); needed: {ours.package}"
        return
    for field, name in NAMES.items():
        there, here = getattr(found, field), getattr(ours, field)
        if there != here:
            yield f"{name} is {there}; needed: {here}"
            if field == "package":
                return  # which explains the rest
    if gpu and found.torch_on_cpu:
        yield "it has a GPU, and a PyTorch that was built without CUDA"
    yield from found.unreachable


def _gpus(node: dict[str, Any]) -> float:
    return float(node["Resources"].get("GPU", 0))


def _name(node: dict[str, Any]) -> str:
    host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
    return host if host == address else f"{host} ({address})"
