"""Runs `node_report.py` as a task on a node, or as a process of this machine, and waits for its report."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from hpc import sbatch, slurm
from hpc.doctor.handshake import POLL_S, Handshake, ProbeResult, open_handshake, try_lock
from hpc.submission.plan import make_plan
from hpc.submission.profile import Profile
from hpc.submission.script import python_command, setup_lines, task_environment
from relay.errors import ClusterError
from relay.files import read_json, replace_file
from relay.log import log
from relay.runs.code_snapshot import keep_code

_TIME_MIN = 4  # a short limit lets the backfill scheduler place the task in a gap
_REPORT_TIMEOUT_S = 180.0
_QUEUE_POLL_S = 2.0
# NFS clients cache attributes: the files of a task that ended may not be visible here at once.
_FILES_TIMEOUT_S = 20.0


class NoNodeError(ClusterError):
    """No node was free in time. This says nothing about the site or the profile."""


def probe_node(folder: Path, profile: Profile, gres: str | None, wait_s: float) -> ProbeResult:
    """Submit the probe the way runs are submitted, wait up to `wait_s` seconds for a node, then for the report.

    Raises ClusterError if the job is refused or ends without a report, NoNodeError if no node was free in time. The job
    is cancelled in either case.
    """
    name = f"relay-{folder.name.lstrip('.')}"
    short = profile.model_copy(update={"time_min": _TIME_MIN})
    plan = make_plan(short, gres, name, [[folder]], folder, keep_code(folder / "code"))
    script = folder / "job.sh"
    script.write_text(plan.script_of(_call(folder)))
    job_id = sbatch.submit(name, script)
    log.info(f"job {job_id} checks a node; waiting up to {wait_s:.0f} s for a free one")
    try:
        return _exchange(Handshake(folder), _JobWatch(name, job_id, wait_s, folder))
    finally:
        slurm.cancel([job_id])


def probe_here(folder: Path, profile: Profile) -> ProbeResult:
    """Run the probe as a process of this machine. Raises ClusterError if it ends without a report."""
    code = keep_code(folder / "code")
    command = f"exec {python_command(_call(folder))}"
    lines = [*setup_lines(profile, code), *task_environment(profile, None), command]
    with (folder / "err").open("w") as err:
        process = subprocess.Popen(["bash", "-c", "\n".join(lines)], stdout=subprocess.DEVNULL, stderr=err)

    def watch() -> None:
        if process.poll() is not None and not Handshake(folder).report.is_file():
            raise ClusterError(f"the task ended with exit code {process.returncode}: {_last_error_line(folder)}")

    try:
        return _exchange(Handshake(folder), watch)
    finally:
        process.kill()
        process.wait()


def _call(folder: Path) -> list[str]:
    return ["hpc.doctor.node_report", str(folder)]


def _exchange(handshake: Handshake, watch: Callable[[], None]) -> ProbeResult:
    """Wait for `ready`, write `ack`, wait for the report. `watch` raises ClusterError if no report will come."""
    start = time.monotonic()
    with open_handshake(handshake.folder):
        while not (ready := read_json(handshake.ready)):
            watch()
            time.sleep(POLL_S)
        clock_s = time.time() - float(ready["time"])
        began_s = time.monotonic() - start
        with handshake.node_lock.open("r+") as file:
            node_lock = try_lock(file)
        replace_file(handshake.ack, json.dumps({"seen": True}))
        deadline = time.monotonic() + _REPORT_TIMEOUT_S
        while not (report := read_json(handshake.report)):
            watch()
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the task began on {ready['host']}, but wrote no report within {_REPORT_TIMEOUT_S:.0f} s"
                )
            time.sleep(POLL_S)
    return ProbeResult(report, began_s, node_lock, clock_s)


class _JobWatch:
    """Raises NoNodeError if the job found no node in time, ClusterError if it ended without a report."""

    def __init__(self, name: str, job_id: str, wait_s: float, folder: Path) -> None:
        self._name, self._job_id, self._wait_s, self._folder = name, job_id, wait_s, folder
        self._start = self._asked = time.monotonic()
        self._over_since: float | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._asked < _QUEUE_POLL_S:
            return
        self._asked = now
        job = next((job for job in slurm.squeue([self._name]) if job.job_id == self._job_id), None)
        phase = slurm.phase(job.state) if job else "over"
        if job and phase == "waiting" and now - self._start > self._wait_s:
            raise NoNodeError(f"no node was free within {self._wait_s:.0f} s (reason: {job.reason})")
        if phase == "over":
            self._over_since = self._over_since or now
            if now - self._over_since > _FILES_TIMEOUT_S:
                state = f"is {job.state}" if job else "left the queue"
                raise ClusterError(f"job {self._job_id} {state} without a report: {_last_error_line(self._folder)}")


def _last_error_line(folder: Path) -> str:
    lines = [
        line.strip()
        for path in sorted(folder.glob("*err"))
        for line in path.read_text(errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1][:300] if lines else "it printed no error"
