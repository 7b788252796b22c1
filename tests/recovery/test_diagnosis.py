from __future__ import annotations

import signal
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hpc.recovery import diagnosis as causes
from hpc.recovery.diagnosis import LOCAL_JOB, StopRequest, cause_from, ends_of, infer_end_cause, own_job_id
from hpc.slurm import JobEnd, JobFacts
from relay.errors import ClusterError
from relay.runs.attempt import Attempt
from tests.conftest import fake

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


def ended(state: str, start_min: float, end_min: float | None, job_id: str = "5_1", cluster: str = "c") -> JobEnd:
    end = None if end_min is None else NOW + timedelta(minutes=end_min)
    return JobEnd(job_id, cluster, state, NOW + timedelta(minutes=start_min), end)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("NODE_FAIL", "NODE_FAIL"),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("TIMEOUT", "TIMEOUT"),
        ("FAILED", "KILLED"),
        ("RUNNING", "KILLED"),
        ("QUANTUM_LEAP", "KILLED"),
    ],
)
def test_a_lost_attempt_is_named_by_the_end_of_its_own_execution(state: str, cause: str) -> None:
    attempt = Attempt(1, NOW.timestamp(), job="5_1", cluster="c", restarts=1)
    ends = [
        ended("REQUEUED", -60, -30),
        ended(state, -0.2, 4),
        ended("PREEMPTED", 10, 20),
        ended("FAILED", 0, 1, "5_2"),
    ]
    assert infer_end_cause(attempt, ends) == (cause, (NOW + timedelta(minutes=4)).timestamp())


def test_without_a_word_of_slurm_a_lost_attempt_was_killed() -> None:
    attempt = Attempt(1, NOW.timestamp(), job="5_1", cluster="c")
    later, before, elsewhere = ended("TIMEOUT", 60, 90), ended("TIMEOUT", -90, -60), ended("TIMEOUT", 0, 9, cluster="d")
    for ends in ([], [later], [before], [elsewhere]):
        assert infer_end_cause(attempt, ends) == ("KILLED", None)


YEARS = -9 * 365 * 24 * 60


@pytest.mark.parametrize(
    ("restarts", "ends", "cause"),
    [
        (0, [ended("OUT_OF_MEMORY", YEARS, YEARS + 5), ended("NODE_FAIL", 0, 3)], "NODE_FAIL"),
        (0, [ended("OUT_OF_MEMORY", YEARS, YEARS + 5)], "KILLED"),
        (0, [ended("TIMEOUT", YEARS, YEARS + 5), ended("TIMEOUT", YEARS + 9, YEARS + 9), ended("PREEMPTED", 0, 3)], ""),
        (0, [ended("CANCELLED", YEARS, YEARS + 5), ended("NODE_FAIL", 0, 3), ended("PREEMPTED", 5, 8)], "NODE_FAIL"),
        # The job's own earlier execution counts, other jobs' do not.
        (1, [ended("OUT_OF_MEMORY", YEARS, YEARS + 5), ended("NODE_FAIL", -90, -80), ended("PREEMPTED", 0, 3)], ""),
        (1, [ended("NODE_FAIL", -3, -2.5), ended("PREEMPTED", 0, 3)], ""),
        # The next job with this id, after the counter started over.
        (0, [ended("OUT_OF_MEMORY", 600, 605)], "KILLED"),
    ],
)
def test_a_record_of_another_job_with_the_same_id_is_no_explanation(
    restarts: int, ends: list[JobEnd], cause: str
) -> None:
    for clock_min in (-5, 0, 2):
        start = (NOW + timedelta(minutes=clock_min)).timestamp()
        assert infer_end_cause(Attempt(1, start, job="5_1", cluster="c", restarts=restarts), ends)[0] == (
            cause or "PREEMPTED"
        )


