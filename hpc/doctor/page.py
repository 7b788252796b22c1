"""Collects the lines about SLURM, the file system and a node, and prints them as one page."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from hpc.doctor import filesystem
from hpc.doctor.findings import Line, print_page
from hpc.doctor.node_checks import node_lines, task_lines
from hpc.doctor.probe import NoNodeError, probe_here, probe_node
from hpc.doctor.site_query import site_lines
from hpc.recovery.diagnosis import PROGRAM_MARGIN_S
from hpc.submission.forecast import forecast_of
from hpc.submission.placement import place
from hpc.submission.profile import Profile
from relay import hints
from relay.errors import ClusterError
from relay.runs.sweeps import Request

_NODE_WAIT_S = 60.0


def show_doctor(request: Request, cluster: str | None, *, node: bool = True) -> int:
    """Print the page for a request. Returns the exit code: 1 if a problem was found, else 0.

    `node`: submit a short task that probes a node. Raises ConfigError if the profile is not valid.
    """
    placement = place(request.runs_dir, cluster, None, request.inputs)
    profile = placement.profile
    tasks = -(-len(request.cells) // profile.cells_per_job)
    save_s = forecast_of(request, request.cells, profile).save_s
    if request.project:
        # What its supervisor keeps for itself.
        save_s = (save_s or 0.0) + PROGRAM_MARGIN_S
    lines = examine(request.runs_dir, profile, tasks, node=node, save_s=save_s)
    print_page(f"{placement}: what Relay finds at this site", lines)
    return int(any(line.level == "problem" for line in lines))


def examine(
    runs_dir: Path,
    profile: Profile,
    tasks: int,
    *,
    node: bool = True,
    save_s: float | None = None,
    wait_s: float = _NODE_WAIT_S,
) -> list[Line]:
    """All lines of the page for a submission of `tasks` tasks.

    `save_s`: the measured time that a run takes to stop and save, in seconds. `wait_s`: how long to wait for a free
    node.
    """
    gres, submittable = None, True
    if profile.executor == "slurm":
        lines, gres, submittable = site_lines(profile, tasks, save_s)
    else:
        lines = [Line("ok", "SLURM", "not checked: the profile runs tasks on this machine (executor: local)")]
    lines.append(_python_line())
    try:
        with _scratch_folder(runs_dir.absolute()) as folder:
            lines += folder_lines(folder)
            if node and submittable:
                lines += _node_lines(folder, profile, gres, wait_s)
    except OSError as error:
        finding = f"{error.filename or runs_dir}: {error.strerror}"
        lines.append(Line("problem", "runs", finding, "set paths.runs_dir to a folder that you can write to"))
        return lines
    if not node or not submittable:
        why = (
            "not checked" if submittable else "not checked: no task can be submitted until the problems above are fixed"
        )
        lines.append(Line("ok" if submittable else "warning", "node", why))
    return lines


def folder_lines(folder: Path) -> list[Line]:
    """Tests of the file system that holds the runs, done in `folder`, a folder inside the runs directory."""
    mounts = Path("/proc/mounts")
    text = mounts.read_text() if mounts.is_file() else ""
    return [
        filesystem.check_file_system(folder.parent, filesystem.find_mount(text, folder.resolve())),
        filesystem.check_rename(folder),
        filesystem.check_lock(folder),
        filesystem.check_space(folder),
    ]


@contextmanager
def _scratch_folder(runs_dir: Path) -> Iterator[Path]:
    """A temporary folder in the runs directory. Raises OSError if it cannot be created."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps the rest of Relay from listing the folder as a sweep.
    folder = Path(tempfile.mkdtemp(dir=runs_dir, prefix=".doctor-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _node_lines(folder: Path, profile: Profile, gres: str | None, wait_s: float) -> list[Line]:
    try:
        if profile.executor == "local":
            return task_lines(probe_here(folder, profile).report)
        return node_lines(probe_node(folder, profile, gres, wait_s), platform.python_version())
    except NoNodeError as error:
        return [Line("warning", "node", str(error), "try again later, or skip this check: --no-node")]
    except ClusterError as error:
        advice = f"the nodes must see {folder.parent} and {sys.prefix}, and the profile's setup lines must work there"
        return [Line("problem", "node", str(error), advice)]


def _python_line() -> Line:
    here = f"{platform.python_version()}, {sys.prefix}"
    try:
        return Line("ok", "python", f"{here}, torch {metadata.version('torch')}")
    except metadata.PackageNotFoundError:
        return Line("problem", "python", f"{here}, torch is not installed", hints.make("setup"))
