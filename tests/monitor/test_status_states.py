"""The state of a task is shown as SLURM names it, if a task in it does not simply run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpc import slurm
from hpc.monitor.status_rows import sweep_status
from hpc.slurm import QueuedJob
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("RUNNING", "running"),
        ("SUSPENDED", "suspended"),
        ("STOPPED", "stopped"),
        ("CONFIGURING", "configuring"),
        ("SIGNALING", "signaling"),
        ("COMPLETING", "ending"),
        ("REQUEUE_HOLD", "queued"),
        ("QUANTUM_LEAP", "QUANTUM_LEAP"),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_a_task_is_shown_in_its_state(small: Callable[..., Config], state: str, shown: str, begun: bool) -> None:
    run, *_ = (sweep := open_sweep(grid_request(small()))[0]).runs()
    if begun:
        run.record_attempt(1, start=1.0, job="7_0", cluster="c", pid=1)
    status = sweep_status(sweep, {run.name: [QueuedJob("7_0", "x", state, "None", "9:00")]})
    assert status.rows[0].state == shown
    assert status.in_flight == 1, "--watch goes on"
    assert (status.rows[0].time_left == "9:00") == (slurm.phase(state) == "running")
