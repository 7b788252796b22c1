"""The metrics that a script writes for itself: JSON lines, CSV, TensorBoard, or the state of Hugging Face's Trainer.

Files are looked for in one folder of the run. A file may hold rows of several attempts; its mark tells which are new.
Other files that look alike may lie there: whatever they hold, none of them ends a run.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
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

# In this order: the first one that a file has counts. Without any, the number of a row is its step.
STEPS = ("step", "global_step", "_step", "trainer/global_step", "iteration", "iter", "epoch")
_EPOCH = "epoch"
_NO_VALUES = (*STEPS[:4], "time", "timestamp", "_timestamp")
_MOST_STEPS = 10**15
HF_STATE = "trainer_state.json"
LIGHTNING = "metrics.csv"
_HEAD_BYTES = 65536
_CHUNK_BYTES = 2**20
# Path -> how many bytes a file had, and their checksum.
Marks = Mapping[str, Sequence[int]]
# The values of a row by name.
Row = Mapping[str, Any]


@dataclass
class Values:
    """What was logged: step -> name -> number. `kind`: of the files that were read, "" if there are none.

    `total`: how many steps the run has, None if no source tells. `is_history`: whether an attempt that resumes repeats
    the rows of those before it.
    """

    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    kind: str = ""
    total: int | None = None
    is_history: bool = False

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to the row of a step, in place of those that it has."""
        if 0 <= step <= _MOST_STEPS:
            self.rows.setdefault(step, {}).update(values)


def files_below(folder: Path) -> list[Path]:
    """The regular files of the run's own below `folder`, or the file itself; linked ones belong to the project."""
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        paths = [Path(parent, name) for name in sorted(names)]
        found += [path for path in paths if not path.is_symlink() and path.is_file()]
    return found


