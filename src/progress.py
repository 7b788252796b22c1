"""What a run says while it works: a progress bar in a terminal, plain lines elsewhere (job logs, pipes)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from src.log import log

if TYPE_CHECKING:
    from rich.progress import TaskID

StopCheck = Callable[[], bool]


class Reporter(Protocol):
    """Takes what a run has to say."""

    def say(self, text: str) -> None:
        """A line worth keeping."""

    def advance(self, done: int, total: int, text: str, unit: str = "step") -> None:
        """`done` of `total` steps (or whatever `unit` says), and how it stands."""


class PlainReporter:
    """Lines of the log; of the steps, one line every `every_s` seconds."""

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._last = -float("inf")

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def say(self, text: str) -> None:
        """Log at level INFO."""
        log.info(text)

    def advance(self, done: int, total: int, text: str, unit: str = "step") -> None:
        """Print if the last such line is `every_s` old, or at the end."""
        if time.monotonic() - self._last >= self._every_s or done >= total:
            self._last = time.monotonic()
            self.say(f"{unit} {done}/{total}  {text}")


class BarReporter:
    """A rich progress bar, for a person in a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = [
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
        ]
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task: TaskID | None = None

    def __enter__(self) -> BarReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Log at level INFO; while the bar is shown, rich prints what goes to stderr above it."""
        log.info(text)

    def advance(self, done: int, total: int, text: str, unit: str = "step") -> None:
        """Move the bar; there is none before the first call, which says how long it is."""
        if self._task is None:
            self._task = self._progress.add_task("", total=total)
        self._progress.update(self._task, completed=done, total=total, description=f"{unit}s  {text}")


def make_reporter() -> PlainReporter | BarReporter:
    """The bar where stderr is a terminal, lines elsewhere; --quiet shows neither."""
    return BarReporter() if sys.stderr.isatty() and log.isEnabledFor(logging.INFO) else PlainReporter()
