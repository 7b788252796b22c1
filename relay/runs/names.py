"""Finds the sweep or run that a name on the command line means: an exact match, or the only name that contains it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from relay import hints
from relay.errors import RunError
from relay.log import log
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps, with_whole_manifests
from relay.text import shortlist

# How many names an error lists, and how many `print_names` prints.
_SHOWN = 8
_NAMES_SHOWN = 20
# After the tag in a sweep's name.
_TIME = r"_\d{8}-\d{6}(-\d+)?"
Named = TypeVar("Named")


def find_named(runs_dir: Path, name: str | None, *, newest: bool = False) -> tuple[SweepDir, RunDir | None]:
    """The sweep, or the sweep and the run, that `name` means; the newest sweep if `name` is None or empty.

    `name` is a sweep, a run, `sweep/run`, or the path of one. `newest`: of runs in several sweeps, it means that of the
    newest one, for commands that only show. Raises RunError if no name matches, or several do.
    """
    known = sweeps(runs_dir)
    if not known:
        start = hints.command("hpc.launch", "grid")
        raise RunError(f"{runs_dir}: there are no runs yet; to start a grid: {start}")
    if not name:
        return known[-1], None
    sweep_part, _, run_part = _without_folder(name, runs_dir).rpartition("/")
    if sweep_part:
        inside = [run for sweep in _fitting(sweep_part, known, _sweep_name) for run in sweep.runs()]
        return _only(name, runs_dir, known, [(run.sweep(), run) for run in _fitting(run_part, inside, _run_name)])
    matching = _fitting(run_part, known, _sweep_name)
    if matching:
        return _only(name, runs_dir, known, [(sweep, None) for sweep in matching])
    everywhere = [run for sweep in with_whole_manifests(known) for run in sweep.runs()]
    runs = _fitting(run_part, everywhere, _run_name)
    if newest and len({run.path.parent for run in runs}) > 1:
        others = list(dict.fromkeys(run.path.parent.name for run in runs))
        # `sweeps` has the newest one last, and so do its runs here.
        runs = [run for run in runs if run.path.parent.name == others[-1]]
        log.info(f"{name}: of the newest sweep that has it, {others[-1]}; also in {shortlist(others[-2::-1])}")
    return _only(name, runs_dir, known, [(run.sweep(), run) for run in runs])


def _without_folder(name: str, runs_dir: Path) -> str:
    """`sweep/run` for a path below `runs_dir`; other names without the final slash that a shell's completion adds."""
    path = Path(name)
    if "/" in name and path.exists() and path.resolve().is_relative_to(runs_dir.resolve()):
        return str(path.resolve().relative_to(runs_dir.resolve()))
    return name.strip("/")


def _fitting(part: str, things: Iterable[Named], name_of: Callable[[Named], str]) -> list[Named]:
    """Those whose name is `part`; else those whose name is `part` and a time; else those whose name contains it."""
    # An exact name wins, because a sweep's name is also contained in that of a second one of the same second (`…-2`).
    # `grid_2` means grid_2_20261127-195353, and not grid_20261127-195043, too.
    candidates = list(things)
    with_time = re.compile(re.escape(part) + _TIME)
    return (
        [thing for thing in candidates if name_of(thing) == part]
        or [thing for thing in candidates if with_time.fullmatch(name_of(thing))]
        or [thing for thing in candidates if part in name_of(thing)]
    )


def _sweep_name(sweep: SweepDir) -> str:
    return sweep.name


def _run_name(run: RunDir) -> str:
    return run.name


def _only(
    name: str, runs_dir: Path, known: Sequence[SweepDir], matches: Sequence[tuple[SweepDir, RunDir | None]]
) -> tuple[SweepDir, RunDir | None]:
    if len(matches) == 1:
        return matches[0]
    if not matches:
        newest = ", ".join(sweep.name for sweep in known[-_SHOWN:])
        raise RunError(f"{name!r}: no sweep and no run has that in its name in {runs_dir}; newest sweeps: {newest}")
    shown = shortlist([run.label if run else sweep.name for sweep, run in matches], _SHOWN)
    raise RunError(f"{name!r}: {len(matches)} have that in their name: {shown}; give one of them in full")


def print_names(runs: Sequence[RunDir]) -> None:
    """Print one line per run, at most _NAMES_SHOWN of them."""
    for run in runs[:_NAMES_SHOWN]:
        print(f"  {run.label}")
    if len(runs) > _NAMES_SHOWN:
        print(f"  and {len(runs) - _NAMES_SHOWN} more")
