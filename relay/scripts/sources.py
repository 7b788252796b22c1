"""The metrics that a script writes for itself: JSON lines, CSV, TensorBoard, or the state of Hugging Face's Trainer.

Files are looked for in one folder of the run. A file may hold rows of several attempts; `Marks` tells which are new.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.errors import RunError
from relay.program.values import NO_METRICS, read_number
from relay.results.foreign.event_files import PATTERN, read_events

# In this order: the first one that a row has counts. Without any, a row's number is its step.
STEPS = ("step", "global_step", "_step", "trainer/global_step", "iteration", "iter", "epoch")
_EPOCH = "epoch"
_NO_VALUES = (*STEPS[:4], "time", "timestamp", "_timestamp")
_MOST_STEPS = 10**15
HF_STATE = "trainer_state.json"
LIGHTNING = "metrics.csv"


@dataclass
class Values:
    """What was logged: step -> name -> number. `total`: how many steps the run has, None if no source tells.
    `is_history`: whether an attempt that resumes repeats the rows of those before it.
    """

    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    total: int | None = None
    is_history: bool = False

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to the row of a step, in place of those that it has."""
        if 0 <= step <= _MOST_STEPS:
            self.rows.setdefault(step, {}).update(values)


# Path -> how many bytes a file had, and their checksum.
Marks = Mapping[str, Sequence[int]]
Read = Callable[[Sequence[Path], Marks, Values, bool], None]


def files_below(folder: Path) -> list[Path]:
    """The files of the run's own below `folder`, or the file itself; those that are linked belong to the project."""
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        found += [path for name in sorted(names) if not (path := Path(parent, name)).is_symlink()]
    return found


def marks_of(files: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """How far each file that holds metrics is filled now: what it has beyond that is new."""
    marks = {}
    for file in files:
        if any(kind.takes(file) for kind in _KINDS.values()):
            with contextlib.suppress(OSError):
                # Those of TensorBoard, which may be large, only grow while the process that began them lives.
                content = b"" if file.match(PATTERN) else file.read_bytes()
                marks[str(file)] = (len(content), zlib.crc32(content))
    return marks


def _new_from(file: Path, content: bytes, marks: Marks) -> int:
    """Where the content begins that the file did not have when it was marked: 0 if it is another file now."""
    size, checksum = marks.get(str(file), (0, 0))
    return size if zlib.crc32(content[:size]) == checksum and len(content) >= size else 0


def read_sources(kind: str, folder: Path, marks: Marks) -> Values:
    """What the files of a kind in `folder` hold beyond their marks. `auto`: of the first kind that has any rows."""
    files = files_below(folder)
    for name in _KINDS if kind == "auto" else (kind,):
        values = Values()
        chosen = [file for file in files if _KINDS[name].takes(file)]
        if chosen:
            # A file that disappears or is replaced while it is read is read the next time.
            with contextlib.suppress(OSError, RunError):
                _KINDS[name].read(chosen, marks, values, kind != "auto")
        if values.rows or kind != "auto":
            return values
    return Values()


def _read_hf(files: Sequence[Path], marks: Marks, values: Values, is_chosen: bool) -> None:
    """The history in the newest trainer_state.json, which holds that of the checkpoint before it as well."""
    for file in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        content = file.read_bytes()
        if str(file) in marks and _new_from(file, content, marks) == len(content):
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError):
            state = json.loads(content)
            for entry in state["log_history"]:
                values.add(int(entry["step"]), _numbers(entry))
            values.total, values.is_history = int(state["max_steps"]) or None, True
            return


def _read_csv(files: Sequence[Path], marks: Marks, values: Values, is_chosen: bool) -> None:
    for file in _in_order(files):
        # The logger of Lightning counts from 0: a row of step 63 is that of 64 completed steps.
        shift = 1 if file.name == LIGHTNING and file.parent.name.startswith("version_") else 0
        content = file.read_bytes()
        begins = _new_from(file, content, marks)
        header = f"{_after(content, 0).splitlines()[0]}\n" if begins else ""
        new = f"{header}{_after(content, begins)}"
        for number, row in enumerate(csv.DictReader(io.StringIO(new)), start=1):
            known = {name: value for name, text in row.items() if name and (value := _number(text)) is not None}
            _add_row(values, known, number, is_chosen, shift)


def _read_jsonl(files: Sequence[Path], marks: Marks, values: Values, is_chosen: bool) -> None:
    for file in _in_order(files):
        content = file.read_bytes()
        new = _after(content, _new_from(file, content, marks))
        for number, line in enumerate(new.splitlines(), start=1):
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    _add_row(values, dict(_flat("", row)), number, is_chosen, 0)


def _read_tensorboard(files: Sequence[Path], marks: Marks, values: Values, is_chosen: bool) -> None:
    # A process writes a file of its own, into which no later one writes.
    own = [file for file in files if str(file) not in marks]
    folders = sorted({file.parent for file in own})
    logged = {folder: read_events([file for file in own if file.parent == folder]).scalars for folder in folders}
    count = Counter(tag for scalars in logged.values() for tag in scalars)
    for folder, scalars in logged.items():
        for tag, (steps, numbers) in scalars.items():
            # Keras writes the same tags into the folders train and validation.
            name = _name(tag if count[tag] == 1 else f"{folder.name}/{tag}")
            for step, number in zip(steps, numbers, strict=True):
                values.add(step, {name: read_number(number)})


@dataclass(frozen=True)
class _Kind:
    takes: Callable[[Path], bool]
    read: Read


# `auto` takes the first one: what says most comes first.
_KINDS = {
    "hf": _Kind(lambda path: path.name == HF_STATE, _read_hf),
    "csv": _Kind(lambda path: path.suffix == ".csv", _read_csv),
    "jsonl": _Kind(lambda path: path.suffix in (".jsonl", ".ndjson"), _read_jsonl),
    "tensorboard": _Kind(lambda path: path.match(PATTERN), _read_tensorboard),
}
KINDS = ("auto", *_KINDS)


def _add_row(values: Values, row: Mapping[str, Any], number: int, is_chosen: bool, shift: int) -> None:
    name = next((name for name in STEPS if _is_step(row.get(name))), None)
    if name is None and not is_chosen:
        # Any table or list of records may lie there: predictions, a vocabulary.
        return
    step = number if name is None else int(row[name]) + shift
    values.add(step, {key: value for key, value in _numbers(row).items() if key != name or key == _EPOCH})


def _is_step(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == int(value)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row: numbers under names that are not Relay's own."""
    found = {name: value for name, value in row.items() if isinstance(value, int | float) and name not in _NO_VALUES}
    return {_name(name): read_number(value) for name, value in found.items()}


def _name(name: str) -> str:
    """The name of a metric; `logged/NAME` where tables have a column of that name."""
    return f"logged/{name}" if name in NO_METRICS and name != _EPOCH else name


def _flat(path: str, row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of nested sections: `val/loss` of {"val": {"loss": 0.4}}. A text such as NaN is a number."""
    for name, value in row.items():
        below = f"{path}/{name}" if path else str(name)
        if isinstance(value, dict):
            yield from _flat(below, value)
        else:
            yield below, float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _number(text: Any) -> float | None:
    """The number in a text; None if it holds none."""
    if not isinstance(text, str):
        return None  # Of a row with too many or too few fields.
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _after(content: bytes, begins: int) -> str:
    """The complete lines behind that many bytes."""
    return content[begins : content.rfind(b"\n") + 1].decode(errors="replace")


def _in_order(files: Sequence[Path]) -> list[Path]:
    """version_2 before version_10, and the file that was written last comes last."""
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, str(path)))
