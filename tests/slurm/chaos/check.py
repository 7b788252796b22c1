"""What must hold at the end of a campaign, whatever faults were injected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from relay.files import read_lines
from relay.runs.attempt import Attempt
from relay.runs.causes import REQUEUED_AFTER, why_blocked
from relay.runs.rundir import RunDir
from relay.runs.sweeps import sweeps
from tests.conftest import assert_same_run
from tests.slurm.chaos.faults import FREEZE, KINDS, Injection
from tests.slurm.chaos.site import Site

# While one of these lasts, a launch may be refused.
REFUSALS = frozenset({"slurmctld away", "full disk", "images changed", "code removed"})


def find_problems(site: Site, injections: Sequence[Injection]) -> list[str]:
    """One line for each thing that is wrong, in all rounds."""
    straight = {sweep.meta()["tag"]: sweep for sweep in sweeps(site.folder / "reference")}
    return [
        f"{run.label}: {problem}"
        for sweep in site.sweeps()
        for run in sweep.runs()
        for problem in _check_run(run, straight[sweep.meta()["tag"]].run(run.name), injections)
    ]


def _check_run(run: RunDir, reference: RunDir, injections: Sequence[Injection]) -> Iterator[str]:
    if run.result() is None:
        yield "it is not done"
        return
    attempts = run.attempts()
    done = sum(attempt.cause == "DONE" for attempt in attempts)
    if done != 1:
        yield f"{done} attempts are DONE"
    yield from _check_metrics(run)
    yield from _check_overlaps(attempts)
    for position, attempt in enumerate(attempts):
        yield from _check_cause(run, attempts, position, attempt, injections)
    try:
        assert_same_run(reference, run)
    except AssertionError as error:
        yield f"it differs from the undisturbed run: {error}"


def _check_metrics(run: RunDir) -> Iterator[str]:
    logged = Counter(
        (row["step"], name)
        for row in read_lines(run.metrics_file)
        for name in row
        if name not in ("step", "epoch", "time")
    )
    twice = [key for key, count in logged.items() if count > 1]
    if twice:
        yield f"logged more than once: {twice[:5]}"


def _check_overlaps(attempts: Sequence[Attempt]) -> Iterator[str]:
    for before, after in pairwise(attempts):
        if before.end is None:
            yield f"attempt {before.number} was never closed"
        elif after.start < before.end - 0.01:
            yield f"attempts {before.number} and {after.number} overlap: {before} {after}"


def _check_cause(
    run: RunDir, attempts: Sequence[Attempt], position: int, attempt: Attempt, injections: Sequence[Injection]
) -> Iterator[str]:
    cause = attempt.cause
    if cause == "DONE" or not attempt.ended:
        return
    after = attempts[position + 1] if position + 1 < len(attempts) else None
    touching = _possible_faults(run, attempt, after, injections)
    kinds = [KINDS[injection.kind] for injection in touching]
    causes = frozenset().union(*(kind.causes for kind in kinds))
    allowed = causes | frozenset().union(*(kind.unclear_causes for kind in kinds)) if causes else causes
    if cause not in allowed:
        faults = ", ".join(injection.kind for injection in touching) or "nothing"
        yield f"attempt {attempt.number} ended in {cause} after {faults}: {attempt}"
    if after and after.job != attempt.job and cause in REQUEUED_AFTER:
        others = [
            injection
            for injection in injections
            if injection.touches(run.name, attempt.end, after.start)
            and (KINDS[injection.kind].takes_task or not _may_end_in(injection, cause))
        ]
        if not others and why_blocked(attempts[: position + 1]) is None:
            yield f"attempt {attempt.number} ended in {cause}, and its task {attempt.job} did not come back"


def _possible_faults(
    run: RunDir, attempt: Attempt, after: Attempt | None, injections: Sequence[Injection]
) -> list[Injection]:
    """Faults that may have ended this attempt. Without an end record it may have ended long after its last sign."""
    no_end_record = attempt.reached_step is not None
    latest = after.start if after and no_end_record else attempt.end + 1
    last_moments = [_until_thawed(injection, run, injections) for injection in injections]
    return [
        injection
        for injection, over in zip(injections, last_moments, strict=True)
        if injection.touches(run.name, attempt.end - 1, latest, over) and over >= attempt.start
    ]


def _until_thawed(injection: Injection, run: RunDir, injections: Sequence[Injection]) -> float:
    """The time after which the fault cannot end an attempt at `run` any more: a frozen process sees it once it thaws.

    A task that is requeued while its node is frozen ends when the node comes back, and then SLURM says REQUEUED.
    """
    frozen = [each for each in injections if each.kind == FREEZE]
    meanwhile = [each for each in frozen if each.touches(run.name, injection.began, injection.over)]
    return max([injection.over, *(each.over for each in meanwhile)])


def _may_end_in(injection: Injection, cause: Any) -> bool:
    return cause in KINDS[injection.kind].causes


def count_ends_by_kind(site: Site, injections: Sequence[Injection]) -> dict[str, int]:
    """How many attempts ended by each kind of fault. If several are possible, the newest one counts."""
    counted: Counter[str] = Counter()
    for sweep in site.sweeps():
        for run in sweep.runs():
            attempts = run.attempts()
            for attempt, after in zip(attempts, [*attempts[1:], None], strict=False):
                if attempt.cause == "DONE" or not attempt.ended:
                    continue
                touching = _possible_faults(run, attempt, after, injections)
                by = [i for i in touching if _may_end_in(i, attempt.cause)] or [
                    i for i in touching if KINDS[i.kind].causes
                ]
                counted.update([max(by, key=lambda i: i.began).kind] if by else [])
    return dict(counted)
