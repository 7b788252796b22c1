from __future__ import annotations

import re
from dataclasses import replace

import pytest

from relay.runs.attempt import Attempt, kept_s, wasted_s
from relay.runs.causes import CAUSES, Cause, since_retry, why_blocked
from relay.runs.slice_time import slice_time
from tests.conftest import ROOT


def attempts(*steps: tuple[int, int], cause: str = "TIMEOUT") -> list[Attempt]:
    return [
        Attempt(number, start=1.0, end=2.0, cause=cause, first_step=first, last_step=last)
        for number, (first, last) in enumerate(steps, 1)
    ]


def word(found: list[Attempt]) -> str | None:
    blocked = why_blocked(found)
    return blocked.cause if blocked else None


def advancing(count: int, cause: str) -> list[Attempt]:
    return attempts(*[(i, i + 1) for i in range(count)], cause=cause)


@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_each_cause_has_its_own_budget(cause: str) -> None:
    limit = CAUSES[cause].budget
    allowed = 500 if limit is None else limit
    assert why_blocked(advancing(allowed, cause)) is None
    assert word(advancing(allowed + 1, cause)) == (None if limit is None else cause)


def what_happens_next(cause: Cause) -> str:
    """The last column of the table in docs/guarantees.md."""
    if cause.budget == 0:
        return "blocked until `retry --failed`"
    if cause.at_once:
        return f"executed again at once, {cause.budget} times"
    how = "resumes by itself" if cause.requeued else "resumes with the same command"
    if cause.budget:
        return f"{how}, {cause.budget} times"
    return f"{how}, always" if cause.requeued else how


def test_the_manual_has_every_cause_and_what_happens_next() -> None:
    rows = re.findall(
        r"^\| ([A-Z_, ]+) \| .* \| (.*) \|$", (ROOT / "docs/guarantees.md").read_text(), flags=re.MULTILINE
    )
    documented = {name: then for names, then in rows for name in names.split(", ")}
    assert documented.pop("NO_PROGRESS") == "blocked until `retry --failed`"
    assert documented == {name: what_happens_next(cause) for name, cause in CAUSES.items()}


def test_one_cause_does_not_use_up_what_another_is_allowed() -> None:
    assert why_blocked([*advancing(50, "TIMEOUT"), *advancing(5, "NODE_FAIL"), *advancing(300, "PREEMPTED")]) is None


def test_a_cause_that_nobody_knows_is_allowed_as_much_as_a_kill() -> None:
    assert why_blocked(advancing(5, "BOOT_FAIL")) is None
    assert word(advancing(6, "BOOT_FAIL")) == "BOOT_FAIL"


def test_two_attempts_without_a_step_are_no_progress() -> None:
    assert why_blocked(attempts((0, 0))) is None
    assert word(attempts((0, 0), (0, 0))) == "NO_PROGRESS"
    assert why_blocked(attempts((0, 0), (0, 3))) is None
    assert why_blocked(attempts((0, 3), (3, 3))) is None
    assert word(attempts((0, 3), (3, 3), (3, 3))) == "NO_PROGRESS"


def test_bad_luck_is_no_lack_of_progress_until_it_never_ends() -> None:
    assert why_blocked(attempts((0, 0), (0, 0), (0, 0), cause="PREEMPTED")) is None
    assert word(attempts(*[(0, 0)] * 10, cause="PREEMPTED")) == "NO_PROGRESS"
    assert why_blocked(attempts((0, 0), (0, 0), cause="KILLED")) is None
    assert why_blocked(attempts((0, 0), (0, 0), (0, 0), cause="CANCELLED")) is None
    between = [*attempts((0, 0)), *attempts((0, 0), cause="PREEMPTED"), *attempts((0, 0))]
    assert word(between) == "NO_PROGRESS"


def test_retry_gives_budgets_back() -> None:
    crashed = attempts((0, 5), cause="CRASHED")
    assert word(crashed) == "CRASHED"
    crashed[-1] = replace(crashed[-1], retried=1.0)
    assert why_blocked(crashed) is None
    again = [*crashed, *attempts((5, 6), cause="CRASHED")]
    assert word(again) == "CRASHED"
    assert list(since_retry(again)) == again[1:]


def test_what_to_do_is_said() -> None:
    refused = why_blocked(attempts((0, 5), cause="OUT_OF_MEMORY"))
    assert "mem_gb" in str(refused)
    assert "raise mem_gb of the profile" in str(refused)


def made(start: float, end: float, cause: str, first: int, last: int) -> Attempt:
    return Attempt(1, start, end=end, cause=cause, first_step=first, first_step_at=start, last_step=last)


def test_used_and_wasted_seconds() -> None:
    timeout = made(0.0, 100.0, "TIMEOUT", 0, 50)
    killed = replace(made(200.0, 300.0, "KILLED", 50, 60), reached_step=90)
    idle = made(400.0, 410.0, "TIMEOUT", 60, 60)
    running = Attempt(4, 500.0)
    done = made(500.0, 530.0, "DONE", 60, 99)
    assert slice_time([[timeout, killed, idle, running]], now=520.0).used_s == 230.0
    assert wasted_s([timeout, killed, idle, done]) == 75.0 + 10.0
    # All of the first, a quarter of the second, nothing of the third; the last one was not interrupted.
    assert kept_s([timeout, killed, idle, done]) == 100.0 + 25.0
    # The newest state is damaged, so the next attempt begins at an earlier step.
    assert wasted_s([timeout, replace(done, first_step=30)]) == 40.0
    assert kept_s([timeout, replace(done, first_step=30)]) == 60.0


def test_a_run_that_crashed_before_any_step_repeated_nothing() -> None:
    crashed = Attempt(1, 0.0, end=100.0, cause="CRASHED", first_step=0, last_step=0, reached_step=0)
    assert wasted_s([crashed] * 2) == 0.0
    assert kept_s([crashed] * 2) == 0.0
    # It had made steps, and was killed before it logged one of them.
    assert wasted_s([replace(crashed, first_step_at=60.0)]) == 40.0
    # Neither overhead nor steps that were saved are repeated steps.
    assert wasted_s([replace(crashed, first_step_at=60.0, last_step=30, reached_step=40)]) == 10.0
    assert kept_s([replace(crashed, first_step_at=60.0, last_step=30, reached_step=40)]) == 30.0
