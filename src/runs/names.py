"""Which sweep or run a name on the command line means: the exact one, else the only one that has it as a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from src import hints
from src.errors import RunError
from src.runs.rundir import RunDir, SweepDir
from src.runs.sweeps import sweeps, with_whole_manifests
from src.text import shortlist

_SHOWN = 8
Named = TypeVar("Named")


def find_named(runs_dir: Path, name: str | None) -> tuple[SweepDir, RunDir | None]:
    """The sweep, or the sweep and the run, that `name` means; the newest sweep where there is no name.

    `name` is a sweep, a run, `sweep/run`, or their path. Raises RunError if nothing has it or several have.
    """
    known = sweeps(runs_dir)
    if not known:
        start = hints.command("hpc.launch", "grid")
        raise RunError(f"{runs_dir}: there are no runs yet; to start some, for example: {start}")
    if not name:
        return known[-1], None
    sweep_part, _, run_part = _without_folder(name, runs_dir).rpartition("/")
    if sweep_part:
        inside = [run for sweep in _fitting(sweep_part, known, _sweep_name) for run in sweep.runs()]
        return _only(name, known, [(run.sweep(), run) for run in _fitting(run_part, inside, _run_name)])
    whole = _fitting(run_part, known, _sweep_name)
    if whole:
        return _only(name, known, [(sweep, None) for sweep in whole])
    everywhere = [run for sweep in with_whole_manifests(known) for run in sweep.runs()]
    return _only(name, known, [(run.sweep(), run) for run in _fitting(run_part, everywhere, _run_name)])


def _without_folder(name: str, runs_dir: Path) -> str:
    """`sweep/run` of a path below `runs_dir`; other names without the slash that completion leaves at their end."""
    path = Path(name)
    if "/" in name and path.exists() and path.resolve().is_relative_to(runs_dir.resolve()):
        return str(path.resolve().relative_to(runs_dir.resolve()))
    return name.strip("/")


def _fitting(part: str, things: Iterable[Named], name_of: Callable[[Named], str]) -> list[Named]:
    """Those whose name is `part`; where there is none, those that have it in their name."""
    there = list(things)
    return [thing for thing in there if name_of(thing) == part] or [thing for thing in there if part in name_of(thing)]


def _sweep_name(sweep: SweepDir) -> str:
    return sweep.name


def _run_name(run: RunDir) -> str:
    return run.name


def _only(
    name: str, known: Sequence[SweepDir], found: Sequence[tuple[SweepDir, RunDir | None]]
) -> tuple[SweepDir, RunDir | None]:
    if len(found) == 1:
        return found[0]
    if not found:
        newest = ", ".join(sweep.name for sweep in known[-_SHOWN:])
        raise RunError(f"{name!r}: no sweep and no run has that in its name; sweeps: {newest}")
    shown = shortlist([run.label if run else sweep.name for sweep, run in found], _SHOWN)
    raise RunError(f"{name!r}: {len(found)} have that in their name: {shown}; give one of them in full")


_NAMES_SHOWN = 20


def print_names(runs: Sequence[RunDir]) -> None:
    """A line for each run, so that whoever stops or retries runs sees which."""
    for run in runs[:_NAMES_SHOWN]:
        print(f"  {run.label}")
    if len(runs) > _NAMES_SHOWN:
        print(f"  and {len(runs) - _NAMES_SHOWN} more")
