"""Times the reading of TensorBoard event files against TensorBoard's EventAccumulator, side by side.

    python -m tests.benchmarks.foreign DIR [--pairs 5]

Prints the median, least and most seconds of both and the ratio of the medians (wanted: at least 5).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from relay.results.foreign.event_files import PATTERN, read_events
from tests.benchmarks.table import seconds


def readers(files: Sequence[Path]) -> tuple[Callable[[], None], Callable[[], None]]:
    """What reads all scalars of the files: EventAccumulator, and ours."""

    def accumulate() -> None:
        for path in files:
            accumulator = EventAccumulator(str(path), size_guidance={SCALARS: 0})
            accumulator.Reload()
            for tag in accumulator.Tags()["scalars"]:
                accumulator.Scalars(tag)

    def read() -> None:
        for path in files:
            read_events([path])

    return accumulate, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    files = sorted(asked.directory.rglob(PATTERN))

    accumulate, read = readers(files)
    read()  # Imports, and the files into the cache.
    pairs = [(seconds(accumulate), seconds(read)) for _ in range(asked.pairs)]
    medians = []
    for name, times in zip(("EventAccumulator", "read_events"), zip(*pairs, strict=True), strict=True):
        medians.append(statistics.median(times))
        print(f"{name:18} {medians[-1]:7.3f} s  (from {min(times):.3f} to {max(times):.3f})")
    print(f"{len(files)} files, {asked.pairs} pairs: {medians[0] / medians[1]:.1f} times as fast")


if __name__ == "__main__":
    main()
