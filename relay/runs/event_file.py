"""TensorBoard's event files: scalars, images and HParams, written record by record and without TensorFlow.

A run has one event file with everything that TensorBoard shows of it, so that it is one entry of TensorBoard's list.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.runs.rundir import RunDir

_PATTERN = "events.out.tfevents.*"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def figure_tag(name: str) -> str:
    """The tag of a figure. TensorBoard sorts groups of tags: figures come after the curves of train and val."""
    return f"visuals/{name}"


class EventFile:
    """A new event file of a run. Nothing reaches the disk for certain before `flush` or `close`.

    Raises OSError where the disk refuses a write.
    """

    def __init__(self, run: RunDir) -> None:
        """Create the file beside the run's older ones, which stay until `remove_others`."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._run, self._event = run, Event
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        self.path = run.path / name
        # Not tensorboard's EventFileWriter: on a full disk its thread prints a traceback, and the run does not notice.
        self._writer = RecordWriter(self.path.open("wb"))
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Makes a running TensorBoard discard what it has read from the file that this one replaces.
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=0, session_log=start))

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float | None = None) -> None:
        """Add one point, at `step` optimizer steps, to the curve of each name in `values`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self.summary(Summary(value=points), step, wall_time)

    def image(self, tag: str, png: bytes, step: int = 0) -> None:
        """Add a PNG file as the image `tag`. Raises ValueError if it is no PNG file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if not png.startswith(_PNG_SIGNATURE):
            raise ValueError(f"{tag}: not a PNG file")
        # The header of a PNG file is its first chunk: https://www.w3.org/TR/png/#11IHDR
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        self.summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def summary(self, summary: Any, step: int = 0, wall_time: float | None = None) -> None:
        """Add a summary_pb2.Summary."""
        self._write(self._event(wall_time=wall_time or time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Hand everything to the operating system, for a TensorBoard that is watching."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def remove_others(self) -> None:
        """Remove the run's older event files, which this one replaces."""
        # Last: a process that is killed before this point leaves the old copy.
        for file in self._run.path.glob(_PATTERN):
            if file != self.path:
                file.unlink(missing_ok=True)


def write_images(run: RunDir, images: Mapping[str, Path]) -> None:
    """Show PNG files, by tag, for a run that logs no metrics: its event file holds just them, anew at each call.

    Raises TakenOverError if another process has taken the run over, OSError if the disk refuses the file.
    """
    run.check_owner()
    file = EventFile(run)
    try:
        for tag, path in images.items():
            file.image(tag, path.read_bytes())
    finally:
        file.close()
    file.remove_others()
