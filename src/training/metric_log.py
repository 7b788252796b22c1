"""The metrics of a run in metrics.jsonl and for TensorBoard; a resumed run looks like one that never stopped.

metrics.jsonl is append-only during an attempt. When the run resumes, it is truncated to the rows that the restored
checkpoint has seen. The TensorBoard file is a copy of it, rewritten by each attempt, so that a run shows as one line.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from src.errors import RunError
from src.files import append_lines, remove_leftovers, replace_file
from src.runs.rundir import RunDir


class MetricsLog:
    """Appends rows to the metrics of one run, and copies them to TensorBoard. A context manager.

    Raises RunError if the disk refuses a row or its copy; the last checkpoint stays intact.
    """

    def __init__(self, run: RunDir, keep_bytes: int, hparams: Mapping[str, Any]) -> None:
        """Truncate the log to its first `keep_bytes` bytes, those that the restored state has seen, and open it.

        `hparams` are shown in TensorBoard. Raises RunError if the log is shorter than that: later steps cannot replace
        the lost rows.
        """
        self._run = run
        self._pending: list[dict[str, Any]] = []
        run.check_owner()  # Loading the images may have hung until another process took the run over.
        remove_leftovers(run.path)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self._events_file = run.path / name
        with self._naming_the_file():
            self.size_bytes = _truncate(run, keep_bytes)
            self._open_tensorboard(hparams)

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
            self._writer.close()

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{error.filename or self._events_file}: cannot be written: {error.strerror}. "
                "The last checkpoint is intact; free some space or restore the directory, then start the run again"
            ) from error

    def _close_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.close()

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Add a row: `values` by name, after `step` optimizer steps and `epoch` epochs. Durable after `flush`."""
        row = {"step": step, "epoch": epoch, "time": round(time.time(), 3), **values}
        self._pending.append(row)
        with self._naming_the_file():
            self._copy_to_tensorboard(row)
            self._writer.flush()

    def flush(self) -> int:
        """Make all rows durable. Returns the size of the log in bytes, for the next checkpoint."""
        if self._pending:
            with self._naming_the_file():
                self.size_bytes = append_lines(self._run.metrics_file, list(self._pending), check=self._run.check_owner)
                self._pending.clear()
        return self.size_bytes

    def _open_tensorboard(self, hparams: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        old = [path for path in self._run.path.glob("events.out.tfevents.*") if path != self._events_file]
        # Not tensorboard's EventFileWriter: on a full disk its thread prints a traceback, and the run does not notice.
        self._writer = RecordWriter(self._events_file.open("wb"))
        try:
            self._add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
            # Makes a running TensorBoard discard what it has read from the file that this one replaces.
            start = SessionLog(status=SessionLog.START)
            self._add_event(Event(wall_time=time.time(), step=0, session_log=start))
            summary = hparams_pb(dict(hparams), trial_id=self._run.label)
            self._add_event(Event(wall_time=time.time(), summary=summary))
            for row in self._run.metrics():
                self._copy_to_tensorboard(row)
            self._writer.flush()
        except BaseException:
            self._close_quietly()
            raise
        # Last: a process that is killed before this point leaves the old copy.
        for file in old:
            file.unlink(missing_ok=True)

    def _add_event(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def _copy_to_tensorboard(self, row: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in row.items()
            if name not in ("step", "time") and value is not None
        ]
        self._add_event(Event(wall_time=row["time"], step=row["step"], summary=Summary(value=values)))


def _truncate(run: RunDir, keep_bytes: int) -> int:
    path = run.metrics_file
    content = path.read_bytes() if path.exists() else b""
    if len(content) < keep_bytes:
        raise RunError(
            f"{path}: has {len(content)} bytes, but the checkpoint has seen {keep_bytes}: rows were lost; "
            "restore the file"
        )
    if content:
        # A new file even if nothing is removed: an earlier owner on a node that hung may still have the old one open.
        replace_file(path, content[:keep_bytes])
    return keep_bytes
