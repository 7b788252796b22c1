"""The one table of SLURM's job states (slurm.schedmd.com/squeue.html, job state codes). The unknown stays unknown."""

from __future__ import annotations

from typing import Literal

Phase = Literal["waiting", "running", "ending", "over", "unknown"]

_PHASES: dict[str, Phase] = {
    "PENDING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_FED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "CONFIGURING": "running",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
    "SUSPENDED": "running",
    "COMPLETING": "ending",
    "BOOT_FAIL": "over",
    "CANCELLED": "over",
    "COMPLETED": "over",
    "DEADLINE": "over",
    "FAILED": "over",
    "NODE_FAIL": "over",
    "OUT_OF_MEMORY": "over",
    "PREEMPTED": "over",
    "REVOKED": "over",
    "TIMEOUT": "over",
}


def phase(state: str) -> Phase:
    """What a state means for a run; `CANCELLED by 1000` and `CANCELLED+` are CANCELLED."""
    return _PHASES.get(state.split(" ")[0].rstrip("+"), "unknown")


def in_flight(state: str) -> bool:
    """Whether a task in this state may still execute its run; so may one in a state that nobody knows."""
    return phase(state) != "over"