def marks_of(files: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """How far each file that may hold metrics is filled now: what it has beyond that is new."""
    marks = {}
    for file in files:
        if any(kind.takes(file) for kind in _KINDS.values()):
            with contextlib.suppress(OSError):
                # Those of TensorBoard only grow while the process that began them lives.
                marks[str(file)] = (0, 0) if file.match(PATTERN) else _mark_of(file)
    return marks


def _mark_of(file: Path) -> tuple[int, int]:
    size = checksum = 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum


def begun_anew(marks: Marks) -> list[str]:
    """The marked files that are smaller now: a script has emptied them, and may write the same into them again."""
    smaller = []
    for name, (size, _) in marks.items():
        try:
            if Path(name).stat().st_size < size:
                smaller.append(name)
        except OSError:
            smaller.append(name)
    return smaller


def read_sources(kind: str, folder: Path, marks: Marks, *, is_final: bool = False) -> Values:
    """What the files of a kind in `folder` hold beyond their marks. `auto`: of the first kind that has any rows.

    `is_final`: nothing is written any more, so a last line without its end is complete.
    """
    files = files_below(folder)
    for name in _KINDS if kind == "auto" else (kind,):
        values, found = Values(kind=name), _KINDS[name]
        # A file that was named holds what it is said to hold.
        chosen = [file for file in files if found.takes(file) or (file == folder and kind != "auto")]
        if kind == "auto" and found.has_steps:
            chosen = [file for file in chosen if _has_steps(file, found.parse)]
        if chosen:
            found.read(_in_order(chosen), marks, values, is_final)
        if values.rows or kind != "auto":
            return values
    return Values()


def _read_hf(files: Sequence[Path], marks: Marks, values: Values, is_final: bool) -> None:
    """The history in the newest trainer_state.json, which holds that of the checkpoint before it as well."""
    values.is_history = True
    for file in reversed(files):
        content = _content_of(file)
        if str(file) in marks and _new_from(file, content, marks) == len(content):
            continue
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
            state = json.loads(content)
            for entry in state["log_history"]:
                values.add(int(entry["step"]), _numbers(entry))
            values.total = int(state["max_steps"]) or None
            return


def _read_tensorboard(files: Sequence[Path], marks: Marks, values: Values, is_final: bool) -> None:
    # A process writes a file of its own, into which no later one writes.
    own = [file for file in files if str(file) not in marks]
    logged = {}
    for folder in sorted({file.parent for file in own}):
        # A file may disappear while it is read.
        with contextlib.suppress(RunError):
            logged[folder] = read_events([file for file in own if file.parent == folder]).scalars
    count = Counter(tag for scalars in logged.values() for tag in scalars)
    for folder, scalars in logged.items():
        for tag, (steps, numbers) in scalars.items():
            # Keras writes the same tags into the folders train and validation.
            name = _name(tag if count[tag] == 1 else f"{folder.name}/{tag}")
            for step, number in zip(steps, numbers, strict=True):
                values.add(step, {name: read_number(number)})


@dataclass(frozen=True)
class _Table:
    """The rows of one file: the step and the values of each. The first `old` ones are of earlier attempts."""

    file: Path
    rows: Sequence[tuple[int, Mapping[str, float]]]
    old: int

    @property
    def names(self) -> set[str]:
        return {name for _, row in self.rows for name in row if name != _EPOCH}


def _read_tables(
    files: Sequence[Path], marks: Marks, values: Values, is_final: bool, parse: Callable[[str], list[Row]]
) -> None:
    tables = []
    for file in files:
        content = _content_of(file)
        begins = _new_from(file, content, marks)
        # Not the end of a line that is being written.
        end = len(content) if is_final else content.rfind(b"\n") + 1
        rows = parse(content[:end].decode("utf-8-sig", "replace"))
        old = len(parse(content[:begins].decode("utf-8-sig", "replace"))) if begins else 0
        # The logger of Lightning counts from 0: a row of step 63 is that of 64 completed steps.
        shift = 1 if file.name == LIGHTNING and file.parent.name.startswith("version_") else 0
        tables.append(_Table(file, _with_steps(rows, shift), old))
    for table in tables:
        prefixes = {name: _prefix(name, table, tables) for name in table.names}
        for step, row in table.rows[table.old :]:
            values.add(step, {prefixes.get(name, "") + name: value for name, value in row.items()})


def _prefix(name: str, table: _Table, tables: Sequence[_Table]) -> str:
    """What tells a column of `train.csv` from that of the same name of `val.csv`, or of one in another folder."""
    others = [each for each in tables if each is not table and name in each.names]
    if any(each.file.name != table.file.name for each in others):
        return f"{table.file.stem}/"
    # Of one name, one for each attempt: only if several grow.
    grows = [each for each in others if len(each.rows) > each.old]
    return f"{table.file.parent.name}/" if grows and len(table.rows) > table.old else ""


def _with_steps(rows: Sequence[Row], shift: int) -> list[tuple[int, Mapping[str, float]]]:
    """The step of each row, and its numbers. A row without a step belongs to the one before it."""
    key = next((name for name in STEPS if any(_is_step(row.get(name)) for row in rows)), None)
    if key == _EPOCH and not all(_is_step(row[key]) for row in rows if key in row):
        # Half epochs: the rows are counted.
        key = None
    found: list[tuple[int, Mapping[str, float]]] = []
    step = None
    for number, row in enumerate(rows, start=1):
        if key is None:
            step = number
        elif _is_step(row.get(key)):
            step = int(row[key]) + shift
        if step is not None:
            values = {name: value for name, value in _numbers(row).items() if name != key or name == _EPOCH}
            found.append((step, values))
    return found


def _parse_csv(text: str) -> list[Row]:
    """The rows of a table with a line of names, whose values are divided by commas, semicolons, tabs or blanks."""
    lines = text.split("\n")
    while lines and (not lines[0].strip() or lines[0].startswith("#")):
        lines.pop(0)
    if not lines:
        return []
    divider = max(",;\t", key=lines[0].count)
    blanks = not lines[0].count(divider)
    rows: list[Row] = []
    # A text with a quote, say, is no row of metrics.
    with contextlib.suppress(csv.Error):
        reader = csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=" " if blanks else divider)
        names = [name.strip() for name in next(reader) if name.strip() or not blanks]
        for cells in reader:
            kept = [cell for cell in cells if cell or not blanks]
            known = {name: value for name, cell in zip(names, kept) if (value := _number(cell)) is not None}  # noqa: B905
            rows += [known] if known else []
    return rows


