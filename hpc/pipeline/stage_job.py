"""The small job that advances a pipeline once the jobs of a stage are over."""

from __future__ import annotations

import shlex
import sys

from hpc import slurm
from hpc.pipeline.directory import Chain
from hpc.submission.plan import job_name, options_without_slice
from hpc.submission.profile import Profile
from hpc.submission.submit import show_in_logs
from src.log import log
from src.runs.code_snapshot import check_commands


def submit_stage_job(chain: Chain, link: str, flying: set[str], profile: Profile) -> None:
    """A small job that goes on with the chain once the link's jobs are over, however they end."""
    # One that runs is this one, or does just the same at this moment.
    waiting = [job for job in slurm.queued(chain.job_names()) if slurm.phase(job.state) == "waiting"]
    if waiting:
        print(f"job {waiting[0].job_id} goes on with {chain.name} after it")
        return
    name = job_name(chain.path, len(chain.job_names()) + 1)
    chain.record(job_name=name, after=link)
    chain.jobs.mkdir(exist_ok=True)
    show_in_logs(chain.config(), chain.jobs)
    options = options_without_slice(
        profile,
        dependency="afterany:" + ":".join(sorted({job.partition("_")[0] for job in flying})),
        output=str(chain.jobs / "%j.out"),
        chdir=chain.meta()["folder"],
    )
    job = slurm.submit_script(name, _stage_script(chain, profile), options)
    log.info(f"job {job} goes on with {chain.name} when the jobs of {link} are over")


def _stage_script(chain: Chain, profile: Profile) -> str:
    call = [sys.executable, "-m", "hpc.launch", "pipeline", "--advance", str(chain.path)]
    lines = [
        *check_commands(chain.snapshot()),
        f"cd {shlex.quote(chain.meta()['folder'])}",
        *profile.setup,
        shlex.join(call),
    ]
    return "\n".join(lines)