def test_the_start_of_an_execution_tells_it_from_all_others() -> None:
    ends = [ended("OUT_OF_MEMORY", YEARS, YEARS + 5), ended("NODE_FAIL", -3, -2.5), ended("PREEMPTED", 0, 3)]
    attempt = Attempt(1, NOW.timestamp() + 20, job="5_1", cluster="c", restarts=1)
    assert infer_end_cause(replace(attempt, job_start=NOW.timestamp()), ends)[0] == "PREEMPTED"
    unknown = (NOW - timedelta(minutes=1)).timestamp()
    assert infer_end_cause(replace(attempt, job_start=unknown), ends[2:])[0] == "KILLED"


def test_a_stop_is_not_explained_by_another_job_with_the_same_id(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causes, "_ACCOUNTING_WAITS_S", ())
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    fake(commands, "scontrol", scontrol("PENDING", restarts=1))
    other = "9|c|NODE_FAIL|2017-01-01T12:00:00|2017-01-01T12:10:00"
    fake(commands, "sacct", f"echo '{other}'")
    assert StopRequest().cause() == "REQUEUED"
    fake(commands, "sacct", f"echo '{other}'; echo '{row('9', 'PREEMPTED')}'")
    assert StopRequest().cause() == "PREEMPTED"


def row(job_id: str, state: str, start_min: float = -10, end_min: float | None = 0) -> str:
    """A line of sacct; the times are relative to now."""
    start, end = (
        "Unknown" if minutes is None else f"{datetime.now() + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}"
        for minutes in (start_min, end_min)
    )
    return f"{job_id}|c|{state}|{start}|{end}"


def scontrol(state: str, restarts: int = 0, preempted: str = "None") -> str:
    now = datetime.now()
    start, end = now - timedelta(minutes=10), now + timedelta(hours=1)
    times = f"StartTime={start:%Y-%m-%dT%H:%M:%S} EndTime={end:%Y-%m-%dT%H:%M:%S} TimeLimit=01:10:00"
    return f"echo 'JobId=9 JobState={state} Restarts={restarts} {times} PreemptTime={preempted}'"


