"""Prints rows as tables, on a terminal of any width or to a pipe. No cell is interpreted as rich's markup."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relay.console import terminal_of
from relay.text import printable

if TYPE_CHECKING:
    from rich.console import Console, Group

Row = Mapping[str, Any]
# The columns that a narrow terminal shows first, in this order. Further metrics, axes and other columns follow.
_NEVER_CUT = ("run", "state", "step", "val/accuracy")
_BY_IMPORTANCE = (
    *_NEVER_CUT,
    *("split", "accuracy", "loss", "valley", "steepest"),
    *("result", "error", "environment", "time left", "waits for", "job"),
)
# Shown only if all others fit.
_LEAST_IMPORTANT = ("best_epoch", "causes", "attempts", "epochs", "images_per_s", "train_s", "steps")
# Columns that may be cut, and to how many characters.
_SHORTEST = {"error": 24, "environment": 24, "waits for": 12, "causes": 12, "job": 12, "checkpoint": 24}
# Names that are longer than this are wrapped if the terminal is too narrow.
_NAME_WIDTH = 16
_GAP = 2


def show_value(value: Any) -> str:
    """A value as tables show it: at most four decimals, six digits if it is tiny or huge, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        if value and not 0.001 <= abs(value) < 1e15:
            return f"{value:.6g}"
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4f}".rstrip("0").rstrip(".")
    return str(value)


def print_rows(rows: Sequence[Row], title: str, limit: int = 60) -> None:
    """Print at most `limit` rows as a table, cut to the width of the terminal; in a pipe, to that in COLUMNS if it is
    set.
    """
    console, width = table_console()
    console.print(table_of(rows[:limit], title, width))
    if len(rows) > limit:
        print(f"({len(rows) - limit} more)")


def table_console() -> tuple[Console, int | None]:
    """The console for tables and the width of the terminal; without a terminal, that in COLUMNS, else None."""
    from rich.console import Console

    console = Console(file=terminal_of(sys.stdout), highlight=False)
    if console.is_terminal:
        return console, console.width
    asked = os.environ.get("COLUMNS", "")
    width = int(asked) if asked.isascii() and asked.isdigit() and asked.strip("0") else None
    # rich assumes 80 columns in a pipe and would cut rows there.
    return Console(file=console.file, highlight=False, width=width or 100_000), width


def table_of(rows: Sequence[Row], title: str, width: int | None = None) -> Group:
    """The title, and below it the rows as a table without its empty columns.

    Columns that do not fit into `width` characters are left out, and the caption names them. The run's name, state,
    step and accuracy are always shown in full.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    columns = [name for name in (rows[0] if rows else {}) if any(row.get(name) is not None for row in rows)]
    cells = {name: [_printable(show_value(row.get(name))) for row in rows] for name in columns}
    widths = _widths(cells, width)
    hidden = [name for name in columns if name not in widths]
    # rich parses a str as markup, and errors, names and paths may contain brackets: give it Text.
    table = Table(
        caption=Text(f"no room for: {_printable(', '.join(hidden))}", style="table.caption") if hidden else None,
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    shown = [name for name in columns if name in widths]
    for name in shown:
        table.add_column(
            Text(_printable(name)),
            width=widths[name],
            no_wrap=name != "run",
            overflow="fold" if name == "run" else "ellipsis",
            justify="left" if name in ("run", "state", "error") else "right",
        )
    for number in range(len(rows)):
        table.add_row(*(Text(_shortened(cells[name][number], widths[name], name)) for name in shown))
    # Not as the table's own title, which is wrapped at the width of the table.
    return Group(Text(_printable(title), style="table.title"), table)


def _shortened(text: str, width: int, name: str) -> str:
    """The text with an ellipsis after the last word that fits; names of runs are wrapped instead."""
    if name == "run" or len(text) <= width:
        return text
    words = text[: width - 1].rpartition(" ")[0] if text[width - 1] != " " else text[: width - 1]
    # One long word is cut by the table.
    return f"{words.rstrip()}…" if words.strip() else text


def _printable(text: str) -> str:
    """The text on one line, without what could move the cursor or change colours."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def _widths(cells: Mapping[str, Sequence[str]], width: int | None) -> dict[str, int]:
    """The columns that fit into `width` and the width of each."""
    from rich.cells import cell_len

    needed = {name: max(cell_len(text) for text in (name, *texts)) for name, texts in cells.items()}
    if width is None:
        return needed
    listed = (*_BY_IMPORTANCE, *_LEAST_IMPORTANT)
    # The verdict and the axes, which are no metrics of a split, come before further metrics.
    between = sorted((name for name in needed if name not in listed), key=lambda name: "/" in name)
    order = [name for name in (*_BY_IMPORTANCE, *between, *_LEAST_IMPORTANT) if name in needed]
    widths: dict[str, int] = {}
    room = width + _GAP
    for name in order:
        least = min(needed[name], _SHORTEST.get(name, needed[name]))
        if name in _NEVER_CUT or least + _GAP <= room:
            widths[name] = least
            room -= least + _GAP
    if room < 0 and "run" in widths:
        widths["run"] = max(min(_NAME_WIDTH, needed["run"]), widths["run"] + room)
    # What is left goes to the shortened columns, the most important first.
    for name in widths:
        more = max(0, min(needed[name] - widths[name], room))
        widths[name] += more
        room -= more
    return widths
