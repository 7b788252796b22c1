"""The metrics of a run in metrics.jsonl and for TensorBoard; a resumed run looks like one that never stopped.

The TensorBoard file is a copy of metrics.jsonl, rewritten by each attempt, so that a run shows as one line.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from relay.errors import RunError
from relay.files import remove_leftovers
from relay.program.rows import Rows, Seen
from relay.runs.event_file import EventFile
from relay.runs.rundir import RunDir
from src.config.schema import Config
from src.training.hparams import best_scalars, end_summary, hparams_of, start_summaries


class MetricsLog:
    """Appends rows to the metrics of one run, and copies them to TensorBoard. A context manager.

    Raises RunError if the disk refuses a row or its copy; the last checkpoint stays intact.
    """

    def __init__(self, run: RunDir, seen: Seen = Seen(), config: Config | None = None) -> None:  # noqa: B008
        """Truncate the log to what the restored state has `seen`, and open it.

        With `config`, the run takes part in TensorBoard's HParams. Raises RunError if these rows are not in the log as
        the state has seen them (later steps cannot replace lost rows), or if the manifest is damaged.
        """
        self._run = run
        self._hparams = hparams_of(run, config) if config else None
        run.check_owner()  # Loading the images may have hung until another process took the run over.
        remove_leftovers(run.path)
        # A failed write of an open file does not name it.
        self._written = run.path
        with self._naming_the_file():
            self._rows = Rows(run.metrics_file, seen, run.check_owner)
            self._events = EventFile(run)
            self._written = self._events.path
            self._copy_what_is_known()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            # Report the error that ended the run, not a failure to close the copy.
            self._close_quietly()
            return
        with self._naming_the_file():
            self._events.close()

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{error.filename or self._written}: cannot be written: {error.strerror}. "
                "The last checkpoint is intact; free some space or restore the directory, then start the run again"
            ) from error

    def _close_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._events.close()

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Add a row: `values` by name, after `step` optimizer steps and `epoch` epochs. Durable after `flush`."""
        row = {"step": step, "epoch": epoch, "time": round(time.time(), 3), **values}
        self._rows.add(row)
        with self._naming_the_file():
            self._copy(row)
            self._events.flush()

    def image(self, tag: str, png: bytes, step: int = 0) -> None:
        """Show a PNG file in TensorBoard. The next attempt does not keep it: it has to add it again."""
        with self._naming_the_file():
            self._events.image(tag, png, step)
            self._events.flush()

    def end(self, best: Mapping[str, float] | None, *, diverged: bool = False) -> None:
        """Show in TensorBoard's HParams that the run is complete, and the metrics of its best epoch, if it has one."""
        if self._hparams is None:
            return
        with self._naming_the_file():
            if best is not None:
                self._events.scalars(int(best["step"]), best_scalars(self._hparams, best))
            self._events.summary(end_summary(diverged=diverged))

    def flush(self) -> Seen:
        """Make all rows durable. Returns what the next checkpoint has seen."""
        with self._naming_the_file():
            return self._rows.flush()

    def _copy_what_is_known(self) -> None:
        try:
            for summary in start_summaries(self._hparams, self._run.label) if self._hparams else ():
                self._events.summary(summary)
            for row in self._run.metrics():
                self._copy(row)
            self._events.flush()
        except BaseException:
            self._close_quietly()
            raise
        self._events.remove_others()

    def _copy(self, row: Mapping[str, Any]) -> None:
        # An epoch over the steps is a straight line, and its card would be the first that TensorBoard shows.
        others = ("step", "time", "epoch")
        values = {name: value for name, value in row.items() if name not in others and value is not None}
        self._events.scalars(row["step"], values, row["time"])
