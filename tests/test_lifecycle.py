from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from hpc import states
from hpc.lifecycle import cause_from, check_slice, refusal
from hpc.slurm import JobFacts, QueuedJob
from hpc.submit import Submission, match_queue
from src.errors import ClusterError

NOW = datetime(2026, 11, 22, 12, 0, 0)


def job(
    state: str = "RUNNING", end_s: float | None = 3600, preempted_s: float | None = None, ran_min: float = 10
) -> JobFacts:
    return JobFacts(
        state=state,
        restarts=0,
        limit=timedelta(hours=1),
        start=NOW - timedelta(minutes=ran_min),
        end=None if end_s is None else NOW + timedelta(seconds=end_s),
        preempted=None if preempted_s is None else NOW + timedelta(seconds=preempted_s),
    )


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (job(end_s=85), "TIMEOUT"),
        (job(end_s=60), "TIMEOUT"),
        (job(end_s=-5), "TIMEOUT"),
        (job(preempted_s=0), "PREEMPTED"),
        (job(end_s=20, preempted_s=-1), "PREEMPTED"),
        (job(preempted_s=-3600), "SIGNALLED"),
        (job(state="CANCELLED"), "CANCELLED"),
        (job(state="COMPLETING", end_s=0), "CANCELLED"),
        (job(state="COMPLETING", end_s=0, ran_min=60), "TIMEOUT"),
        (job(), "SIGNALLED"),
        (job(end_s=None), "SIGNALLED"),
    ],
)
def test_the_cause_is_what_slurm_says(facts: JobFacts, cause: str) -> None:
    assert cause_from(facts, NOW) == cause


def attempts(*steps: tuple[int, int], cause: str = "TIMEOUT") -> list[dict[str, Any]]:
    return [
        {"attempt": i, "cause": cause, "first_step": first, "last_step": last}
        for i, (first, last) in enumerate(steps, 1)
    ]


def test_time_outs_and_preemptions_go_on() -> None:
    assert refusal(attempts((0, 5)), "TIMEOUT") == ""
    assert refusal(attempts(*[(i, i + 1) for i in range(500)], cause="PREEMPTED"), "PREEMPTED") == ""
    assert refusal(attempts(*[(i, i + 1) for i in range(50)]), "TIMEOUT") == ""
    assert "51th time" in refusal(attempts(*[(i, i + 1) for i in range(51)]), "TIMEOUT")


def test_what_nobody_may_requeue() -> None:
    assert refusal(attempts((0, 5), cause="CANCELLED"), "CANCELLED") == "CANCELLED"
    assert refusal(attempts((0, 5), cause="CRASHED"), "CRASHED") == "CRASHED"


def test_two_attempts_without_a_step_are_no_progress() -> None:
    assert refusal(attempts((0, 0)), "TIMEOUT") == ""
    assert "NO_PROGRESS" in refusal(attempts((0, 0), (0, 0)), "TIMEOUT")
    assert refusal(attempts((0, 0), (0, 3)), "TIMEOUT") == ""
    assert refusal(attempts((0, 3), (3, 3)), "TIMEOUT") == ""


def test_states_that_nobody_knows_are_neither_done_nor_failed() -> None:
    assert states.phase("QUANTUM_HOLD") == "unknown"
    assert states.in_flight("QUANTUM_HOLD")
    assert states.phase("CANCELLED by 1000") == "over"
    assert not states.in_flight("NODE_FAIL")
    assert states.in_flight("SUSPENDED")
    assert states.in_flight("COMPLETING")


def queued(job_id: str, name: str) -> QueuedJob:
    return QueuedJob(job_id, name, "PENDING", "Resources", "1:00:00")


def test_tasks_are_found_by_their_jobs_name_also_without_an_id() -> None:
    made = [Submission("relay-x.1", ("a", "b", "c"), None), Submission("relay-x.2", ("b",), "77")]
    found = match_queue(
        made,
        [queued("70_0", "relay-x.1"), queued("70_2", "relay-x.1"), queued("77", "relay-x.2"), queued("1_9", "other")],
    )
    assert {name: job.job_id for name, job in found.items()} == {"a": "70_0", "c": "70_2", "b": "77"}
    assert made[1].element(0) == "77"
    assert Submission("relay-x.1", ("a", "b"), "70").element(1) == "70_1"


def test_a_cpu_where_a_gpu_was_asked_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("RELAY_NEEDS_GPU", "0")
    check_slice()
    monkeypatch.setenv("RELAY_NEEDS_GPU", "1")
    with pytest.raises(ClusterError, match="0 GPUs are visible"):
        check_slice()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_slice()
