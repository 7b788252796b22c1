"""Sweeps on disk: made at once, found again by what was asked.

Asking for the same runs again finds their sweep and goes on with it; only `fresh` makes another.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from src import yaml_file
from src.cells import Cell
from src.config import Config
from src.errors import RunError
from src.files import append_lines, replace_file
from src.provenance import code_version
from src.rundir import SweepDir
from src.shapes import shape_of, units_of


@dataclass(frozen=True)
class Request:
    """What is asked for: runs of one kind, a cell for each; `extra` is what tells requests apart beside the cells."""

    kind: str
    tag: str
    cells: Sequence[Cell]
    config: Config
    extra: str = ""

    @property
    def key(self) -> str:
        """16 hex digits, equal where the same is asked."""
        text = "\n".join([self.kind, self.tag, self.extra, *(f"{cell.name} {cell.key}" for cell in self.cells)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def runs_dir(self) -> Path:
        """Where its sweep goes."""
        return Path(self.config.paths.runs_dir)

    def name_at(self, created: datetime) -> str:
        """The name of a sweep that is made for it now."""
        return f"{self.tag}_{created:%Y%m%d-%H%M%S}"


def open_sweep(request: Request, *, fresh: bool = False) -> tuple[SweepDir, bool]:
    """The sweep of a request: the newest one that was asked for before, or a new one. True where it is new.

    Raises RunError where the runs directory cannot be written.
    """
    with planning(request.runs_dir):
        found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
        return (found, False) if found else (make_sweep(request, datetime.now()), True)


@contextlib.contextmanager
def planning(runs_dir: Path) -> Iterator[None]:
    """One planner at a time in this runs directory. Raises RunError where it cannot be written."""
    from filelock import FileLock

    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(runs_dir / ".planning.lock")
        lock.acquire()
    except OSError as error:
        raise _unwritable(runs_dir, error) from None
    try:
        yield
    finally:
        lock.release()


def _unwritable(runs_dir: Path, error: OSError) -> RunError:
    return RunError(f"{runs_dir}: cannot be written: {error.strerror}; set paths.runs_dir to a folder that can")


def with_absolute_paths(config: Config) -> dict[str, Any]:
    """The configuration as plain values, its paths absolute, so that it means the same in every folder and node."""
    content = config.to_dict()
    content["paths"] = {name: str(Path(value).absolute()) for name, value in content["paths"].items()}
    dataset = content["dataset"]
    dataset["root"] = str(Path(dataset["root"]).expanduser().absolute())
    folder = Path(dataset["name"]).expanduser()
    if dataset["source"] == "folder" or (dataset["source"] == "auto" and folder.is_dir()):
        dataset["name"] = str(folder.absolute())
        dataset["source"] = "folder"
    if content["evaluation"]["checkpoint"]:
        content["evaluation"]["checkpoint"] = str(Path(content["evaluation"]["checkpoint"]).expanduser().absolute())
    return content


def sweeps(runs_dir: Path) -> list[SweepDir]:
    """The sweeps below `runs_dir`, oldest first; folders that are none are passed over."""
    if not runs_dir.is_dir():
        return []
    found = [SweepDir(path) for path in runs_dir.iterdir() if not path.name.startswith(".")]
    dated = [(str(sweep.meta()["created"]), sweep.name, sweep) for sweep in found if sweep.meta_file.is_file()]
    return [sweep for _, _, sweep in sorted(dated, key=lambda item: item[:2])]


def find_sweep(runs_dir: Path, kind: str, key: str | None = None) -> SweepDir | None:
    """The newest sweep of this kind, and of this content where a key is given."""
    for sweep in reversed(sweeps(runs_dir)):
        meta = sweep.meta()
        if meta["kind"] == kind and key in (None, meta["key"]):
            return sweep
    return None


def make_sweep(request: Request, created: datetime) -> SweepDir:
    """Make the directories of a sweep and all its runs, at once: a planner that dies leaves none or all of them.

    Raises RunError where the runs directory cannot be written.
    """
    runs_dir = request.runs_dir
    try:
        building = Path(tempfile.mkdtemp(dir=runs_dir, prefix=".making-"))
    except OSError as error:
        raise _unwritable(runs_dir, error) from None
    try:
        building.chmod(0o755)
        for cell in request.cells:
            (building / cell.name / "checkpoints").mkdir(parents=True)
            text = yaml_file.dump_yaml(with_absolute_paths(cell.config))
            (building / cell.name / "config.yaml").write_text(text, encoding="utf-8")
        draft = SweepDir(building)
        rows = [_manifest_row(request.kind, cell) for cell in request.cells]
        append_lines(draft.cells_file, rows)
        meta: dict[str, Any] = {
            "kind": request.kind,
            "tag": request.tag,
            "key": request.key,
            "created": created.isoformat(),
        }
        meta |= {"cells": len(rows), "code": code_version(), "config": request.config.to_dict()}
        replace_file(draft.meta_file, yaml_file.dump_yaml(meta))
        return SweepDir(_rename_to_free(building, runs_dir / request.name_at(created)))
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _manifest_row(kind: str, cell: Cell) -> dict[str, Any]:
    named = {"index": cell.index, "name": cell.name, "key": cell.key, "overrides": dict(cell.overrides)}
    return {**named, "shape": shape_of(kind, cell.config), "units": units_of(kind, cell.config)}


def _rename_to_free(building: Path, wanted: Path) -> Path:
    # Renaming onto an existing non-empty directory fails, so two planners of one second cannot share one.
    for suffix in ["", *(f"-{number}" for number in range(2, 1000))]:
        target = wanted.with_name(wanted.name + suffix)
        try:
            building.rename(target)
        except OSError:
            if not target.exists():
                raise
            continue
        return target
    raise RunError(f"{wanted}: a thousand sweeps of this name exist")
