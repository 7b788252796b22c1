"""The parts that a report is made of. All texts are plain: src/reporting/rendering.py escapes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path


class Exact(str):
    """A cell that is shown as it is in every language: a version, a call, a name, the user's own words."""


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
    """The student's own text, from comments.yaml under `name`; `prompt` says what is asked for.

    `draft`: sentences from the numbers, shown as a draft while there is no text, and as the answer once `accepted`.
    """

    name: str
    prompt: str
    text: str
    draft: Sequence[str] = ()
    accepted: bool = False

    @property
    def is_draft(self) -> bool:
        """Whether it shows a draft that the user has neither accepted nor replaced."""
        return bool(self.draft) and not self.text and not self.accepted


Block = Heading | Paragraph | Items | Verdicts | TableBlock | Figure | CodeBlock | SourceNote | Gap | Comment
Change = Callable[[str], str]


def with_words(block: Block, change: Change) -> Block:
    """The block with every sentence and cell changed: not code, names, or what the user wrote."""
    match block:
        case Paragraph(text):
            return Paragraph(change(text))
        case Items(items):
            return Items([change(item) for item in items])
        case Verdicts(items):
            return Verdicts([(holds, change(text)) for holds, text in items])
        case TableBlock(columns, rows):
            cells = [[cell if isinstance(cell, Exact) else change(cell) for cell in row] for row in rows]
            return replace(block, columns=[change(name) for name in columns], rows=cells)
        case Comment():
            return replace(block, draft=[change(sentence) for sentence in block.draft])
    return block


def with_texts(block: Block, change: Change) -> Block:
    """The block with all that is written in it changed, but its figures."""
    match block:
        case Heading(level, text, anchor):
            return Heading(level, change(text), anchor)
        case CodeBlock(text, language):
            return CodeBlock(change(text), language)
        case SourceNote(text):
            return SourceNote(change(text))
        case Gap(text, commands):
            return Gap(change(text), [change(command) for command in commands])
        case TableBlock(_, rows):
            return replace(block, rows=[[_kept(cell, change) for cell in row] for row in rows])
    return with_words(block, change)


def _kept(cell: str, change: Change) -> str:
    return Exact(change(cell)) if isinstance(cell, Exact) else change(cell)


def is_numeric(table: TableBlock, column: int) -> bool:
    """Whether every filled cell of a column is a number, so that it is aligned to the right."""
    cells = [row[column] for row in table.rows if row[column]]
    return bool(cells) and all(_is_number(cell) for cell in cells)


def _is_number(text: str) -> bool:
    try:
        # As English and as French write it.
        float(re.sub(r"[\u00a0\u202f%]|,(?=\d{3}\b)", "", text.removeprefix("< ")).replace(",", "."))
    except ValueError:
        return False
    return True
