"""Times the reading of TensorBoard event files against TensorBoard's EventAccumulator, side by side.

    python -m tests.benchmarks.foreign DIR [--pairs 5]

Prints the median, least and most seconds of both and the ratio of the medians (wanted: at least 5).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from src.results.event_files import PATTERN, read_events


def seconds(work: Callable[[], None]) -> float:
    """How long the work takes once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    files = sorted(asked.directory.rglob(PATTERN))

    def accumulate() -> None:
        for path in files:
            accumulator = EventAccumulator(str(path), size_guidance={SCALARS: 0})
            accumulator.Reload()
            for tag in accumulator.Tags()["scalars"]:
                accumulator.Scalars(tag)

    def read() -> None:
        for path in files:
            read_events([path])

    read()  # Imports, and the files into the cache.
    pairs = [(seconds(accumulate), seconds(read)) for _ in range(asked.pairs)]
    medians = []
    for name, times in zip(("EventAccumulator", "read_events"), zip(*pairs, strict=True), strict=True):
        medians.append(statistics.median(times))
        print(f"{name:18} {medians[-1]:7.3f} s  (from {min(times):.3f} to {max(times):.3f})")
    print(f"{len(files)} files, {asked.pairs} pairs: {medians[0] / medians[1]:.1f} times as fast")


if __name__ == "__main__":
    main()
