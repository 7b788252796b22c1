"""The campaign's oracle: which causes it allows after which faults. It needs no SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.runs.attempt import Attempt
from relay.runs.rundir import RunDir
from tests.slurm.chaos.check import _check_cause
from tests.slurm.chaos.faults import Injection

RUN = RunDir(Path("sweep/run"))
FROZEN_AT, THAWED_AT = 40.0, 224.0


def fault(kind: str, began: float, lasts_s: float, victim: str = RUN.name) -> Injection:
    return Injection(kind, frozenset({victim}), lasts_s=lasts_s, kind=kind, began=began)


def problems(end: float, cause: str, *injections: Injection) -> list[str]:
    attempt = Attempt(1, 1.0, end=end, cause=cause, job="7_0")
    return list(_check_cause(RUN, [attempt], 0, attempt, injections))


@pytest.mark.parametrize(
    ("kind", "lasts_s", "cause"),
    [
        ("requeued", 40, "REQUEUED"),
        ("code removed", 12, "REQUEUED"),
        ("cancel beside a pipeline", 40, "CANCELLED"),
        ("scancel --signal=TERM", 0, "SIGNALLED"),
    ],
)
def test_a_frozen_process_sees_a_fault_when_it_thaws(kind: str, lasts_s: float, cause: str) -> None:
    freeze = fault("node frozen", FROZEN_AT, THAWED_AT - FROZEN_AT)
    end = THAWED_AT + 2
    for began in (FROZEN_AT - 5, FROZEN_AT + 10, FROZEN_AT + 100):
        assert problems(end, cause, freeze, fault(kind, began, lasts_s)) == []
    # Not without a freeze, not in another run, and not before the fault.
    assert problems(end, cause, fault(kind, FROZEN_AT + 10, lasts_s))
    assert problems(end, cause, fault("node frozen", FROZEN_AT, 184, "other"), fault(kind, FROZEN_AT + 10, lasts_s))
    assert problems(end, cause, freeze, fault(kind, FROZEN_AT + 10, lasts_s, "other"))
    assert problems(FROZEN_AT + 5, cause, freeze, fault(kind, FROZEN_AT + 10, lasts_s))


def test_a_thaw_excuses_no_cause_that_its_faults_do_not_leave() -> None:
    freeze, requeue = fault("node frozen", FROZEN_AT, 184), fault("requeued", FROZEN_AT + 10, 40)
    for cause in ("TIMEOUT", "CRASHED", "PREEMPTED"):
        assert problems(THAWED_AT + 2, cause, freeze, requeue)
    assert problems(THAWED_AT + 60, "REQUEUED", freeze, requeue), "long after the thaw"


@pytest.mark.parametrize("accounting", ["slurmdbd away", "mariadbd away"])
def test_without_accounting_a_lost_node_is_only_known_as_a_requeue(accounting: str) -> None:
    away, down = fault(accounting, 10.0, 21), fault("node down", 22.0, 30)
    assert problems(30.0, "REQUEUED", away, down) == []
    assert problems(30.0, "REQUEUED", down)
    assert problems(30.0, "REQUEUED", away)
    assert problems(30.0, "TIMEOUT", away, down)