def _parse_jsonl(text: str) -> list[Row]:
    rows: list[Row] = []
    # Not splitlines, which also divides at characters that a text may hold.
    for line in text.split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            rows += [dict(_flat("", row))] if isinstance(row, dict) else []
    return rows


@dataclass(frozen=True)
class _Kind:
    """`has_steps`: files of this kind may be anything; those without a step are no metrics, unless they are named."""

    takes: Callable[[Path], bool]
    read: Callable[[Sequence[Path], Marks, Values, bool], None]
    has_steps: bool = False
    parse: Callable[[str], list[Row]] = _parse_jsonl


def _table_kind(takes: Callable[[Path], bool], parse: Callable[[str], list[Row]]) -> _Kind:
    def read(files: Sequence[Path], marks: Marks, values: Values, is_final: bool) -> None:
        _read_tables(files, marks, values, is_final, parse)

    return _Kind(takes, read, has_steps=True, parse=parse)


# `auto` takes the first one: what says most comes first.
_KINDS = {
    "hf": _Kind(lambda path: path.name == HF_STATE, _read_hf),
    "csv": _table_kind(lambda path: path.suffix in (".csv", ".tsv"), _parse_csv),
    "jsonl": _table_kind(lambda path: path.suffix in (".jsonl", ".ndjson"), _parse_jsonl),
    "tensorboard": _Kind(lambda path: path.match(PATTERN), _read_tensorboard),
}


def _has_steps(file: Path, parse: Callable[[str], list[Row]]) -> bool:
    """Whether the beginning of a file has a row with a step. A data set of gigabytes is not read for that."""
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return False
    rows = parse(head.decode("utf-8-sig", "replace"))
    return any(isinstance(row.get(name), int | float) for row in rows for name in STEPS)


def _content_of(file: Path) -> bytes:
    """The content of a file; nothing if it has disappeared since it was found."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _new_from(file: Path, content: bytes, marks: Marks) -> int:
    """Where the content begins that the file did not have when it was marked: 0 if it is another file now."""
    size, checksum = marks.get(str(file), (0, 0))
    return size if len(content) >= size and zlib.crc32(content[:size]) == checksum else 0


def _is_step(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0 and value == int(value)


def _numbers(row: Row) -> dict[str, float]:
    """The metrics of a row: numbers under names that are not Relay's own."""
    found = {name: value for name, value in row.items() if isinstance(value, int | float) and name not in _NO_VALUES}
    # The number of the row, which pandas writes, has no name.
    named = {name: value for name, value in found.items() if name and (name != _EPOCH or math.isfinite(value))}
    return {_name(name): read_number(value) for name, value in named.items()}


def _name(name: str) -> str:
    """The name of a metric; `logged/NAME` where tables have a column of that name."""
    return f"logged/{name}" if name in NO_METRICS and name != _EPOCH else name


def _flat(path: str, row: Row) -> Iterator[tuple[str, Any]]:
    """The values of nested sections: `val/loss` of {"val": {"loss": 0.4}}. The text of a number counts as one."""
    for name, value in row.items():
        below = f"{path}/{name}" if path else str(name)
        if isinstance(value, dict):
            yield from _flat(below, value)
        else:
            yield below, _number(value) if isinstance(value, str) else value


def _number(text: str) -> float | None:
    """The number in a text; None if it holds none."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _in_order(files: Sequence[Path]) -> list[Path]:
    """The file that was written last comes last."""

    def key(path: Path) -> tuple[int, str]:
        try:
            return path.stat().st_mtime_ns, str(path)
        except OSError:
            return 0, str(path)

    return sorted(files, key=key)
