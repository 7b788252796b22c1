from __future__ import annotations

from typing import Any

import pytest

from relay.runs.attempt import Attempt
from relay.runs.slice_time import slice_time

NOW = 1000.0


def made(start: float, first: float | None, end: float | None, job: str = "7_1", **facts: Any) -> Attempt:
    made_by = {"job": job, "cluster": "c", "restarts": 0, **facts}
    return Attempt(1, start, end=end, cause=None if end is None else "DONE", first_step_at=first, **made_by)


def test_overhead_ends_with_the_first_step() -> None:
    assert slice_time([[made(100.0, 130.0, 400.0)]], NOW) == (300.0, 30.0)


def test_overhead_begins_with_the_job() -> None:
    assert slice_time([[made(100.0, 130.0, 400.0, job_start=80.0)]], NOW) == (320.0, 50.0)
    # The controller's clock is ahead of the node's.
    assert slice_time([[made(100.0, 130.0, 400.0, job_start=110.0)]], NOW) == (300.0, 30.0)


def test_the_gap_between_two_runs_of_a_task_is_overhead() -> None:
    first, second = made(100.0, 130.0, 400.0, job_start=80.0), made(410.0, 415.0, 500.0, job_start=80.0)
    assert slice_time([[second], [first]], NOW) == (420.0, 50.0 + 15.0)


@pytest.mark.parametrize("other", [{"job": "7_2"}, {"job_start": 410.0}, {"cluster": "d"}, {"job_start": None}])
def test_the_time_between_two_jobs_is_nobodys(other: dict[str, Any]) -> None:
    first, second = (
        made(100.0, 130.0, 400.0, job_start=100.0),
        made(410.0, 415.0, 500.0, **{"job_start": 410.0, **other}),
    )
    assert slice_time([[first, second]], NOW) == (390.0, 35.0)


def test_an_attempt_without_a_step_is_all_overhead() -> None:
    assert slice_time([[made(100.0, None, 160.0)]], NOW) == (60.0, 60.0)
    assert slice_time([[made(990.0, None, None)]], NOW) == (10.0, 10.0)
    assert slice_time([[made(900.0, 930.0, None)]], NOW) == (100.0, 30.0)
    assert slice_time([], NOW) == (0.0, 0.0)


def test_a_clock_that_went_back_takes_no_time_away() -> None:
    assert slice_time([[made(500.0, 500.0, None), made(700.0, 700.0, 650.0)]], NOW) == (500.0, 0.0)


def test_runs_that_share_a_slice_use_it_once() -> None:
    first, second = made(100.0, 110.0, 400.0, job_start=100.0), made(101.0, 120.0, 500.0, job_start=100.0)
    assert slice_time([[first], [second]], NOW) == (400.0, 10.0)
    # One works while the other still starts: nothing is lost.
    later = made(300.0, 390.0, 500.0, job_start=100.0)
    assert slice_time([[first], [later]], NOW) == (400.0, 10.0)
