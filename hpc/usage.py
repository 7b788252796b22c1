"""What attempts took: seconds on their slices, and seconds whose work had to be done again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any


def used_s(attempts: Iterable[Mapping[str, Any]], now: float) -> float:
    """Seconds that the attempts held their slices; one that is still going on holds it until `now` (since 1970)."""
    return sum(max(0.0, float(attempt.get("end") or now) - float(attempt["start"])) for attempt in attempts)


def wasted_s(attempts: Sequence[Mapping[str, Any]]) -> float:
    """Seconds whose steps had to be done again, because what ended the attempt left no time to save them."""
    wasted = 0.0
    for attempt, following in zip_longest(attempts, attempts[1:]):
        if attempt.get("cause") in (None, "DONE") or "last_step" not in attempt or not attempt.get("end"):
            continue
        first, kept = attempt.get("first_step", 0), attempt["last_step"]
        reached = max(attempt.get("reached_step", kept), kept)
        if following is not None and "first_step" in following:
            kept = min(kept, following["first_step"])
        seconds = attempt["end"] - attempt["start"]
        wasted += seconds * (reached - kept) / (reached - first) if reached > first else seconds
    return wasted
