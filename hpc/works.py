"""Finds a work by its name in sweep.yaml: the only module of hpc that imports jobs."""

from __future__ import annotations

from jobs import PIPELINE, WORKS, usual_request, verify_request
from relay.errors import RunError
from relay.work import Work

__all__ = ["PIPELINE", "WORKS", "find_work", "usual_request", "verify_request", "work_of"]


def work_of(name: str, source: object = "a sweep") -> Work:
    """The work of this name. Raises RunError if there is none, as in a `source` written by a newer version."""
    work = find_work(name)
    if work is None:
        raise RunError(f"kind {name!r} of {source} is unknown; known: {', '.join(WORKS)}")
    return work


def find_work(name: str) -> Work | None:
    """The work of this name; None if it is unknown here."""
    return WORKS.get(name)
