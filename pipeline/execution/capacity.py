"""Cluster capacity: whether the machines have what the job's replicas need. Where they have not, Ray waits silently."""

from __future__ import annotations

from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job

ON_CPU = "no GPU found, so replicas run on the CPU; compute.gpus_per_replica: 1 waits for a GPU instead"
REMEDY = "Set compute.gpus_per_replica: 0 to work on CPUs, or give the --address of a cluster that has GPUs."


def with_gpus(job: Job) -> tuple[Job, str]:
    """`job` with `gpus_per_replica: auto` resolved for the connected cluster, and a note if it chose the CPU."""
    import ray

    if job.compute.gpus_per_replica != "auto":
        return job, ""
    found = any(node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes() if node["Alive"])
    gpus = 1.0 if job.model.device == "cuda" or (job.model.device == "auto" and found) else 0.0
    note = "" if gpus or job.model.device == "cpu" else ON_CPU
    return job.model_copy(update={"compute": job.compute.model_copy(update={"gpus_per_replica": gpus})}), note


def check_capacity(job: Job, *, can_grow: bool) -> str:
    """What the machines of the connected cluster lack for `job`, or "".

    Args:
        can_grow: machines may join later, so that waiting for them is right.

    Raises:
        JobError: something is lacking, and no machine can join.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    replicas = job.compute.replicas.min
    for kind, each in (("GPU", job.compute.gpus), ("CPU", job.compute.cpus_per_replica)):
        have = [float(machine.get(kind, 0)) for machine in machines]
        if each > max(have):
            lack = f"one replica needs {each:g} {kind}, and no machine here has more than {max(have):g}"
        elif replicas * each > sum(have):
            lack = f"{replicas} replicas need {replicas * each:g} {kind}s, and there are {sum(have):g}"
        else:
            continue
        if can_grow:
            return f"{lack}; waiting for machines to join, at most limits.stall_s ({job.limits.stall_s:g} s)"
        raise JobError(lack, remedy=REMEDY if kind == "GPU" else "Ask for fewer replicas or CPUs under compute.")
    return ""
