"""What commands print: everything on stdout and stderr is cleaned on its way.

Names, errors and answers of SLURM are written by others, and may hold escape sequences of terminals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from relay.text import printable


class _CleanStream:
    """A text stream whose output is `printable`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def clean_output() -> None:
    """Clean what this process prints from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # None if it was closed (`>&-`).
        if stream is not None and not isinstance(stream, _CleanStream):
            setattr(sys, name, _CleanStream(stream))


def terminal_of(stream: TextIO) -> TextIO:
    """The stream itself, for rich, which writes escape sequences of its own and is given `printable` texts."""
    return stream.stream if isinstance(stream, _CleanStream) else stream
