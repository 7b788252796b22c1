"""Advance a pipeline, stage by stage, until it waits for jobs or is complete.

`advance` is safe to call at any time. On SLURM, a small job calls it again when the jobs of a stage are over. If that
job is lost, the user calls it with the command that started the pipeline.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hpc.pipeline.directory import STAGES, Pipeline, StageRecord
from hpc.pipeline.stage_execution import advance_stage
from hpc.slurm_command import retry
from hpc.submission.profile import read_profile
from hpc.submission.site import ask_site
from hpc.submission.trust import check_folder
from relay import hints
from relay.errors import RelayError, RunError
from relay.runs.planning_lock import folder_lock

# A question to a controller that is away takes half a minute by itself (slurm_command.WAITS_S), so these retries need
# no wait in between: together they take ten minutes.
_STAGE_JOB_WAITS_S = (0,) * 19


def advance(pipeline: Pipeline, *, by_stage_job: bool, new_code: bool = False) -> None:
    """Advance the pipeline until it waits for jobs or is complete. Raises RunError, with the stage, if a stage fails.

    `by_stage_job`: called by the pipeline's own job, which does not submit again what a user has stopped.
    """
    with hints.acting_for(pipeline.meta()):
        _advance(pipeline, by_stage_job=by_stage_job, new_code=new_code)


def _advance(pipeline: Pipeline, *, by_stage_job: bool, new_code: bool) -> None:
    check_folder(pipeline.path, pipeline.meta())
    profile = read_profile(pipeline.profile_file)
    name = str(pipeline.meta()["call"]["cluster"])
    site = None
    if profile.executor == "slurm":
        # Nobody repeats the call of the pipeline's own job: it must outlast a restart of the controller.
        site = retry(lambda: ask_site(name, profile), _STAGE_JOB_WAITS_S if by_stage_job else ())
    # Relative paths in the configuration are meant from where the pipeline was started.
    os.chdir(pipeline.meta()["folder"])
    with folder_lock(pipeline.path):
        for stage in STAGES:
            try:
                done = advance_stage(pipeline, stage, profile, site, by_stage_job=by_stage_job, new_code=new_code)
            except RelayError as error:
                known = pipeline.stage_records().get(stage, StageRecord(stage, "failed"))
                pipeline.record_stage(replace(known, state="failed", reason=str(error)))
                raise RunError(f"{pipeline.name} stops at {stage}: {error}") from None
            if not done:
                return
    print(f"{pipeline.name} is complete")
    for stage, record in pipeline.stage_records().items():
        print(f"  {stage}: {record.result or ''}  ({record.sweep})")


def advance_at(path: Path) -> None:
    """`advance` for the pipeline in the folder `path`, called by the job that SLURM starts between two stages."""
    advance(Pipeline(path), by_stage_job=True)
