"""The number of a sweep or pipeline in its runs directory: of two, the newer one has the larger number.

Login nodes whose clocks or time zones differ disagree on times, and must not on which sweep is the newest.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path

# Both write their number as a key of the outermost level.
_FILES = ("*/sweep.yaml", "pipeline_*/pipeline.yaml")
_NUMBER = re.compile(rb"^number: (\d{1,30})$", re.MULTILINE)


def next_number(runs_dir: Path) -> int:
    """The number of the next sweep or pipeline. The caller holds the planning lock of `runs_dir`."""
    newest = 0
    for path in itertools.chain.from_iterable(runs_dir.glob(pattern) for pattern in _FILES):
        # Searched, not parsed: parsing the sweep.yaml of a large grid takes seconds. Another user's may be unreadable.
        with contextlib.suppress(OSError):
            newest = max([newest, *map(int, _NUMBER.findall(path.read_bytes()))])
    return newest + 1
