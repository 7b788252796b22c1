"""Sweeps on disk: created atomically, found again by the content of the request.

The same request again finds its sweep and continues it. Only `fresh` creates another one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from relay import hints
from relay.config import yaml_file
from relay.config.sections import Paths, Select
from relay.errors import DataError, RelayError, RunError
from relay.files import append_lines, remove_tree, replace_file, sync_directory
from relay.log import warn_once
from relay.runs.cells import Cell
from relay.runs.code_snapshot import keep_code
from relay.runs.numbering import next_number
from relay.runs.planning_lock import folder_lock, unwritable
from relay.runs.project_snapshot import ProjectFiles, keep_project
from relay.runs.provenance import code_version
from relay.runs.rundir import RunDir, SweepDir
from relay.text import counted

_MAKING = ".making-"
# More files than this are made durable by one sync(2) of all file systems, which is faster than one fsync each.
_SYNCED_ONE_BY_ONE = 200


def _no_inputs(look_closer: bool) -> Mapping[str, str]:
    return {}


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Request:
    """The runs that a command requests: the name of their work, and a cell for each run.

    `config`: the configuration that they came from, as plain values, which sweep.yaml keeps. `extra` distinguishes
    requests whose cells are equal. `origin`: the sweep and run that the cells were derived from, and its result.

    `select`: the metric that ranks the runs. `is_grid`: whether the cells are the product of their axes. `project`: the
    user's files that are frozen with the sweep, of runs that execute them.

    `axis_names`: what tables call the key paths of overrides that they do not call by the path itself.

    `inputs`: equal for requests on the same data; a later one goes to the same profile by default. `inputs_name`:
    what messages call it. `prepare`: bring the data of all cells here, because compute nodes often have no network;
    returns a digest of it for each cell by name. With true, it looks at the content of files that seem unchanged.
    `data`: what `prepare` has returned. `to_prepare`: what it would make that takes much room, for the plan; "" if
    nothing.

    `why_other`: of a finished run with the key and data of one of the sweep's, why it is another run all the same; ""
    if it is the same. None: the versions of the packages that compute decide.

    `check`: raise RelayError if the runs could only crash; it may take seconds. `opened`: called with the sweep before
    anything is executed.
    """

    kind: str
    tag: str
    cells: Sequence[Cell]
    paths: Paths
    config: Mapping[str, Any]
    select: Select
    is_grid: bool = False
    project: ProjectFiles | None = None
    extra: str = ""
    origin: Mapping[str, Any] | None = None
    axis_names: Mapping[str, str] = field(default_factory=dict)
    inputs: str = ""
    inputs_name: str = "its data"
    prepare: Callable[[bool], Mapping[str, str]] = _no_inputs
    data: Mapping[str, str] = field(default_factory=dict)
    to_prepare: Callable[[], str] = lambda: ""
    why_other: Callable[[RunDir, SweepDir], str] | None = None
    check: Callable[[], None] = _nothing
    opened: Callable[[SweepDir], None] = _nothing

    @property
    def key(self) -> str:
        """16 hex digits, equal for equal requests."""
        cells = [f"{cell.name} {cell.key}" for cell in self.cells]
        text = "\n".join([self.kind, self.tag, self.extra, *cells])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def runs_dir(self) -> Path:
        """The folder of its sweep."""
        return self.paths.runs

    def new_name(self) -> str:
        """The name of a sweep that is created for it now: its tag and the time in UTC."""
        return f"{self.tag}_{datetime.now(UTC):%Y%m%d-%H%M%S}"


def open_sweep(request: Request, *, fresh: bool = False, code_root: Path | None = None) -> tuple[SweepDir, bool]:
    """The newest sweep of the same request, or a new one; and whether it is new.

    A new one gets a snapshot of the code below `code_root`; by default, that of this process. Raises RunError if the
    runs directory cannot be written, DataError if the data has changed since the sweep was planned.
    """
    with folder_lock(request.runs_dir):
        # Drafts of planners that were killed: while this process holds the lock, no other one plans.
        for draft in request.runs_dir.glob(f"{_MAKING}*"):
            remove_tree(draft)
        existing = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
        if existing:
            check_same_inputs(existing, request)
            return existing, False
        return _make_sweep(request, code_root), True


def check_same_inputs(sweep: SweepDir, request: Request) -> None:
    """Raise DataError if a cell of the sweep, done or not, was planned on other data than the request has now."""
    planned = {cell.name: cell.data for cell in sweep.cells()}
    pairs = [(planned[name], now) for name, now in request.data.items()]
    changed = [pair for pair in pairs if None not in pair and pair[0] != pair[1]]
    if changed:
        raise DataError(
            f"{sweep.path}: {len(changed)} of {counted(len(planned), 'run')} planned on other content of "
            f"{request.inputs_name} (digest {changed[0][0]}, now {changed[0][1]}); restore it, or start over with what "
            f"is there: {hints.again('--fresh')}"
        )


def sweeps(runs_dir: Path) -> list[SweepDir]:
    """The sweeps below `runs_dir`, oldest first.

    Other folders are skipped. A damaged sweep, or another program's sweep.yaml, is skipped with a warning.
    """
    if not runs_dir.is_dir():
        return []
    folders = [SweepDir(path) for path in runs_dir.iterdir() if not path.name.startswith(".")]
    # Path.is_file() raises PermissionError in another user's private folder; os.path.isfile is False.
    readable = _readable([sweep for sweep in folders if os.path.isfile(sweep.meta_file)], SweepDir.meta)  # noqa: PTH113
    # By name as well, for sweeps that were copied here from elsewhere.
    return sorted(readable, key=lambda sweep: (sweep.meta()["number"], sweep.name))


def with_whole_manifests(candidates: Iterable[SweepDir]) -> Iterator[SweepDir]:
    """Those whose cells can be read. The others are skipped with a warning, because the user did not name them."""
    return _readable(candidates, SweepDir.cells)


def _readable(candidates: Iterable[SweepDir], read: Callable[[SweepDir], object]) -> Iterator[SweepDir]:
    for sweep in candidates:
        try:
            read(sweep)
        except (RelayError, OSError) as error:
            # Other programs write a sweep.yaml, too (Weights & Biases does), but no cells.jsonl beside it.
            ours = os.path.exists(sweep.cells_file)  # noqa: PTH110
            reason = " ".join(str(error).split()) if ours else f"{sweep.path}: its sweep.yaml is another program's"
            warn_once(f"skipped: {reason}")
        else:
            yield sweep


def find_sweep(runs_dir: Path, kind: str, key: str | None = None) -> SweepDir | None:
    """The newest sweep of this kind, and with this request key if one is given; None if there is none."""
    for sweep in reversed(sweeps(runs_dir)):
        meta = sweep.meta()
        if meta["kind"] == kind and key in (None, meta["key"]):
            return sweep
    return None


def describe_progress(sweep: SweepDir, *, new: bool) -> str:
    """`new, 3 runs`; `continued, 0 of 2 runs are done`. A new sweep has finished runs if it reuses those of another."""
    runs = sweep.runs()
    done = sum(run.is_done() for run in runs)
    verb = "is" if 1 in (done, len(runs)) else "are"
    progress = f"{done} of {counted(len(runs), 'run')} {verb} done" if done or not new else counted(len(runs), "run")
    return f"{'new' if new else 'continued'}, {progress}"


def newest_on_same_inputs(runs_dir: Path, inputs: str) -> SweepDir | None:
    """The newest sweep that was submitted under a profile and has these `Request.inputs`; None if there is none."""
    for sweep in reversed(sweeps(runs_dir)):
        meta = sweep.meta()
        if meta["call"].get("cluster") and meta["inputs"] == inputs:
            return sweep
    return None


def _make_sweep(request: Request, code_root: Path | None) -> SweepDir:
    """Create a sweep with the directories of all its runs in a hidden folder, and rename that to its final name.

    A planner that is killed leaves either the complete sweep or nothing. Raises RunError if the runs directory cannot
    be written.
    """
    runs_dir = request.runs_dir
    try:
        building = Path(tempfile.mkdtemp(dir=runs_dir, prefix=_MAKING))
    except OSError as error:
        raise unwritable(runs_dir, error) from None
    try:
        # mkdtemp(3) creates a folder that only its owner can read.
        building.chmod(0o755)
        _write_sweep(SweepDir(building), request, code_root)
        path = _rename_to_free(building, runs_dir / request.new_name())
        sync_directory(runs_dir)
        return SweepDir(path)
    except BaseException as error:
        remove_tree(building)
        if isinstance(error, OSError) and not isinstance(error, RunError):
            raise unwritable(runs_dir, error) from None
        raise


def _write_sweep(draft: SweepDir, request: Request, code_root: Path | None) -> None:
    for cell in request.cells:
        run = draft.run(cell.name)
        run.path.mkdir()
        # Without fsync here; _make_durable does it for all files at the end.
        run.config_file.write_text(cell.config, encoding="utf-8")
    lines = "".join(json.dumps({"name": cell.name, "config": cell.config}) + "\n" for cell in request.cells)
    # Level 1: the texts of a grid differ in a few words, so more effort gains little.
    replace_file(draft.configs_file, gzip.compress(lines.encode(), compresslevel=1, mtime=0))
    append_lines(draft.cells_file, [_manifest_row(request, cell) for cell in request.cells])
    snapshot = keep_code(draft.code, code_root)
    meta = {
        "kind": request.kind,
        "tag": request.tag,
        "key": request.key,
        "number": next_number(request.runs_dir),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "cells": len(request.cells),
        "code": code_version(snapshot),
        "snapshot": snapshot.name,
        **({"project": keep_project(draft.project, request.project).name} if request.project else {}),
        **({"origin": dict(request.origin)} if request.origin else {}),
        "call": hints.to_keep(request.kind),
        "inputs": request.inputs,
        "last_key": re.findall(r"(?m)^(\w+):", request.cells[0].config)[-1],
        "axis_names": dict(request.axis_names),
        "select": {"column": request.select.column, "direction": request.select.direction},
        "is_grid": request.is_grid,
        "config": dict(request.config),
    }
    replace_file(draft.meta_file, yaml_file.dump_yaml(meta))
    _make_durable([draft.run(cell.name).config_file for cell in request.cells])


def _make_durable(files: Sequence[Path]) -> None:
    """Flush the files and their folders to disk, before the rename that publishes them.

    After a power cut, an empty config.yaml would be read as the default experiment.
    """
    if len(files) > _SYNCED_ONE_BY_ONE:
        os.sync()
        return
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_directory(path.parent)


def _manifest_row(request: Request, cell: Cell) -> dict[str, Any]:
    row = {"index": cell.index, "name": cell.name, "key": cell.key, "overrides": dict(cell.overrides)}
    row |= {"data": request.data[cell.name]} if cell.name in request.data else {}
    return {**row, "cost_key": cell.cost_key, "units": cell.units}


def _rename_to_free(building: Path, wanted: Path) -> Path:
    # rename(2) onto a non-empty directory fails, so two sweeps planned in the same second cannot share one.
    for suffix in ["", *(f"-{number}" for number in range(2, 1000))]:
        target = wanted.with_name(wanted.name + suffix)
        try:
            building.rename(target)
        except OSError:
            if not target.exists():
                raise
            continue
        return target
    raise RunError(f"{wanted}: 999 sweeps with this name exist already; remove some of them")
