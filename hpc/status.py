"""What is on disk, joined with what the scheduler says: the directory tells the truth, SLURM who waits and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc import states
from hpc.slurm import QueuedJob
from src.checkpoint_names import newest_step
from src.results import run_state
from src.rundir import RunDir, SweepDir


def sweep_status(sweep: SweepDir, queue: Mapping[str, QueuedJob]) -> list[dict[str, Any]]:
    """A row for every run: state, step of total, attempts with their causes, job, time left."""
    return [_row(run, queue.get(run.name)) for run in sweep.runs()]


def _row(run: RunDir, job: QueuedJob | None) -> dict[str, Any]:
    result, attempts = run.result(), run.attempts()
    state = run_state(run, result, attempts)
    if job and state not in ("done", "diverged"):
        state = "running" if states.phase(job.state) == "running" else job.state
    total = next((attempt["total_steps"] for attempt in reversed(attempts) if "total_steps" in attempt), None)
    step = result.get("steps") if result else newest_step(run.checkpoints)
    return {
        "run": run.name,
        "state": state,
        "step": f"{step}/{total}" if total and step is not None else step or None,
        "attempts": len(attempts) or None,
        "causes": " ".join(str(a["cause"]) for a in attempts if a.get("cause") not in (None, "DONE")) or None,
        "job": job.job_id if job else attempts[-1].get("job") if attempts else None,
        "waits for": job.reason if job and states.phase(job.state) == "waiting" else None,
        "error": _first_line(attempts[-1].get("error")) if attempts and not result else None,
        "time left": job.time_left if job and states.phase(job.state) == "running" else None,
    }


def _first_line(error: str | None) -> str | None:
    return error.splitlines()[0][:100] if error else None


def summary(rows: list[dict[str, Any]]) -> str:
    """`48 runs: 40 done, 7 PENDING, 1 running`."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return f"{len(rows)} runs: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
