"""The trials of `verify`: the same run undisturbed, stopped, and killed, each attempt in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.errors import RunError
from relay.files import read_lines
from relay.program.trace import Moment
from relay.runs.code_snapshot import PROJECT_ROOT
from relay.runs.rundir import RunDir

TRIALS = ("straight", "again", "stopped", "killed")
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Trace:
    """What was seen of one attempt, which began at `first_step`. `objects`: step -> name -> digest, of the state after
    so many steps, in the order of the steps.
    """

    first_step: int
    objects: Mapping[int, Mapping[str, str]]
    warnings: Sequence[str]


@dataclass(frozen=True)
class Trial:
    """What a run has left: a trace for each attempt, the logged values by step and name, the columns of its result."""

    traces: Sequence[Trace]
    rows: Mapping[int, Mapping[str, Sequence[Any]]]
    columns: Mapping[str, Any]

    @property
    def last_step(self) -> int:
        """The newest step that was seen, of a state; of a row where the states were not followed."""
        seen = {step for trace in self.traces for step in trace.objects}
        return max(seen if len(seen) > 1 else {*seen, *self.rows}, default=0)

    @property
    def warnings(self) -> list[str]:
        """What its program was warned of, each once."""
        return list(dict.fromkeys(text for trace in self.traces for text in trace.warnings))


def run_command_trial(run: RunDir, stops: Sequence[Moment] = (), kill: Moment | None = None) -> Trial:
    """Execute the run of a command to its end, stopped at these moments, or killed once.

    Raises RunError with the last lines of its output if an attempt ends otherwise.
    """
    if kill:
        _attempt(run, _at("RELAY_KILL_AFTER", kill))
        _require(run, "KILLED", "DONE")
    for stop in stops:
        if not run.is_done():
            _attempt(run, _at("RELAY_UNTIL", stop))
            _require(run, "DONE", "INTERRUPTED")
    if not run.is_done():
        _attempt(run, {})
        _require(run, "DONE")
    return Trial([], _rows(run), {})


def _at(variable: str, moment: Moment) -> dict[str, str]:
    found = {variable: str(moment.step)} if moment.step != Moment().step else {}
    return {**found, **({f"{variable}_S": str(moment.seconds)} if moment.seconds != Moment().seconds else {})}


def run_trial(run: RunDir, until: int, stops: Sequence[int] = (), *, kill_after: int | None = None) -> Trial:
    """Execute `run` up to the step `until`, with a stop after each of `stops`, or with kill -9 after a step.

    Raises RunError with the last lines of its output if an attempt ends otherwise.
    """
    at = sorted({*stops, until})
    traces = []
    if kill_after is not None:
        traces.append(_traced(run, until, at, kill_after))
        # One in the process of the attempt leaves no end.
        _require(run, "KILLED", None)
    for step in at:
        traces.append(_traced(run, step, at))
        _require(run, "DONE", "INTERRUPTED")
        if run.is_done():
            break
    columns = (run.result() or {}).get("columns", {})
    return Trial(traces, _rows(run), {name: value for name, value in columns.items() if name not in _OF_THE_CLOCK})


# Columns and values that the clock decides.
_OF_THE_CLOCK = ("train_s", "images_per_s", "train/images_per_s")


def _rows(run: RunDir) -> dict[int, dict[str, list[Any]]]:
    """Step -> name -> the values that were logged for it."""
    rows: dict[int, dict[str, list[Any]]] = {}
    for row in run.metrics():
        values = rows.setdefault(row["step"], {})
        for name, value in row.items():
            if name not in ("step", "time", *_OF_THE_CLOCK):
                values.setdefault(name, []).append(value)
    return rows


def _attempt(run: RunDir, variables: Mapping[str, str]) -> None:
    """One attempt, in a process with these variables."""
    path = os.pathsep.join([str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "hpc.verify.attempt", str(run.path.absolute())]
    with _output_of(run).open("ab") as output:
        environment = {**os.environ, **variables, "PYTHONPATH": path}
        subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)


def _traced(run: RunDir, until: int, at: Iterable[int], kill_after: int | None = None) -> Trace:
    file = run.path / f"trace-{len(run.attempts()) + 1}.jsonl"
    variables = {
        "RELAY_UNTIL": str(until),
        "RELAY_TRACE": str(file.absolute()),
        "RELAY_TRACE_AT": ",".join(map(str, at)),
        "RELAY_KILL_AFTER": "" if kill_after is None else str(kill_after),
    }
    _attempt(run, variables)
    lines, attempts = read_lines(file), run.attempts()
    return Trace(
        (attempts[-1].first_step if attempts else None) or 0,
        {line["step"]: line["objects"] for line in lines if "step" in line},
        [line["warning"] for line in lines if "warning" in line],
    )


def _require(run: RunDir, *causes: str | None) -> None:
    """Raise RunError if the last attempt has ended with another cause."""
    attempts = run.attempts()
    if not attempts or attempts[-1].cause not in causes:
        lines = _output_of(run).read_text(errors="replace").strip().splitlines()
        said = (attempts[-1].error if attempts else None) or " / ".join(lines[-_LINES_SHOWN:])
        raise RunError(f"verify: {run.name}: {said}; its output is in {_output_of(run)}")


def _output_of(run: RunDir) -> Path:
    return run.path / "output.txt"


def at_once(run: Callable[[str], Trial], names: Sequence[str]) -> list[Trial]:
    """Two trials beside each other; one after the other on a GPU, which may have no room for two."""
    with ThreadPoolExecutor(1 if Path("/dev/nvidia0").exists() else 2) as pool:
        futures: list[Future[Any]] = [pool.submit(run, name) for name in names]
        return [future.result() for future in futures]
