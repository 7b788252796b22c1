"""A work that counts: the smallest one that the engine can run. It saves each number and resumes after the last one.

Its YAML: `counts`, a list of numbers, one run for each; `tick_s`, seconds per number; `memory_ends_at`, a number at
which a run finds no memory. It imports nothing of the image experiment.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from relay.cli import overrides_of
from relay.config import yaml_file
from relay.config.overrides import parse_override, set_key
from relay.config.paths import paths_of
from relay.config.sections import Paths, Select
from relay.files import append_lines, replace_file
from relay.program.states import list_states, state_name
from relay.progress import Reporter, StopCheck
from relay.results.answer import Answer
from relay.runs.cells import Cell
from relay.runs.lifecycle import Outcome, note_first_step, note_steps
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request
from relay.work import Work


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def request(
    config: str,
    set_: Sequence[str],
    *,
    twice: Annotated[bool, typer.Option("--twice", help="Count to twice each number.")] = False,
) -> Request:
    content = yaml_file.read_mapping(Path(config))
    for path, value in map(parse_override, overrides_of(set_)):
        set_key(content, path, value)
    cells = []
    for index, count in enumerate(content["counts"]):
        own = {"to": 2 * count if twice else count, **{key: content[key] for key in ("tick_s", "memory_ends_at")}}
        text = yaml_file.dump_yaml({**own, "paths": content["paths"]})
        cells.append(Cell(index, f"to={own['to']}", {"count.to": own["to"]}, text, _digest(own), "counting", own["to"]))
    select, paths = Select(name="count", direction="max"), paths_of(content, config)
    return Request("count", "count", cells, paths, {"paths": content["paths"]}, select, axis_names={"count.to": "to"})


def execute(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    config, states = run.config(), list_states(run.checkpoints)
    first, total = (json.loads(states[0].read_text())["count"] if states else 0), config["to"]
    run.checkpoints.mkdir(exist_ok=True)
    if run.metrics_file.exists():
        # A row may have been written whose state was not.
        rows = "".join(f"{json.dumps(row)}\n" for row in run.metrics()[:first])
        replace_file(run.metrics_file, rows, check=run.check_owner)
    note_steps(run, first, total, [])
    for count in range(first, total):
        if should_stop():
            return Outcome("stopped", first, count, total)
        if count == config["memory_ends_at"]:
            raise MemoryError
        time.sleep(config["tick_s"])
        append_lines(run.metrics_file, [{"step": count + 1, "epoch": 1, "time": time.time()}], check=run.check_owner)
        state = json.dumps({"count": count + 1})
        path = run.checkpoints / state_name(count + 1, hashlib.sha256(state.encode()).hexdigest())
        replace_file(path, state, check=run.check_owner)
        if count == first:
            note_first_step(run)
        reporter.advance(count + 1, total, "counting")
    run.write_result({"outcome": "completed", "steps": total, "columns": {"val/count": total, "steps": total}})
    return Outcome("done", first, total, total)


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    print(f"counted: {', '.join(run.name for run in sweep.runs() if run.is_done())}")


COUNT = Work("count", "Count, one number after the other.", request, execute, lambda: None, show, ("toy/",))
