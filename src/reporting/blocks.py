"""The parts that a report is made of. All texts are plain: src/reporting/rendering.py escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 4. `anchor`: its id, unique in the report, such as `M5`."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of short texts."""

    items: Sequence[str]


@dataclass(frozen=True)
class Verdicts:
    """What was checked: whether each holds, and what it says."""

    items: Sequence[tuple[bool, str]]


@dataclass(frozen=True)
class TableBlock:
    """Rows of texts below `columns`. `marked`: the numbers of the rows to emphasise."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """A PNG file with its caption. The Markdown file links to it, the HTML file holds it."""

    file: Path
    caption: str


@dataclass(frozen=True)
class CodeBlock:
    """Text to be shown as it is. `language`: `yaml`, `bash`, or nothing."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class SourceNote:
    """What the blocks before it were read from, such as `<sweep>/<run>`."""

    text: str


@dataclass(frozen=True)
class Gap:
    """What is missing, and the commands that fill it."""

    text: str
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Comment:
    """The student's own text, from comments.yaml under `name`; `prompt` says what is asked for."""

    name: str
    prompt: str
    text: str


Block = Heading | Paragraph | Items | Verdicts | TableBlock | Figure | CodeBlock | SourceNote | Gap | Comment


def is_numeric(table: TableBlock, column: int) -> bool:
    """Whether every filled cell of a column is a number, so that it is aligned to the right."""
    cells = [row[column] for row in table.rows if row[column]]
    return bool(cells) and all(_is_number(cell) for cell in cells)


def _is_number(text: str) -> bool:
    try:
        float(text.removeprefix("< ").replace(",", "").rstrip("\u00a0%"))
    except ValueError:
        return False
    return True
