"""Submit runs to SLURM. The intent is on disk before sbatch is called, so no job is ever lost."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from hpc import sbatch
from hpc.submission.plan import SubmitPlan, Target, plan_arrays
from hpc.submission.submissions import Submission, next_number
from relay import hints
from relay.config.sections import Paths
from relay.errors import ClusterError
from relay.files import append_lines, replace_file
from relay.log import log
from relay.runs.rundir import RunDir, SweepDir
from relay.text import counted, shortlist

# How sbatch words a limit on the number of submitted jobs of a user, account or QOS
# (slurm.schedmd.com/resource_limits.html).
_SUBMIT_LIMIT = re.compile(r"MaxSubmit|GrpSubmit|accounting/QOS policy|submit limit|job count", re.I)


def submit_runs(runs: Sequence[RunDir], target: Target, queued_tasks: Collection[str]) -> int:
    """Submit as many of the runs as the site takes, in addition to the `queued_tasks` (task ids) of the same sweep.

    Returns the number of runs submitted. Raises ClusterError if the site takes none.
    """
    sweep, submitted, ids = target.sweep, 0, dict[str, str]()
    queued, before = len(queued_tasks), sorted({task.partition("_")[0] for task in queued_tasks})
    plans = plan_arrays(target, runs, next_number(sweep), queued, before)
    while plans:
        plan = plans[0].with_ids(ids)
        try:
            submission = submit(plan, sweep, target.site.cluster)
        except ClusterError as error:
            # The limit may still leave room for a smaller array. Halving needs log2(tasks) calls at most.
            if _SUBMIT_LIMIT.search(str(error)) and len(plan.tasks) > 1:
                target = replace(target, site=replace(target.site, array_size=len(plan.tasks) // 2))
                plans = plan_arrays(target, runs[submitted:], next_number(sweep), queued, before)
                continue
            if not submitted:
                raise
            remaining = counted(len(runs) - submitted, "run")
            print(f"{error}\n{remaining} not submitted; to submit the rest later: {hints.again()}")
            break
        count, ids[plan.job_name] = sum(len(each) for each in plan.tasks), str(submission.job_id)
        as_job = f"as {submission.job_name}: job {submission.job_id} ({plan})"
        print(f"submitted {counted(count, 'run')} {as_job}", flush=True)
        if plan.after:
            reason = f"max_parallel is {target.profile.max_parallel}, for all jobs of the sweep together"
            print(f"  it starts when {_jobs_are(plan.after)} over: {reason}")
        submitted, queued = submitted + count, queued + len(plan.tasks)
        before = [*([] if plan.after else before), str(submission.job_id)]
        plans = plans[1:]
    return submitted


def _jobs_are(ids: Sequence[str]) -> str:
    return f"job {ids[0]} is" if len(ids) == 1 else f"jobs {shortlist(ids)} are"


def submit(plan: SubmitPlan, sweep: SweepDir, cluster: str = "") -> Submission:
    """Submit the plan as one array to `cluster`, the one whose queue is asked here.

    Raises ClusterError, with SLURM's own message, if SLURM refuses. A busy controller is waited for. Before
    sbatch is repeated, squeue tells whether the first call was taken.
    """
    tasks = tuple(tuple(path.name for path in runs) for runs in plan.tasks)
    intent = {"job_name": plan.job_name, "tasks": tasks, "time": round(time.time(), 3), "cluster": cluster}
    append_lines(sweep.submissions_file, [intent])
    # Under the job's name and before sbatch: whatever becomes of this process, the tasks that SLURM takes find them.
    plan.log_folder.mkdir(parents=True, exist_ok=True)
    replace_file(plan.tasks_file, json.dumps([[str(path) for path in runs] for runs in plan.tasks]))
    replace_file(plan.script_file, plan.sbatch_text)
    try:
        job_id = sbatch.submit(plan.job_name, plan.script_file)
    except sbatch.UnseenError as error:
        append_lines(sweep.submissions_file, [{"job_name": plan.job_name, "unseen": str(error)}])
        raise
    append_lines(sweep.submissions_file, [{"job_name": plan.job_name, "job_id": job_id, "time": round(time.time(), 3)}])
    return Submission(plan.job_name, tasks, job_id)


def show_in_logs(paths: Paths, folder: Path) -> None:
    """Link logs/<sweep> to `folder`, in which a sweep's jobs write. Jobs use the folder itself and never the link."""
    link, target = paths.logs.absolute() / folder.parent.name, folder.resolve()
    try:
        if link.is_symlink() and link.resolve() != target:
            link.unlink()  # The runs directory has moved.
        if not os.path.lexists(link):  # A folder of this name is the user's.
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(target, link.parent.resolve()))
    except FileExistsError:
        return
    except OSError as error:
        log.warning(f"{link}: cannot be made ({error.strerror}); the logs are in {folder}")
