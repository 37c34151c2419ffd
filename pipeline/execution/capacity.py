"""Whether a cluster has what the job's replicas ask for. Where it has not, Ray waits without a word."""

from __future__ import annotations

from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job

REMEDY = "Set compute.gpus_per_replica: 0 to work on CPUs, or give the --address of a cluster that has GPUs."


def check_room(job: Job, *, can_grow: bool) -> str:
    """What the machines of the connected cluster lack for `job`, or "".

    Args:
        can_grow: machines may join later, so that waiting for them is right.

    Raises:
        JobError: something lacks, and nothing can bring it.
    """
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    replicas = job.compute.replicas.min
    for kind, each in (("GPU", job.compute.gpus_per_replica), ("CPU", job.compute.cpus_per_replica)):
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
