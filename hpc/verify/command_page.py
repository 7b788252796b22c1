"""`verify` for a command, which Relay cannot look into: its metrics by step, and the files that it has written."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc.submission.profile import Profile
from hpc.verify.comparing import unsteady_values
from hpc.verify.showing import CAUSES, in_the_time_of, print_line, where_it_holds
from hpc.verify.trials import Trial, at_once, run_command_trial
from relay.errors import RunError
from relay.program.trace import Moment
from relay.runs.rundir import RunDir
from relay.text import counted, shortlist

_STOPS = 2
# Rows that were seen later are of the end of the command.
_LATEST = 0.85
# An attempt that took that much of the time of an undisturbed one has made all of it.
_WHOLE = 0.95


def is_command(run: RunDir) -> bool:
    """Whether a run executes a command."""
    return bool((run.config().get("program") or {}).get("command"))


@dataclass(frozen=True)
class _Other:
    """How the trial of `run` differs from the undisturbed one. `starts_over`: its command began again from nothing."""

    starts_over: bool
    difference: str

    def __str__(self) -> str:
        if self.starts_over:
            return "starts over"
        return f"resumes, but not exactly: {self.difference}" if self.difference else "equal bit for bit"


def show_command(runs: Mapping[str, RunDir], seed: int, select: str, profile: Profile) -> int:
    """Make the trials of a command, and print the page. Returns the exit code: 0 only if all is equal.

    Raises RunError if it cannot be told.
    """
    straight, again = at_once(lambda name: run_command_trial(runs[name]), ("straight", "again"))
    print(_title(runs["straight"], straight), flush=True)
    if not (straight.rows or _files(runs["straight"])):
        raise RunError(
            "verify: the command has logged no metrics that Relay finds (program.metrics), and verify.compare names no "
            "files: there is nothing to compare"
        )
    ignored = [name.removeprefix("the logged ") for name in unsteady_values(straight, again, select)]
    difference = _difference(runs["straight"], straight, runs["again"], again, ignored)
    print_line(
        "twice without a stop", f"differ: {difference}" if difference else _equal(runs["straight"], straight, ignored)
    )
    if difference:
        print(f"not deterministic by itself: {difference}; of resuming, nothing can be said; {CAUSES}")
        return 1
    stops, kill = _moments(runs["straight"], seed)
    trials = {
        "stopped": lambda: run_command_trial(runs["stopped"], stops),
        "killed": lambda: run_command_trial(runs["killed"], kill=kill),
    }
    found = dict(zip(trials, at_once(lambda name: trials[name](), tuple(trials)), strict=True))
    others = {}
    for name, trial in found.items():
        attempts = runs[name].attempts()
        if len(attempts) == 1:
            raise RunError(
                f"verify: the command had ended before it was {name}; give it more to do, with verify.params"
            )
        others[name] = _Other(
            # Where nothing was saved yet, to begin again is right.
            any(before.last_step and not after.first_step for before, after in itertools.pairwise(attempts))
            # One that logs nothing before its end is told by the time that its last attempt took.
            or (
                stops[0].step == Moment().step
                and attempts[-1].seconds > _WHOLE * runs["straight"].attempts()[0].seconds
            ),
            _difference(runs["straight"], straight, runs[name], trial, ignored),
        )
        print_line(f"{name} {_when(stops if name == 'stopped' else [kill])}", str(others[name]))
    print(f"  {_answers(runs['stopped'], profile)}")
    if ignored:
        print(f"  {shortlist(ignored)}: differ without a stop, and are not compared")
    wrong = next((other for other in others.values() if other.starts_over), None)
    wrong = wrong or next((other for other in others.values() if other.difference), None)
    if wrong:
        what = "what was interrupted is made again from its beginning" if wrong.starts_over else ""
        print(f"{wrong}{f': {what}' if what else ''}")
        return 1
    print(f"exact: this command may be interrupted anywhere; {where_it_holds(runs['straight'])}")
    return 0


def _title(run: RunDir, trial: Trial) -> str:
    config = run.config()
    shown = "".join(f" {name}={value}" for name, value in config["params"].items())
    return f"{config['program']['command']}, {counted(trial.last_step, 'step')}{',' if shown else ''}{shown}"


def _moments(run: RunDir, seed: int) -> tuple[list[Moment], Moment]:
    """When to stop, and when to kill: after steps that were logged while the command ran, or else after seconds."""
    (attempt,) = run.attempts()
    seen = {row["step"]: row["time"] - attempt.start for row in run.metrics()}
    steps = sorted(step for step, when in seen.items() if when < _LATEST * attempt.seconds)
    rng = random.Random(seed)
    if len(steps) > _STOPS:
        # Later ones to kill at, because a checkpoint must be there.
        kill = rng.choice(steps[len(steps) // 2 :])
        return [Moment(step) for step in sorted(rng.sample(steps[1:], _STOPS))], Moment(kill)
    parts = sorted(rng.uniform(0.3, 0.6) for _ in range(_STOPS))
    # Each attempt begins its own time.
    seconds = [round(attempt.seconds * part, 1) for part in parts]
    return [Moment(seconds=each) for each in seconds[:1]], Moment(seconds=seconds[1])


def _when(moments: Sequence[Moment]) -> str:
    if moments[0].seconds != Moment().seconds:
        return f"after {', '.join(f'{each.seconds:g}' for each in moments)} s"
    return (
        f"at steps {', '.join(str(each.step) for each in moments)}"
        if len(moments) > 1
        else f"at step {moments[0].step}"
    )


def _difference(one: RunDir, expected: Trial, other: RunDir, found: Trial, ignored: Sequence[str]) -> str:
    """The first value that differs, with its step; or the first file; "" if all are equal."""
    for step in sorted({*expected.rows, *found.rows}):
        before, after = expected.rows.get(step, {}), found.rows.get(step, {})
        for name in {**before, **after}:
            if name not in ignored and repr(before.get(name)) != repr(after.get(name)):
                return f"{name} {_shown(after, name)} against {_shown(before, name)} from step {step}"
    files, theirs = _files(one), _files(other)
    name = next((name for name in {**files, **theirs} if files.get(name) != theirs.get(name)), "")
    return f"{name} differs" if name else ""


def _shown(row: Mapping[str, Sequence[float]], name: str) -> str:
    return " and ".join(f"{value:.8g}" for value in row[name]) if name in row else "none"


def _files(run: RunDir) -> dict[str, str]:
    """The digests of the files of `verify.compare`."""
    found: dict[str, str] = {}
    for pattern in run.config()["verify"]["compare"]:
        paths = [path for path in sorted(run.work.glob(pattern)) if path.is_file()]
        if not paths:
            raise RunError(f"verify.compare: {pattern}: the command has written no such file in {run.work}")
        found |= {str(path.relative_to(run.work)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return found


def _equal(run: RunDir, trial: Trial, ignored: Sequence[str]) -> str:
    names = dict.fromkeys(name for row in trial.rows.values() for name in row if name not in ignored)
    return f"equal: {', '.join([counted(len(trial.rows), 'row'), *names, *_files(run)])}"


def _answers(run: RunDir, profile: Profile) -> str:
    """How long the command takes to end once it is told."""
    took = [attempt.save_s for attempt in run.attempts() if attempt.save_s is not None]
    if not took:
        return "a stop is not answered: it is killed, and goes on from its newest checkpoint"
    words = {"in_time": "in time", "too_late": "too late: raise signal_lead_s"}
    return in_the_time_of(profile, f"a stop was answered after {max(took):.2f} s", max(took), **words)
