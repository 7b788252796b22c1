"""Sweeps on disk: made at once, found again by what was asked.

Asking for the same runs again finds their sweep and continues it; only `fresh` makes another.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from src import hints
from src.config import yaml_file
from src.config.schema import Config
from src.errors import DataError, RelayError, RunError
from src.files import append_lines, replace_file, sync_directory
from src.log import warn_once
from src.runs.cells import Cell
from src.runs.code_snapshot import keep_code
from src.runs.config_texts import ConfigTexts
from src.runs.kinds import cost_key, kind_of
from src.runs.planning_lock import folder_lock, unwritable
from src.runs.provenance import code_version
from src.runs.rundir import SweepDir

_MAKING = ".making-"
# More files than this are made durable by one sync of everything, which takes less than one for each.
_SYNCED_ONE_BY_ONE = 200


@dataclass(frozen=True)
class Request:
    """What is asked for: runs of one kind, a cell for each; `extra` is what tells requests apart beside the cells.

    `data`, once the images are ready: the digest of those of each cell, by the cell's name.
    """

    kind: str
    tag: str
    cells: Sequence[Cell]
    config: Config
    extra: str = ""
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """16 hex digits, equal where the same is asked."""
        cells = [f"{cell.former_name or cell.name} {cell.key}" for cell in self.cells]
        text = "\n".join([self.kind, self.tag, self.extra, *cells])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def runs_dir(self) -> Path:
        """Where its sweep goes."""
        return Path(self.config.paths.runs_dir)

    def name_at(self, created: datetime) -> str:
        """The name of a sweep that is made for it now."""
        return f"{self.tag}_{created:%Y%m%d-%H%M%S}"


def open_sweep(request: Request, *, fresh: bool = False, code_root: Path | None = None) -> tuple[SweepDir, bool]:
    """The sweep of a request: the newest one that was asked for before, or a new one. True if it is new.

    A new one keeps the code below `code_root`, that of this process unless another is given. Raises RunError if the
    runs directory cannot be written, DataError if the one before had other images.
    """
    with folder_lock(request.runs_dir):
        for left in request.runs_dir.glob(f"{_MAKING}*"):
            shutil.rmtree(left, ignore_errors=True)  # of a planner that was killed; nobody else plans now
        found = None if fresh else find_sweep(request.runs_dir, request.kind, request.key)
        if found:
            check_same_images(found, request)
        return (found, False) if found else (make_sweep(request, datetime.now(), code_root), True)


def check_same_images(sweep: SweepDir, request: Request) -> None:
    """Raise DataError if a cell of the sweep was planned on other images than the request has now, done or not."""
    # By their order: the sweep may be of a version that named its cells in another way.
    now = [request.data.get(cell.name) for cell in request.cells]
    planned = [row.get("data") for row in sweep.cells()]
    changed = [pair for pair in zip(planned, now, strict=True) if None not in pair and pair[0] != pair[1]]
    if changed:
        raise DataError(
            f"{sweep.path}: {len(changed)} of {len(planned)} runs were planned on other images than those of "
            f"dataset.name {request.config.dataset.name} now (content {changed[0][0]}, now {changed[0][1]}): put "
            f"the images back as they were, or start over on these: {hints.again('--fresh')}"
        )


def sweeps(runs_dir: Path) -> list[SweepDir]:
    """The sweeps below `runs_dir`, oldest first; folders of others are skipped, also those that have a sweep.yaml,
    and damaged sweeps, both with a word.
    """
    if not runs_dir.is_dir():
        return []
    found = [SweepDir(path) for path in runs_dir.iterdir() if not path.name.startswith(".")]
    # Not is_file(), which raises in a folder that is closed to us.
    whole = _whole([sweep for sweep in found if os.path.isfile(sweep.meta_file)], SweepDir.meta)  # noqa: PTH113
    return sorted(whole, key=lambda sweep: (str(sweep.meta()["created"]), sweep.name))


def with_whole_manifests(made: Iterable[SweepDir]) -> Iterator[SweepDir]:
    """Those of a known kind whose cells can be read. For whoever looks through sweeps that nobody asked for by name."""
    return _whole(made, lambda sweep: (kind_of(sweep.kind, sweep.path), sweep.cells()))


def _whole(made: Iterable[SweepDir], read: Callable[[SweepDir], object]) -> Iterator[SweepDir]:
    for sweep in made:
        try:
            read(sweep)
        except (RelayError, OSError) as error:
            # Every sweep of ours has a manifest; Weights & Biases, for one, writes a sweep.yaml too.
            ours = os.path.exists(sweep.cells_file)  # noqa: PTH110
            reason = " ".join(str(error).split()) if ours else f"{sweep.path}: its sweep.yaml is another program's"
            warn_once(f"skipped: {reason}")
        else:
            yield sweep


def find_sweep(runs_dir: Path, kind: str, key: str | None = None) -> SweepDir | None:
    """The newest sweep of this kind, and of this content where a key is given."""
    for sweep in reversed(sweeps(runs_dir)):
        meta = sweep.meta()
        if meta["kind"] == kind and key in (None, meta["key"]):
            return sweep
    return None


def make_sweep(request: Request, created: datetime, code_root: Path | None = None) -> SweepDir:
    """Make the directories of a sweep and all its runs, at once: a planner that dies leaves none or all of them.

    Raises RunError if the runs directory cannot be written.
    """
    runs_dir = request.runs_dir
    try:
        building = Path(tempfile.mkdtemp(dir=runs_dir, prefix=_MAKING))
    except OSError as error:
        raise unwritable(runs_dir, error) from None
    try:
        building.chmod(0o755)
        draft, texts = SweepDir(building), ConfigTexts()
        for cell in request.cells:
            run = draft.run(cell.name)
            run.path.mkdir()
            run.config_file.write_text(texts.text(cell.config), encoding="utf-8")
        rows = [_manifest_row(request, cell, texts) for cell in request.cells]
        append_lines(draft.cells_file, rows)
        meta: dict[str, Any] = {
            "kind": request.kind,
            "tag": request.tag,
            "key": request.key,
            "created": created.isoformat(),
        }
        kept = keep_code(draft.code, code_root)
        meta |= {"cells": len(rows), "code": code_version(kept), "snapshot": kept.name}
        meta |= {"call": hints.to_keep(), "config": request.config.to_dict()}
        replace_file(draft.meta_file, yaml_file.dump_yaml(meta))
        _make_durable([draft.run(cell.name).config_file for cell in request.cells])
        path = _rename_to_free(building, runs_dir / request.name_at(created))
        sync_directory(runs_dir)
        return SweepDir(path)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, RunError):
            raise unwritable(runs_dir, error) from None
        raise


def _make_durable(files: Sequence[Path]) -> None:
    """Before the rename that makes them count: after a power cut, an empty config.yaml would be another experiment."""
    if len(files) > _SYNCED_ONE_BY_ONE:
        os.sync()
        return
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_directory(path.parent)


def _manifest_row(request: Request, cell: Cell, texts: ConfigTexts) -> dict[str, Any]:
    kind, name = request.kind, cell.name
    row = {"index": cell.index, "name": name, "key": texts.key(cell.config, kind), "overrides": dict(cell.overrides)}
    row |= {"data": request.data[name]} if name in request.data else {}
    return {**row, "shape": cost_key(cell.config, kind), "units": kind_of(kind).units(cell.config)}


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