@pytest.mark.parametrize("clock_s", [-600, 0, 600])
@pytest.mark.parametrize(("ran_s", "cause"), [(0, "SIGNALLED"), (3450, "TIMEOUT")])
def test_a_time_limit_is_told_by_the_time_that_the_task_ran_and_not_by_the_nodes_clock(
    commands: Path, monkeypatch: pytest.MonkeyPatch, clock_s: float, ran_s: float, cause: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    stop = StopRequest()
    monkeypatch.setattr(stop, "_began", time.monotonic() - ran_s)
    start = datetime.now() - timedelta(seconds=ran_s) + timedelta(seconds=clock_s)
    times = f"StartTime={start:%Y-%m-%dT%H:%M:%S} EndTime={start + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    fake(commands, "scontrol", f"echo 'JobId=9 JobState=RUNNING Restarts=0 {times} TimeLimit=01:00:00'")
    assert stop.cause() == cause


@pytest.mark.parametrize(
    ("last_end", "preempted", "cause"),
    [
        ("NODE_FAIL", "None", "NODE_FAIL"),
        ("PREEMPTED", "None", "PREEMPTED"),
        ("", "2026-11-22T12:10:00", "PREEMPTED"),
        ("", "None", "REQUEUED"),
    ],
)
def test_a_job_that_slurm_has_put_back_already_says_why_in_accounting(
    commands: Path, monkeypatch: pytest.MonkeyPatch, last_end: str, preempted: str, cause: str
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    fake(commands, "scontrol", scontrol("PENDING", restarts=1, preempted=preempted))
    fake(commands, "sacct", f"echo '{row('9', last_end)}'" if last_end else "exit 1")
    assert StopRequest().cause() == cause
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    fake(commands, "scontrol", scontrol("RUNNING", restarts=1))
    assert StopRequest().cause() == "SIGNALLED"


def test_accounting_that_is_behind_is_waited_for_and_an_earlier_end_is_not_taken_for_this_one(
    commands: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a busy site slurmdbd learns late that a node went down; the job was preempted once before."""
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    fake(commands, "scontrol", scontrol("PENDING", restarts=2))
    before = row("9", "PREEMPTED", -10, -2)
    running, over = row("9", "RUNNING", -1, None), row("9", "NODE_FAIL", -1, 0)
    fake(
        commands,
        "sacct",
        f"echo '{before}'; echo x >> '{tmp_path}/asked'\n"
        f"case $(wc -l < '{tmp_path}/asked') in 1) ;; 2) echo '{running}';; *) echo '{over}';; esac",
    )
    assert StopRequest().cause() == "NODE_FAIL"


@pytest.mark.parametrize(
    ("state", "derived", "cause"),
    [
        ("FAILED", "0:125", "OUT_OF_MEMORY"),
        ("OUT_OF_MEMORY", "0:125", "OUT_OF_MEMORY"),
        ("FAILED", "137:0", "KILLED"),
        ("CANCELLED by 0", "0:125", "CANCELLED"),
    ],
)
def test_a_step_that_was_out_of_memory_names_the_end_of_its_job(
    commands: Path, state: str, derived: str, cause: str
) -> None:
    """As SLURM 22.05 tells it: FAILED is how the batch script ended, whose last step the kernel had killed."""
    fake(commands, "sacct", f"echo '9|c|{state}|2026-11-22T12:00:00|2026-11-22T12:10:00|{derived}'")
    attempt = Attempt(1, NOW.timestamp(), job="9", cluster="c", restarts=0)
    assert infer_end_cause(attempt, ends_of([attempt]))[0] == cause


@pytest.mark.parametrize("clock_s", [0, 600, -600])
def test_a_lost_attempt_is_found_by_the_number_of_its_execution_whatever_the_clocks_say(clock_s: float) -> None:
    """Two executions within a few seconds, and a node whose clock is ten minutes off."""
    ends = [ended("NODE_FAIL", 0, 0.3), ended("CANCELLED by 0", 0.4, 3), ended("PREEMPTED", 4, 5)]
    attempt = Attempt(1, NOW.timestamp() + clock_s, job="5_1", cluster="c")
    assert [infer_end_cause(replace(attempt, restarts=number), ends)[0] for number in range(3)] == [
        *("NODE_FAIL", "CANCELLED", "PREEMPTED")
    ]


def test_a_worker_of_this_machine_is_not_the_allocation_that_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "555")
    assert own_job_id() == "555"
    monkeypatch.setenv(LOCAL_JOB, "1-1")
    assert own_job_id() is None


def test_accounting_is_asked_once_for_arrays_and_never_of_this_machines_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def record(job_ids: list[str], waits_s: object) -> list[JobEnd]:
        asked.append(job_ids)
        return []

    monkeypatch.setattr(causes.slurm, "job_history", record)
    of_array = [Attempt(1, time.time(), job=f"5_{i}", cluster="c") for i in range(9)]
    ends_of([*of_array, Attempt(1, time.time(), job="77")])
    assert asked == [["5"]]

    def refuse(job_ids: list[str], waits_s: object) -> list[JobEnd]:
        raise ClusterError("sacct: disabled")

    monkeypatch.setattr(causes.slurm, "job_history", refuse)
    assert ends_of([Attempt(1, time.time(), job="5", cluster="c")]) == []
    assert "did not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "job", "seconds"),
    [
        (signal.SIGTERM, "7", 5),  # half of a KillWait that is shorter than twice the margin
        (signal.SIGUSR2, "7", 105),
        (signal.SIGTERM, None, 45),
        (None, "7", 45),
    ],
)
def test_how_long_a_program_may_take_to_answer(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None, job: str | None, seconds: int
) -> None:
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("RELAY_SIGNAL_LEAD_S", "120")
    monkeypatch.setenv("RELAY_KILL_WAIT_S", "10")
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    else:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    stop = StopRequest()
    if number:
        stop._note(number, None)
    assert stop.seconds_left() == pytest.approx(seconds, abs=1)
