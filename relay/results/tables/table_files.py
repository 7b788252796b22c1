"""Writes a table as CSV, Markdown and Parquet, and prints it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.files import replace_file
from relay.terminal import print_rows, show_value
from relay.text import printable

SUFFIXES = ("csv", "md", "parquet")
# Columns that only the files need.
_HIDDEN = {"index", "steps", "train_s", "train/accuracy", "interruptions"}
_FINISHED = {"done", "diverged", "logged", "partial", "rerun"}


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Write the rows, in their order, to `path` with each of the suffixes. Returns the files.

    The columns are those of the first row. Each file is replaced atomically, and equal rows give equal bytes. A column
    of Parquet has one type: one that mixes types, or holds lists or sections, is text. Raises DiskError.
    """
    contents: dict[str, bytes | str] = {}
    names = list(rows[0]) if rows else []
    if "csv" in suffixes:
        contents["csv"] = csv_of(rows)
    if "md" in suffixes:
        contents["md"] = markdown([{name: row[name] for name in names if name != "index"} for row in rows])
    if "parquet" in suffixes:
        contents["parquet"] = _parquet(rows, names)
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in contents]
    for file, content in zip(files, contents.values(), strict=True):
        replace_file(file, content)
    return files


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV, with the columns of the first one; "" if there are none."""
    names = list(rows[0]) if rows else []
    return csv_text(names, ([row[name] for name in names] for row in rows)) if rows else ""


def csv_text(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A header and rows as CSV. A text that spreadsheets would take for a formula gets an apostrophe before it, which
    tells them that it is a text (OWASP, CSV Injection).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_as_text(value) for value in row] for row in (names, *rows))
    return text.getvalue()


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = printable(str(value))
    # A tab or carriage return before it is skipped by some of them.
    return f"'{text}" if text.strip()[:1] in ("=", "+", "-", "@") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table whose columns line up; numbers to the right."""
    # Not tabulate, which needs 2 s for 10,000 rows.
    names = list(rows[0]) if rows else []
    columns = []
    for name in names:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        texts = [_cell(name), *(_cell(show_value(row[name])) for row in rows)]
        width = max(3, *map(len, texts))
        align = str.rjust if numeric else str.ljust
        rule = "-" * (width - 1) + ":" if numeric else "-" * width
        columns.append([align(texts[0], width), rule, *(align(text, width) for text in texts[1:])])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def _cell(text: str) -> str:
    return " ".join(printable(text).split()).replace("|", "\\|")


def _parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1 or kinds & {dict, list} or _is_too_large(values):
            values = [None if value is None else show_value(value) for value in values]
        columns[name] = pa.array(values)
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _is_too_large(values: Sequence[Any]) -> bool:
    """Whether one is an integer of more than 64 bits."""
    return any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values)


def print_table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the rows without the columns that only the files need. How far runs are is shown while one is not done."""
    hidden = _HIDDEN - ({"steps"} if any(row.get("state") not in _FINISHED for row in rows) else set())
    print_rows([{name: value for name, value in row.items() if name not in hidden} for row in rows], title)
