"""`verify --cluster NAME`: the same page, made by one job on a slice of that cluster.

`python -m hpc.verify.job FILE` is the job: FILE holds what the command was given.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc import sbatch, slurm
from hpc.submission.placement import Placement, place
from hpc.submission.plan import make_plan
from hpc.submission.site import ask_site
from hpc.verify.page import show_verify
from hpc.works import verify_request
from relay.errors import ClusterError, RelayError
from relay.files import read_json, remove_tree, replace_file
from relay.log import log, start_log
from relay.runs.code_snapshot import keep_code

_POLL_S = 1.0
# SLURM ends the job sooner or later, but a trial takes minutes.
_TIME_MIN = 30
# NFS clients cache attributes: the files of a job that ended may not be visible here at once.
_FILES_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Given:
    """What the command was given. `here`: the folder in which it was called, `folder`: that of the trials."""

    config: str
    set_: Sequence[str]
    steps: int | None
    seed: int
    cluster: str
    here: str
    folder: str


def verify_in_a_job(config: str, set_: Sequence[str], steps: int | None, seed: int, placement: Placement) -> int:
    """Submit the job, print its page, and return its exit code.

    Raises ClusterError if SLURM refuses the job, or if it ends without a verdict.
    """
    # Not in the folder of the runs; hidden, so that it is no part of a project.
    folder = Path(tempfile.mkdtemp(prefix=".relay-verify-", dir=Path.cwd()))
    given = Given(config, list(set_), steps, seed, placement.name, str(Path.cwd()), str(folder))
    file = folder / "given.json"
    file.write_text(json.dumps(asdict(given)))
    profile = placement.profile
    short = profile.model_copy(update={"time_min": min(profile.time_min, _TIME_MIN), "runs_per_slice": 1})
    site, name = ask_site(placement.name, profile), f"relay-{folder.name.lstrip('.')}"
    plan = make_plan(
        short, site.gres, name, [[folder]], folder, keep_code(folder / "code"), kill_wait_s=site.kill_wait_s
    )
    script = folder / "job.sh"
    script.write_text(plan.script_of(["hpc.verify.job", str(file)]))
    job = sbatch.submit(name, script)
    log.info(f"job {job} makes the trials on {placement}; Ctrl-C cancels it")
    try:
        code = _follow(folder, name, job)
    finally:
        slurm.cancel([job])
    if code == 0:
        remove_tree(folder)
    return code


def _follow(folder: Path, name: str, job: str) -> int:
    """Print what the job prints until it has its verdict."""
    shown, over_since = {"out": 0, "err": 0}, 0.0
    while True:
        verdict = read_json(folder / "verdict.json")
        for kind, stream in (("out", sys.stdout), ("err", sys.stderr)):
            text = "".join(path.read_text(errors="replace") for path in sorted(folder.glob(f"*{kind}")))
            print(text[shown[kind] :], end="", file=stream, flush=True)
            shown[kind] = len(text)
        if verdict:
            return int(verdict["code"])
        in_queue = [each for each in slurm.squeue([name]) if slurm.in_flight(each.state)]
        over_since = 0.0 if in_queue else over_since or time.monotonic()
        if over_since and time.monotonic() - over_since > _FILES_TIMEOUT_S:
            raise ClusterError(f"verify: job {job} ended without a verdict; its output is in {folder}")
        time.sleep(_POLL_S)


def main(given: Given) -> None:
    """Make the trials, and leave the exit code in the folder."""
    start_log()
    os.chdir(given.here)
    folder = Path(given.folder)
    try:
        request, usual = verify_request(given.config, given.set_)
        profile = place(request.runs_dir, given.cluster, None, request.inputs).profile
        code = show_verify(request, given.steps or usual, given.seed, profile, folder)
    except RelayError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    replace_file(folder / "verdict.json", json.dumps({"code": code}))


if __name__ == "__main__":
    main(Given(**json.loads(Path(sys.argv[1]).read_text())))
