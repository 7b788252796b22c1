"""Rows as tables on a terminal of any width, or in a pipe. What comes from outside is text, and never rich's markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]
# Columns in the order in which a narrow terminal gives them room; behind these further metrics, a grid's axes and all
# others.
_NEVER_CUT = ("run", "state", "step", "val/accuracy")
_BY_IMPORTANCE = (
    *_NEVER_CUT,
    *("val/loss", "split", "accuracy", "loss", "valley", "steepest"),
    *("found", "error", "time left", "waits for"),
)
# Behind all others.
_LEAST_IMPORTANT = ("causes", "attempts", "job", "images_per_s", "train_s", "steps")
# Columns that may be shortened, to so many characters.
_SHORTEST = {"error": 24, "waits for": 12, "causes": 12, "job": 12, "checkpoint": 24}
# At least so much of a name on one line: where it is longer than that and there is no room, it goes on in the next one.
_NAME_WIDTH = 16
_GAP = 2


def show_value(value: Any) -> str:
    """A value as tables show it: four digits of what is measured, nothing for what is not known."""
    if value is None:
        return ""
    if isinstance(value, float):
        if value and abs(value) < 0.001:
            return f"{value:.6g}"
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4f}".rstrip("0").rstrip(".")
    return str(value)


def print_rows(rows: Sequence[Row], title: str, limit: int = 60) -> None:
    """Rows on stdout in their order: as wide as the terminal, or as they need where there is none."""
    console, width = table_console()
    console.print(table_of(rows[:limit], title, width))
    if len(rows) > limit:
        print(f"({len(rows) - limit} more)")


def table_console() -> tuple[Console, int | None]:
    """Where tables go, and how wide the terminal is; None if stdout is none, and nothing is left out."""
    from rich.console import Console

    console = Console(highlight=False)
    return (console, console.width) if console.is_terminal else (Console(highlight=False, width=100_000), None)


def table_of(rows: Sequence[Row], title: str, width: int | None = None) -> Table:
    """The rows as a table; columns in which nothing is known are left out.

    In `width` characters there may be room for some columns only: the caption names those that are missing. The run's
    name, state, step and accuracy are always there in full.
    """
    from rich.table import Table
    from rich.text import Text

    columns = [name for name in (rows[0] if rows else {}) if any(row.get(name) is not None for row in rows)]
    cells = {name: [_printable(show_value(row.get(name))) for row in rows] for name in columns}
    widths = _widths(cells, width)
    hidden = [name for name in columns if name not in widths]
    # Text and not str, which rich would read as markup: errors, names and paths may have brackets in them.
    table = Table(
        title=Text(_printable(title), style="table.title"),
        title_justify="left",
        caption=Text(f"no room for: {', '.join(hidden)}", style="table.caption") if hidden else None,
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
        table.add_row(*(Text(cells[name][number]) for name in shown))
    return table


def _printable(text: str) -> str:
    """On one line, and without what would move a terminal's cursor or change its colours."""
    return "".join(char if char.isprintable() else " " for char in text)


def _widths(cells: Mapping[str, Sequence[str]], width: int | None) -> dict[str, int]:
    """The columns that there is room for, and how wide each is."""
    from rich.cells import cell_len

    needed = {name: max(cell_len(text) for text in (name, *texts)) for name, texts in cells.items()}
    if width is None:
        return needed
    listed = (*_BY_IMPORTANCE, *_LEAST_IMPORTANT)
    # Further metrics first: a grid's axes are in the names of its runs, too.
    between = sorted((name for name in needed if name not in listed), key=lambda name: not name.startswith("val/"))
    order = [name for name in (*_BY_IMPORTANCE, *between, *_LEAST_IMPORTANT) if name in needed]
    found: dict[str, int] = {}
    room = width + _GAP
    for name in order:
        least = min(needed[name], _SHORTEST.get(name, needed[name]))
        if name in _NEVER_CUT or least + _GAP <= room:
            found[name] = least
            room -= least + _GAP
    if room < 0 and "run" in found:
        found["run"] = max(min(_NAME_WIDTH, needed["run"]), found["run"] + room)
    for name in found:
        more = max(0, min(needed[name] - found[name], room))
        found[name] += more
        room -= more
    return found
