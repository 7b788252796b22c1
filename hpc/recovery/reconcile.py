"""What is to be done with each run of a sweep: from its directory, and from the tasks that the scheduler knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hpc.recovery.diagnosis import cause_of_loss, ends_of
from src import hints
from src.errors import RunError
from src.runs.attempts import close_lost, lost
from src.runs.causes import STOPPED_BY_USER, Verdict, damaged, verdict
from src.runs.rundir import RunDir, SweepDir

_SHOWN = 20


@dataclass
class Stock:
    """The runs of a sweep, each in one of six lists."""

    done: list[RunDir] = field(default_factory=list)
    flying: list[RunDir] = field(default_factory=list)
    elsewhere: list[RunDir] = field(default_factory=list)
    refused: dict[RunDir, Verdict] = field(default_factory=dict)
    cancelled: list[RunDir] = field(default_factory=list)
    missing: list[RunDir] = field(default_factory=list)

    def failed(self) -> list[RunDir]:
        """What `retry` means: runs that are refused, and those that something other than their user ended."""
        ended = [run for run in self.missing if run.attempts() and last_cause(run) not in STOPPED_BY_USER]
        return [*(run for run, found in self.refused.items() if not found.damaged), *ended]


def take_stock(sweep: SweepDir, queue: Collection[str]) -> Stock:
    """Sort the runs, after closing the attempts that left no word; one question to accounting where there are such.

    `done`; `flying`: it is in the `queue`, since a task of it waits, runs or ends; `elsewhere`: another process of this
    or another machine executes it; `refused`: it has used up what it is allowed, or its files are damaged; `cancelled`:
    by its user, whose own command alone submits it again; `missing`: to be submitted.
    """
    stock, open_runs = Stock(), []
    for run in sweep.runs():
        if run.is_done():
            stock.done.append(run)
        elif run.name in queue:
            stock.flying.append(run)
        elif message := run.damage():
            stock.refused[run] = damaged(message)
        elif run.claimed() and not _of_a_job(run):
            stock.elsewhere.append(run)
        else:
            open_runs.append(run)
    _close_all_lost(open_runs)
    for run in open_runs:
        refused = verdict(run.attempts())
        if refused:
            stock.refused[run] = refused
        elif run.cancelled():
            stock.cancelled.append(run)
        else:
            stock.missing.append(run)
    return stock


def _of_a_job(run: RunDir) -> bool:
    """A job that has left the queue: a task that is submitted waits for it, and breaks its lock if it is gone."""
    left = lost(run.attempts())
    return left is not None and bool(left.get("cluster"))


def _close_all_lost(runs: Collection[RunDir]) -> None:
    left = {run: attempt for run in runs if (attempt := lost(run.attempts()))}
    ends = ends_of(list(left.values())) if left else []
    for run in left:
        try:
            with run.claim():
                close_lost(run, lambda attempt: cause_of_loss(attempt, ends))
        except RunError:
            continue  # It was started in this moment, and closes what was before it.


def last_cause(run: RunDir) -> str | None:
    """The cause for which the run's newest attempt ended."""
    attempts = run.attempts()
    return str(attempts[-1]["cause"]) if attempts and "cause" in attempts[-1] else None


def give_budgets_back(runs: Collection[RunDir], now: float) -> None:
    """Let the runs be started again, whatever ended them before; `now` in seconds since 1970 is written down."""
    for run in runs:
        attempts = run.attempts()
        if attempts:
            with run.claim():
                run.record_attempt(int(attempts[-1]["attempt"]), retried=now)


def refusals_by_word(refused: Mapping[RunDir, Verdict]) -> str:
    """A line for every word: how many runs, one of them, its error, what to do; before it the damaged."""
    broken = [str(found) for found in refused.values() if found.damaged]
    lines = [*broken[:_SHOWN], *([f"and {len(broken) - _SHOWN} more like these"] if len(broken) > _SHOWN else [])]
    refused = {run: found for run, found in refused.items() if not found.damaged}
    for word in dict.fromkeys(str(found.word) for found in refused.values()):
        runs = [run for run, found in refused.items() if found.word == word]
        errors = [str(a["error"]) for run in runs for a in run.attempts()[-1:] if a.get("error")]
        reason = f": {errors[0]}" if errors else ""
        lines.append(f"{len(runs)} {word} ({runs[0].name}{', …' if len(runs) > 1 else ''}){reason}")
        retry = hints.command("hpc.launch", "retry", runs[0].sweep().name, "--failed")
        lines.append(f"  {refused[runs[0]].advice}, then: {retry}")
    return "\n".join(lines)
