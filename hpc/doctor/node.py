"""A task as Relay's own, sent to a node (or started here) to look around: the asking side of `node_report.py`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc import slurm
from hpc.cluster import Profile
from hpc.doctor.node_report import POLL_S, Meeting, try_lock
from hpc.plan import make_plan, task_command, task_environment, worker_python
from hpc.slurm_command import ask
from src.code_snapshot import keep_code
from src.errors import ClusterError
from src.files import read_json, replace_file

_TIME_MIN = 4
_REPORT_PATIENCE_S = 180.0
_QUEUE_POLL_S = 2.0
_FILES_PATIENCE_S = 20.0


class NoNodeError(ClusterError):
    """The cluster is full at the moment, which is no fault of the site or the profile."""


@dataclass(frozen=True)
class Answer:
    """The node's report, and what was seen of it from here: seconds until it began, its lock, its clock."""

    report: Mapping[str, Any]
    began_s: float
    node_lock: str
    clock_s: float


def ask_node(folder: Path, profile: Profile, gres: str | None, wait_s: float) -> Answer:
    """Submit the task as any run's, wait up to `wait_s` seconds for a node and then for its report.

    Raises ClusterError where it is refused or does not come to its end, NoNodeError where no node was free in time.
    No job is left behind.
    """
    name = f"relay-{folder.name.lstrip('.')}"
    short = profile.model_copy(update={"time_min": _TIME_MIN})
    plan = make_plan(short, gres, name, [[folder]], folder, keep_code(folder / "code"))
    script = folder / "job.sh"
    script.write_text(plan.sbatch_text.replace(task_command(folder), _command(folder)))
    job_id = ask(["sbatch", "--parsable", str(script)]).strip().partition(";")[0]
    print(f"job {job_id} looks around on a node; it is given {wait_s:.0f} s to find one", file=sys.stderr, flush=True)
    try:
        return _meet(Meeting(folder), _QueueWatch(name, job_id, wait_s, folder))
    finally:
        slurm.cancel([job_id])


def ask_here(folder: Path, profile: Profile) -> Answer:
    """The same as a process of this machine. Raises ClusterError where it does not come to its end."""
    lines = [*task_environment(profile, None, keep_code(folder / "code")), *profile.setup, f"exec {_command(folder)}"]
    with (folder / "err").open("w") as err:
        process = subprocess.Popen(["bash", "-c", "\n".join(lines)], stdout=subprocess.DEVNULL, stderr=err)

    def watch() -> None:
        if process.poll() is not None and not Meeting(folder).report.is_file():
            raise ClusterError(f"it ended with exit code {process.returncode}: {_last_words(folder)}")

    try:
        return _meet(Meeting(folder), watch)
    finally:
        process.kill()
        process.wait()


@contextmanager
def meeting_place(folder: Path) -> Iterator[Meeting]:
    """The files of a meeting, with the lock held that the other side is to see."""
    meeting = Meeting(folder)
    replace_file(meeting.turn, "{}")
    with meeting.asker_lock.open("w") as file:
        try_lock(file)
        yield meeting


def _command(folder: Path) -> str:
    return f"{worker_python()} -u -m hpc.doctor.node_report {shlex.quote(str(folder))}"


def _meet(meeting: Meeting, watch: Callable[[], None]) -> Answer:
    """Wait for `hello`, answer it, wait for the report; `watch` raises ClusterError where there is none to come."""
    start = time.monotonic()
    with meeting_place(meeting.folder):
        while not (hello := read_json(meeting.hello)):
            watch()
            time.sleep(POLL_S)
        clock_s = time.time() - float(hello["time"])
        began_s = time.monotonic() - start
        with meeting.node_lock.open("r+") as file:
            node_lock = try_lock(file)
        replace_file(meeting.turn, json.dumps({"seen": True}))
        deadline = time.monotonic() + _REPORT_PATIENCE_S
        while not (report := read_json(meeting.report)):
            watch()
            if time.monotonic() > deadline:
                raise ClusterError(f"{hello['host']} began, but sent no report within {_REPORT_PATIENCE_S:.0f} s")
            time.sleep(POLL_S)
    return Answer(report, began_s, node_lock, clock_s)


class _QueueWatch:
    """Says, by raising ClusterError, that the job found no node in time, or ended without a report."""

    def __init__(self, name: str, job_id: str, wait_s: float, folder: Path) -> None:
        self._name, self._job_id, self._wait_s, self._folder = name, job_id, wait_s, folder
        self._start = self._asked = time.monotonic()
        self._over_since: float | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._asked < _QUEUE_POLL_S:
            return
        self._asked = now
        job = next((job for job in slurm.queued([self._name]) if job.job_id == self._job_id), None)
        phase = slurm.phase(job.state) if job else "over"
        if job and phase == "waiting" and now - self._start > self._wait_s:
            raise NoNodeError(f"no node was free within {self._wait_s:.0f} s (the job waits for {job.reason})")
        if phase == "over":
            # Its last files may take a while to be seen here.
            self._over_since = self._over_since or now
            if now - self._over_since > _FILES_PATIENCE_S:
                state = job.state if job else "is gone"
                raise ClusterError(f"job {self._job_id} {state} without a report: {_last_words(self._folder)}")


def _last_words(folder: Path) -> str:
    lines = [
        line.strip()
        for path in sorted(folder.glob("*err"))
        for line in path.read_text(errors="replace").splitlines()
        if line.strip()
    ]
    return lines[-1][:300] if lines else "it left no word"
