"""Shows the progress of a run: a bar in a terminal, log lines elsewhere (job logs, pipes)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from relay.console import terminal_of
from relay.log import log
from relay.text import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

StopCheck = Callable[[], bool]


class Reporter(Protocol):
    """Shows the progress of a run."""

    def advance(self, done: int, total: int | None, text: str, unit: str = "step") -> None:
        """Show that `done` of `total` steps (or another `unit`) are done; `text` adds the current metrics.

        `total`: None if it is not known.
        """


class PlainReporter:
    """Log lines, at most one every `every_s` seconds for the steps. `label` names the run, if several share the log."""

    def __init__(self, label: str = "", every_s: float = 10.0) -> None:
        self._prefix, self._every_s = f"{label}: " if label else "", every_s
        self._last = -float("inf")

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def advance(self, done: int, total: int | None, text: str, unit: str = "step") -> None:
        """Log a line if the last one is `every_s` seconds old, or if this is the last step."""
        if time.monotonic() - self._last >= self._every_s or (total is not None and done >= total):
            self._last = time.monotonic()
            log.info(f"{self._prefix}{unit} {done if total is None else f'{done}/{total}'}  {text}")


class BarReporter:
    """A rich progress bar in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            # Without markup, because rich would drop what stands in brackets.
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
        ]
        # On stderr: stdout holds only results.
        self._progress = Progress(*columns, console=Console(file=terminal_of(sys.stderr)))
        self._task: TaskID | None = None

    def __enter__(self) -> BarReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, done: int, total: int | None, text: str, unit: str = "step") -> None:
        """Move the bar. The first call creates it, because only then its length is known."""
        if self._task is None:
            self._task = self._progress.add_task("", total=total)
        self._progress.update(self._task, completed=done, total=total, description=printable(f"{unit}s  {text}"))


def make_reporter() -> PlainReporter | BarReporter:
    """The bar if stderr is a terminal, else log lines; --quiet shows neither."""
    return BarReporter() if sys.stderr.isatty() and log.isEnabledFor(logging.INFO) else PlainReporter()
