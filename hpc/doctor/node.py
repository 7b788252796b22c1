"""A task sent to a node (or started here) to look around, and what its report means for Relay.

The asking side of `node_report.py`.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc import slurm
from hpc.doctor.findings import Line
from hpc.doctor.node_report import POLL_S, Handshake, try_lock
from hpc.slurm_command import run_slurm
from hpc.submission.plan import make_plan, task_command, task_environment, worker_python
from hpc.submission.profile import Profile
from src import hints
from src.errors import ClusterError
from src.files import read_json, replace_file
from src.log import log
from src.runs.code_snapshot import keep_code

_TIME_MIN = 4
_REPORT_PATIENCE_S = 180.0
_QUEUE_POLL_S = 2.0
_FILES_PATIENCE_S = 20.0
_SLOW_IMPORT_S = 60
_SLOW_FILES_S = 10
# Causes are told by comparing the times of nodes and controller, which may differ by so much.
_CLOCKS_S = 30
_LEAST_TMP_GIB = 1.0
_ELSEWHERE = "set paths.runs_dir to a folder on another file system"


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

    Raises ClusterError if it is refused or does not come to its end, NoNodeError if no node was free in time.
    No job is left behind.
    """
    name = f"relay-{folder.name.lstrip('.')}"
    short = profile.model_copy(update={"time_min": _TIME_MIN})
    plan = make_plan(short, gres, name, [[folder]], folder, keep_code(folder / "code"))
    script = folder / "job.sh"
    script.write_text(plan.sbatch_text.replace(task_command(folder), _command(folder)))
    job_id = run_slurm(["sbatch", "--parsable", str(script)]).strip().partition(";")[0]
    log.info(f"job {job_id} looks around on a node; it is given {wait_s:.0f} s to find one")
    try:
        return _meet(Handshake(folder), _QueueWatch(name, job_id, wait_s, folder))
    finally:
        slurm.cancel([job_id])


def ask_here(folder: Path, profile: Profile) -> Answer:
    """The same as a process of this machine. Raises ClusterError if it does not come to its end."""
    lines = [*task_environment(profile, None, keep_code(folder / "code")), *profile.setup, f"exec {_command(folder)}"]
    with (folder / "err").open("w") as err:
        process = subprocess.Popen(["bash", "-c", "\n".join(lines)], stdout=subprocess.DEVNULL, stderr=err)

    def watch() -> None:
        if process.poll() is not None and not Handshake(folder).report.is_file():
            raise ClusterError(f"it ended with exit code {process.returncode}: {_last_words(folder)}")

    try:
        return _meet(Handshake(folder), watch)
    finally:
        process.kill()
        process.wait()


@contextmanager
def meeting_place(folder: Path) -> Iterator[Handshake]:
    """The files of a meeting, with the lock held that the other side is to see."""
    meeting = Handshake(folder)
    replace_file(meeting.ack, "{}")
    with meeting.asker_lock.open("w") as file:
        try_lock(file)
        yield meeting


def _command(folder: Path) -> str:
    return f"{worker_python()} -u -m hpc.doctor.node_report {shlex.quote(str(folder))}"


def _meet(meeting: Handshake, watch: Callable[[], None]) -> Answer:
    """Wait for `ready`, answer it, wait for the report; `watch` raises ClusterError if there is none to come."""
    start = time.monotonic()
    with meeting_place(meeting.folder):
        while not (hello := read_json(meeting.ready)):
            watch()
            time.sleep(POLL_S)
        clock_s = time.time() - float(hello["time"])
        began_s = time.monotonic() - start
        with meeting.node_lock.open("r+") as file:
            node_lock = try_lock(file)
        replace_file(meeting.ack, json.dumps({"seen": True}))
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
        job = next((job for job in slurm.squeue([self._name]) if job.job_id == self._job_id), None)
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


def node_lines(answer: Answer, python: str) -> list[Line]:
    """All lines about a node; `python` is the version on this side."""
    report = answer.report
    return [
        Line("ok", "node", f"{report['host']}: a task began after {answer.began_s:.0f} s"),
        _python_line(str(report["python"]), python),
        _locks_line(report["files"], answer.node_lock),
        *_files_lines(report["files"], answer.clock_s),
        *task_lines(report),
    ]


