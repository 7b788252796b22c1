"""One line of `doctor`, and the page that the lines make."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.console import terminal_of
from relay.text import printable

Level = Literal["ok", "warning", "problem"]
_COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
# The widest page, and the width of one that goes to a file or a pipe: longer lines are hard to read.
_WIDEST = 120


@dataclass(frozen=True)
class Line:
    """What was found about a topic, and what to do about it. `advice` may also come with an `ok`."""

    level: Level
    topic: str
    finding: str
    advice: str = ""


def print_page(title: str, lines: Sequence[Line]) -> None:
    """Print the lines to stdout in columns, each advice below its finding, and the count of each level at the end."""
    from rich.console import Console
    from rich.text import Text

    stream = terminal_of(sys.stdout)
    console = Console(file=stream, highlight=False)
    width = min(console.width, _WIDEST) if console.is_terminal else _WIDEST
    console = Console(file=stream, width=width, highlight=False)
    topics = max((len(line.topic) for line in lines), default=0)
    indent = len("problem") + topics + 4
    console.print(Text(title, style="bold"))
    for line in lines:
        head = Text.assemble((f"{line.level:<7}", _COLOURS[line.level]), f"  {line.topic:<{topics}}  ")
        body = _wrapped(line.finding, width - indent)
        if line.advice:
            advice = enumerate(_wrapped(line.advice, width - indent - 3))
            body += [f"{'   ' if number else '-> '}{part}" for number, part in advice]
        console.print(head + Text(f"\n{' ' * indent}".join(body)), soft_wrap=True)
    console.print(Text(count_levels(lines)))


def count_levels(lines: Sequence[Line]) -> str:
    """`21 ok, 2 warnings, 1 problem`."""
    counts = {level: sum(line.level == level for line in lines) for level in _COLOURS}
    return ", ".join(
        f"{count} {level}{'' if level == 'ok' or count == 1 else 's'}"
        for level, count in counts.items()
        if count or level == "ok"
    )


def _wrapped(text: str, width: int) -> list[str]:
    # Users copy paths and commands from the page, so neither is broken in the middle.
    parts = [
        textwrap.wrap(line, max(width, 30), break_long_words=False, break_on_hyphens=False)
        for line in printable(text).splitlines()
    ]
    return [piece for part in parts for piece in part] or [""]
