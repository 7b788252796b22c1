"""Submit a job to SLURM exactly once, and find its id in the queue.

What sbatch prints decides nothing alone: sites put scripts with the name `sbatch` before it, which print lines of their
own or leave out its answer. So squeue is asked for the job's name, which no other job has.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

from hpc import slurm
from hpc.slurm_command import WAITS_S, BusyError, retry, run_slurm_once
from relay.errors import ClusterError
from relay.log import log

# sbatch(1), with and without --parsable. With several clusters, it also names the one that it chose.
_ANSWER = re.compile(r"^(?:Submitted batch job )?(?P<job>\d+)(?:(?:;| on cluster )(?P<cluster>\S+))?\s*$", re.M)


class UnseenError(ClusterError):
    """sbatch says that it has submitted a job, and the queue does not have it: it may be on another cluster."""


def submit(name: str, script: Path) -> str:
    """Submit the script, which names its job `name`, and return the id that the queue has for it.

    An sbatch that times out may have been accepted, so squeue is asked for `name` before each new try. If several jobs
    of this name were accepted, all but one are cancelled. Raises UnseenError, or ClusterError if nothing was submitted.
    """
    tries = count()

    def send_unless_taken() -> str:
        taken = slurm.squeue([name], waits_s=()) if next(tries) else []
        return taken[0].array_id if taken else run_slurm_once(["sbatch", "--parsable", str(script)])

    try:
        answer = retry(send_unless_taken, WAITS_S, announce=True)
    except BusyError:
        raise
    except ClusterError as error:
        # A site's script may fail after the real sbatch has submitted the job.
        answer = _taken_in_spite_of(error, name)
    try:
        ids = list(dict.fromkeys(job.array_id for job in slurm.squeue([name])))
    except BusyError as error:
        raise BusyError(f"{error}; a job was submitted as {name}, and the same command finds it") from None
    claims = list(_ANSWER.finditer(answer))
    if not ids:
        raise _not_in_queue(name, answer, claims)
    said = {claim["job"] for claim in claims}
    job_id = next((each for each in ids if each in said), ids[0])
    if job_id not in said:
        log.info(f"sbatch did not print the id of the job that it submitted; by its name {name} it is job {job_id}")
    slurm.cancel(sorted(set(ids) - {job_id}))
    return job_id


def _taken_in_spite_of(error: ClusterError, name: str) -> str:
    """The id of the job that was submitted although sbatch failed; raises the error if there is none."""
    try:
        taken = slurm.squeue([name], waits_s=())
    except ClusterError:
        taken = []
    if not taken:
        raise error
    log.warning(f"{error}; the queue has the job, though")
    return taken[0].array_id


def _not_in_queue(name: str, answer: str, claims: list[re.Match[str]]) -> ClusterError:
    printed = f"sbatch printed {' '.join(answer.split())[:200]!r}"
    if not claims:
        return ClusterError(f"{printed}, which is no job id, and the queue has no job {name}: nothing was submitted")
    job_id, cluster = claims[-1]["job"], claims[-1]["cluster"]
    elsewhere = f"{printed}: job {job_id} is not in the queue of this cluster, which is the only one that Relay asks"
    if cluster:
        try:
            run_slurm_once(["scancel", f"--clusters={cluster}", f"--name={name}"])
        except ClusterError as error:
            by_hand = f"scancel --clusters={cluster} {job_id}"
            return UnseenError(f"{elsewhere}; it could not be cancelled there ({error}): {by_hand}")
        return ClusterError(f"{elsewhere}; it was cancelled. To use the cluster {cluster}, set SLURM_CONF to its file")
    return UnseenError(f"{elsewhere}; find it where it went, and cancel it: scancel --name={name}")
