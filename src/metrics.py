"""Metric rows to JSONL and TensorBoard, without seams after a resume.

metrics.jsonl is the truth: append-only while a run lives, cut back to its checkpoint when it resumes. The TensorBoard
file is a copy of it, written anew at every resume, so that a run shows as one line, whatever happened to it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from src.errors import RunError
from src.files import append_lines, read_lines, replace_file
from src.rundir import RunDir

# What a row says of the clock; everything else in it is equal, bit for bit, however often a run was interrupted.
TIMING_KEYS = frozenset({"time", "train/images_per_s"})


class MetricsLog:
    """Appends rows for one run and mirrors them to TensorBoard; a context manager."""

    def __init__(self, run: RunDir, keep_bytes: int, hparams: Mapping[str, Any]) -> None:
        """Cut the log back to its first `keep_bytes` bytes, those that the resumed state has seen, and open it.

        Raises RunError where the log is shorter than that: rows were lost that no later step can bring back.
        """
        self._run = run
        self.size_bytes = _cut(run, keep_bytes)
        self._pending: list[dict[str, Any]] = []
        self._open_tensorboard(hparams)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def log(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Add a row: `values` by scalar name, at optimizer step `step`, `epoch` epochs in. Durable after `flush`."""
        row = {"step": step, "epoch": epoch, "time": round(time.time(), 3), **values}
        self._pending.append(row)
        self._mirror(row)

    def flush(self) -> int:
        """Make all rows durable. Returns the size of the log in bytes, which belongs into the next checkpoint."""
        if self._pending:
            self.size_bytes = append_lines(self._run.metrics_file, list(self._pending))
            self._pending.clear()
            self._writer.flush()
        return self.size_bytes

    def _open_tensorboard(self, hparams: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        old = list(self._run.path.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(self._run.path), max_queue_size=1000, flush_secs=30)
        # Tells a TensorBoard that watches this folder to forget what it read from the file that goes.
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=0, session_log=start))
        summary = hparams_pb(dict(hparams), trial_id=self._run.label)
        self._writer.add_event(Event(wall_time=time.time(), summary=summary))
        for row in read_lines(self._run.metrics_file):
            self._mirror(row)
        self._writer.flush()
        for file in old:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()

    def _mirror(self, row: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in row.items()
            if name not in ("step", "time") and value is not None
        ]
        self._writer.add_event(Event(wall_time=row["time"], step=row["step"], summary=Summary(value=values)))


def _cut(run: RunDir, keep_bytes: int) -> int:
    path = run.metrics_file
    content = path.read_bytes() if path.exists() else b""
    if len(content) < keep_bytes:
        raise RunError(f"{path}: has {len(content)} bytes where the checkpoint has seen {keep_bytes}; rows were lost")
    if len(content) > keep_bytes:
        replace_file(path, content[:keep_bytes])
    return keep_bytes
