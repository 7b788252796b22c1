"""Turns the report of a node into lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc.doctor.findings import Line
from hpc.doctor.handshake import ProbeResult
from relay import hints

_SLOW_IMPORT_S = 60
_SLOW_FILES_S = 10
# hpc/recovery/diagnosis.py compares times of nodes and controller, and tolerates the same difference.
_CLOCKS_S = 30
_LEAST_TMP_GIB = 1.0
_ELSEWHERE = "set paths.runs_dir to a folder on another file system"


def node_lines(result: ProbeResult, python: str) -> list[Line]:
    """All lines about a node. `python` is the Python version of the login node."""
    report = result.report
    return [
        Line("ok", "node", f"{report['host']}: a task began after {result.began_s:.0f} s"),
        _python_line(str(report["python"]), python),
        _locks_line(report["files"], result.node_lock),
        *_files_lines(report["files"], result.clock_s),
        *task_lines(report),
    ]


def task_lines(report: Mapping[str, Any]) -> list[Line]:
    """The lines that also make sense on a single machine: torch, the device, the network and free space."""
    lines = _torch_lines(report["torch"], report["slice"])
    return [*lines, _network_line(report["network"]), _space_line(report["space"])]


def _python_line(there: str, here: str) -> Line:
    if there == here:
        return Line("ok", "node: python", f"{there}, the same as here")
    advice = "use one version (setup: [module load ...] in the profile, or a .venv on a shared file system)"
    return Line("warning", "node: python", f"{there}, but {here} here", advice)


def _torch_lines(torch: Mapping[str, Any], found: Mapping[str, str]) -> list[Line]:
    if "error" in torch:
        setup = hints.make("setup")
        advice = f"run {setup} with .venv where the nodes see it (TORCH_BACKEND=auto on a node fits its driver)"
        return [Line("problem", "task: torch", f"the import fails: {torch['error']}", advice)]
    cuda = f"CUDA {torch['cuda']}" if torch["cuda"] else "no CUDA"
    imported = f"{torch['version']} ({cuda}), imported in {torch['import_s']:.0f} s"
    slow = torch["import_s"] > _SLOW_IMPORT_S
    advice = "every task waits this long: put the .venv on a faster file system, or raise cells_per_job of the profile"
    lines = [Line("warning" if slow else "ok", "task: torch", imported, advice if slow else "")]
    if "error" in found:
        return [*lines, Line("problem", "task: device", found["error"])]
    return [*lines, Line("ok", "task: device", found["found"])]


def _locks_line(files: Mapping[str, Any], node_lock: str) -> Line:
    if files["asker_lock"] == files["own_lock"] == "taken" or node_lock == "taken":
        finding = "the node gets a lock that is held here" if files["asker_lock"] == "taken" else ""
        finding = finding or "a lock that the node holds can be taken here"
        advice = f"two tasks could execute the same run: ask the site for mounts with flock, or {_ELSEWHERE}"
        return Line("problem", "node: locks", finding, advice)
    results = (files["asker_lock"], files["own_lock"], node_lock)
    if results != ("refused", "taken", "refused"):
        return Line("problem", "node: locks", f"flock across machines gives {', '.join(results)}", _ELSEWHERE)
    return Line("ok", "node: locks", "a lock that is held here is refused there, and vice versa")


def _files_lines(files: Mapping[str, Any], clock_s: float) -> list[Line]:
    seconds = files["round_trip_s"]
    if seconds is None:
        finding = "the node does not see a file that was replaced here within a minute"
        return [Line("problem", "node: files", finding, f"a task would not see what another task saved: {_ELSEWHERE}")]
    finding = f"a file replaced on the node is seen here, and the reply there, after {seconds:.1f} s"
    slow = seconds > _SLOW_FILES_S
    advice = "a task that follows another at once may miss its last state: ask the site about NFS attribute caching"
    lines = [Line("warning" if slow else "ok", "node: files", finding, advice if slow else "")]
    # `clock_s` includes the delay until `ready` was seen, at most the whole exchange. What is left, or a file from the
    # future, is the difference of the clocks.
    apart_s = max(-clock_s, clock_s - seconds, 0)
    if apart_s > _CLOCKS_S:
        advice = "ask the site to set its clocks (NTP): Relay finds the cause of an interruption by comparing times"
        return [*lines, Line("warning", "node: clock", f"{apart_s:.0f} s from the clock here", advice)]
    return lines


def _network_line(network: Mapping[str, str]) -> Line:
    reached = f"cannot be reached ({network['error']})" if "error" in network else "can be reached"
    return Line("ok", "task: network", f"{network['host']} {reached}; tasks do not need it, images are downloaded here")


def _space_line(space: Mapping[str, Any]) -> Line:
    advice = "set TMPDIR to a folder with more space (setup: [export TMPDIR=...] in the profile)"
    if "error" in space:
        return Line("problem", "task: room", f"{space['tmp']}: {space['error']}", advice)
    home = "" if space["home_gib"] is None else f", {space['home_gib']:,.0f} GiB in the home folder"
    finding = f"{space['tmp_gib']:,.1f} GiB free in {space['tmp']}{home}"
    if space["tmp_gib"] < _LEAST_TMP_GIB:
        return Line("warning", "task: room", finding, advice)
    return Line("ok", "task: room", finding)