def task_lines(report: Mapping[str, Any]) -> list[Line]:
    """What a task finds also where there is but one machine: torch, its slice, the network and room."""
    lines = _torch_lines(report["torch"], report["slice"])
    return [*lines, _network_line(report["network"]), _space_line(report["space"])]


def _python_line(there: str, here: str) -> Line:
    if there == here:
        return Line("ok", "node: python", f"{there}, as here")
    advice = "make both the same (setup: [module load ...] in the profile, or a .venv on a shared file system)"
    return Line("warning", "node: python", f"{there}, but {here} here", advice)


def _torch_lines(torch: Mapping[str, Any], found: Mapping[str, str]) -> list[Line]:
    if "error" in torch:
        setup = hints.make("setup")
        advice = f"{setup} again, with the .venv where the nodes see it (TORCH_BACKEND=auto on a node for its driver)"
        return [Line("problem", "task: torch", f"the import fails: {torch['error']}", advice)]
    cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "no CUDA"
    imported = f"{torch['version']} ({cuda}), imported in {torch['import_s']:.0f} s"
    slow = torch["import_s"] > _SLOW_IMPORT_S
    advice = "every task pays this: put the .venv on a faster file system, or raise cells_per_job of the profile"
    lines = [Line("warning" if slow else "ok", "task: torch", imported, advice if slow else "")]
    if "error" in found:
        return [*lines, Line("problem", "task: device", found["error"])]
    return [*lines, Line("ok", "task: device", found["found"])]


def _locks_line(files: Mapping[str, Any], node_lock: str) -> Line:
    if files["asker_lock"] == files["own_lock"] == "taken" or node_lock == "taken":
        finding = "a lock that is held here does not hold on the node" if files["asker_lock"] == "taken" else ""
        finding = finding or "a lock that is held on the node does not hold here"
        advice = f"two tasks could execute one run: ask the site for mounts with flock, or {_ELSEWHERE}"
        return Line("problem", "node: locks", finding, advice)
    told = (files["asker_lock"], files["own_lock"], node_lock)
    if told != ("refused", "taken", "refused"):
        return Line("problem", "node: locks", f"flock across machines says {', '.join(told)}", _ELSEWHERE)
    return Line("ok", "node: locks", "a lock that is held here is refused there, and the other way round")


def _files_lines(files: Mapping[str, Any], clock_s: float) -> list[Line]:
    seconds = files["round_trip_s"]
    if seconds is None:
        finding = "a file that was replaced here is not seen there within a minute"
        return [Line("problem", "node: files", finding, f"a task would not see what another one saved: {_ELSEWHERE}")]
    finding = f"a file replaced there is seen here, and the answer there, after {seconds:.1f} s"
    slow = seconds > _SLOW_FILES_S
    advice = "a task that follows another at once may not see its last state: ask the site about attribute caching"
    lines = [Line("warning" if slow else "ok", "node: files", finding, advice if slow else "")]
    # What is seen later than the whole exchange took, or before it was written, is the clocks' difference.
    apart_s = max(-clock_s, clock_s - seconds, 0)
    if apart_s > _CLOCKS_S:
        advice = "ask the site to set its clocks (NTP); causes of interruptions are told by comparing times"
        return [*lines, Line("warning", "node: clock", f"{apart_s:.0f} s from the clock here", advice)]
    return lines


def _network_line(network: Mapping[str, str]) -> Line:
    if "error" in network:
        finding = f"{network['host']} cannot be reached ({network['error']}); not needed, images are fetched here"
        return Line("ok", "task: network", finding)
    return Line("ok", "task: network", f"{network['host']} can be reached; not needed, images are fetched here")


def _space_line(space: Mapping[str, Any]) -> Line:
    advice = "set TMPDIR to a folder with room (setup: [export TMPDIR=...] in the profile)"
    if "error" in space:
        return Line("problem", "task: room", f"{space['tmp']}: {space['error']}", advice)
    home = "" if space["home_gib"] is None else f", {space['home_gib']:,.0f} GiB in the home folder"
    finding = f"{space['tmp_gib']:,.1f} GiB free in {space['tmp']}{home}"
    if space["tmp_gib"] < _LEAST_TMP_GIB:
        return Line("warning", "task: room", finding, advice)
    return Line("ok", "task: room", finding)
