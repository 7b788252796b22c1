"""The table of another program's TensorBoard logs: one row for each directory that holds event files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src import hints
from src.config.schema import Select
from src.config.yaml_file import parse_yaml
from src.errors import RelayError, RunError
from src.results.event_files import PATTERN, Events, plain_number, read_events
from src.results.ranking import ranking_of
from src.results.table import Row, Table
from src.runs.hparams import axis_key
from src.text import shortlist

# add_hparams of torch.utils.tensorboard writes to a directory of its own, which is named after the time.
_SUB_RUN = re.compile(r"\d{9,}(\.\d+)?")
# lr=0.001 or weight_decay=1e-4, in a name whose parts are separated by any of "_,/ ".
_ASSIGNED = re.compile(r"(?:^|[_,/ ])([A-Za-z][A-Za-z0-9.]*(?:_[A-Za-z][A-Za-z0-9.]*)*)=([^_,/ ]+)")
# lr0.001, lr-0.001 or lr_0.001, in a name without "=".
_NUMBERED = re.compile(r"(?:^|[_,/ ])([A-Za-z]+)[_-]?(\d[\d.]*(?:e[+-]?\d+)?)(?=$|[_,/ ])")
_SYNONYMS = {"acc": "accuracy", "valid": "val", "validation": "val"}
_TAGS_SHOWN = 12


@dataclass
class _Run:
    scalars: dict[str, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)

    def add(self, events: Events) -> None:
        self.scalars |= events.scalars
        self.hparams |= events.hparams


@dataclass(frozen=True)
class ForeignLogs:
    """The table; `curves`: the steps and values of the selecting metric, by run; `notes`: what could not be read."""

    table: Table
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    notes: Sequence[str]


def read_foreign(directory: Path, select: Select) -> ForeignLogs:
    """Read all event files below `directory`.

    A row has `index`, `run` (the path below `directory`) and `state` (`logged`: logs do not say whether a run was
    finished), the hyperparameters that vary, a value of each tag, and `best_step`, where the selecting metric was best.
    The value is the one at that step if the tag was logged at the same steps, else the last one. Hyperparameters are
    those of the HParams summaries; for a run without, those in its name. Raises RunError if there are no event files,
    or no run has logged the selecting metric.
    """
    runs, notes = _read_runs(directory)
    if not runs:
        raise RunError(f"{directory}: no sweep and no TensorBoard event files (*tfevents*) in it or below")
    tags = sorted({tag for run in runs.values() for tag in run.scalars})
    names = {tag: _column(tag, select) for tag in tags}
    if select.column not in names.values():
        by_loss = ("--set", "metrics.select.name=loss", "--set", "metrics.select.direction=min")
        raise RunError(
            f"{directory}: no run has logged {select.column}, by which runs are chosen; tags: "
            f"{shortlist(tags, _TAGS_SHOWN)}; to choose by val/loss: "
            f"{hints.python('hpc.aggregate', str(directory), *by_loss)}"
        )
    axes = _axes([run.hparams for run in runs.values()])
    rows, curves = [], {}
    for index, (name, run) in enumerate(runs.items()):
        scalars = {names[tag]: series for tag, series in run.scalars.items()}
        hparams = {axis: run.hparams.get(axis) for axis in axes}
        measured = _measured(scalars, list(dict.fromkeys(names.values())), select)
        rows.append({"index": index, "run": name, "state": "logged", **hparams, **measured})
        curves[name] = scalars.get(select.column, ([], []))
    ranking = ranking_of(select.column, select.direction, (row[select.column] for row in rows))
    return ForeignLogs(Table(directory.resolve().name, rows, axes, ranking), curves, notes)


def _read_runs(directory: Path) -> tuple[dict[str, _Run], list[str]]:
    folders = {path.parent for path in directory.rglob(PATTERN) if path.is_file()}
    runs: dict[str, _Run] = {}
    notes: list[str] = []

    def owner_of(folder: Path) -> Path:
        joined = folder != directory and _SUB_RUN.fullmatch(folder.name) and folder.parent in folders
        return folder.parent if joined else folder

    # A run after its sub-runs: of one tag, add_hparams repeats a single value, which does not replace the curve.
    for folder in sorted(folders, key=lambda folder: (owner_of(folder) == folder, folder)):
        events = read_events([path for path in folder.glob(PATTERN) if path.is_file()])
        owner = owner_of(folder)
        name = str(owner.relative_to(directory)) if owner != directory else directory.resolve().name
        runs.setdefault(name, _Run()).add(events)
        notes += events.notes
    for name, run in runs.items():
        run.hparams = run.hparams or _hparams_in(name)
    return dict(sorted(runs.items())), notes


def _hparams_in(name: str) -> dict[str, Any]:
    """The hyperparameters in the name of a run."""
    found = _ASSIGNED.findall(name) or _NUMBERED.findall(name)
    return {key: _value(text) for key, text in found}


def _value(text: str) -> Any:
    try:
        value = parse_yaml(text, "")
    except RelayError:
        return text
    # YAML reads 1e-4, without a dot, as a text.
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value):
        value = float(value)
    if isinstance(value, float):
        return plain_number(value)
    return value if isinstance(value, int) else text


def _axes(hparams: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names whose values vary, in the order of the runs; without a number that counts the runs."""
    names = dict.fromkeys(name for each in hparams for name in each)
    values = {name: [each.get(name) for each in hparams] for name in names}
    return [
        name for name, own in values.items() if len({axis_key(value) for value in own}) > 1 and not _counts_runs(own)
    ]


def _counts_runs(values: Sequence[Any]) -> bool:
    return len(values) > 2 and {str(value) for value in values} in (
        {str(number) for number in range(start, start + len(values))} for start in (0, 1)
    )


def _column(tag: str, select: Select) -> str:
    """The column of a tag: that of Relay's tables for the selecting metric and the loss on val, else the tag."""
    words = [_SYNONYMS.get(word, word) for word in re.split(r"[/_. -]", tag.lower())]
    # Both val/acc and Accuracy/val are in use.
    usual = "/".join(["val", "_".join(word for word in words if word != "val")]) if "val" in words else tag
    return usual if usual in (select.column, "val/loss") else tag


def _measured(
    scalars: Mapping[str, tuple[Sequence[int], Sequence[float]]], columns: Sequence[str], select: Select
) -> Row:
    """The value of each column when the selecting metric was best; None if there is none."""
    steps, values = scalars.get(select.column, ([], []))
    finite = [number for number, value in enumerate(values) if math.isfinite(value)]
    best = max(finite, key=lambda number: select.score(values[number]), default=None)
    row: Row = dict.fromkeys(columns)
    for name, (own, found) in scalars.items():
        value = found[-1 if best is None or own != steps else best]
        # float32 on disk: 0.2973 is stored as 0.29730001091957.
        row[name] = float(f"{value:.7g}") if math.isfinite(value) else None
    return {**row, "best_step": None if best is None else steps[best]}
