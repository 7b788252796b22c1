"""Executes a user's program: in a process of its own, which this one starts, watches and ends.

A signal of SLURM reaches this process, and sets a flag (hpc/recovery/diagnosis.py). This process then tells the program
to stop. A function sees that between two steps (relay/program/run.py), saves and ends; a command does what it does. One
that does not answer in time is killed: the run then goes on from its last saved state.

Two processes never execute one run: the program's holds the run lock as well, through the descriptor that it inherits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.node.child import Child, end_processes_with
from hpc.node.command_watch import CommandWatch
from hpc.node.function_watch import FunctionWatch
from relay.program.contract import Order
from relay.progress import Reporter, StopCheck
from relay.projects.cells import run_key
from relay.projects.parameters import link_relay, program_environment
from relay.projects.request import inputs_digest
from relay.runs.lifecycle import Outcome
from relay.runs.planned import check_as_planned, frozen_project
from relay.runs.rundir import RunDir

# In the environment of all that a program starts: its run.
RUN_VARIABLE = "RELAY_RUN"


def supervise(run: RunDir, should_stop: StopCheck, reporter: Reporter, seconds_left: Callable[[], float]) -> Outcome:
    """Execute the program of a run until it is done, or its state is saved after `should_stop` returned true.

    `seconds_left`: after a stop, how long the program may take to answer. Raises AttemptError with the cause if the
    program ended otherwise, RunError if its project or config.yaml was changed, DataError if its inputs were.
    """
    config = run.config()
    order = _order(run, config)
    # Absolute: the program's current folder is another one.
    order_file = run.path.absolute() / "order.json"
    order.write(order_file)
    owner = run.owner
    locks = [owner.lock] if owner and owner.lock is not None else []
    relay_folder = link_relay(run.path.absolute() / ".relay")
    environment = {**_environment(relay_folder), RUN_VARIABLE: str(run.path.absolute())}
    # This process has the run lock: what is left of the attempt before has lost it, or never had it.
    end_processes_with(RUN_VARIABLE, str(run.path.absolute()))
    if order.function:
        function = FunctionWatch(run, order, should_stop, reporter, seconds_left)
        words = [*config["program"]["python"], "-m", "relay.program.call", str(order_file)]
        with Child(words, Path(order.work), environment, locks) as child:
            return function.until_end(child)
    with CommandWatch(run, config, order, should_stop, reporter, seconds_left) as command:
        variables = {**environment, **command.variables(order_file, relay_folder)}
        ignores = not command.is_told_by_the_warning
        words, key = command.words, "program.command"
        with Child(words, Path(order.work), variables, locks, key=key, ignores_warning=ignores) as child:
            return command.until_end(child)


def _order(run: RunDir, config: Mapping[str, Any]) -> Order:
    """What the program of this attempt is told, once its project, inputs and current folder are there as planned."""
    program, select, every = config["program"], config["metrics"]["select"], config["checkpoint"]
    key = run_key(program, config["params"])
    inputs = config["inputs"]
    digest = "" if inputs is None else inputs_digest({name: Path(path) for name, path in inputs.items()})
    check_as_planned(run, key, digest, "its inputs")
    project = frozen_project(run)
    make_work_folder(run.work.absolute(), project, config["project"]["writes"])
    run.checkpoints.mkdir(exist_ok=True)
    return Order(
        function=program["function"] or "",
        params=config["params"],
        label=run.label,
        key=key,
        attempt=len(run.attempts()),
        token=run.owner.token if run.owner else "",
        root=program["project"],
        folder=str(project),
        work=str(run.work.absolute()),
        reports=str(run.reports_file.absolute()),
        # The rows of a command's run are made by its supervisor.
        metrics=str((run.metrics_file if program["function"] else run.logged_file).absolute()),
        checkpoints=str(run.checkpoints.absolute()),
        best=str(run.best_file.absolute()),
        owner=str(run.owner_file.absolute()),
        select=select["name"],
        direction=select["direction"],
        every_steps=every["every_steps"],
        every_minutes=every["every_minutes"],
        keep=every["keep"],
        deterministic=program["deterministic"],
    )


def _environment(relay_folder: Path) -> dict[str, str]:
    """That of the program, with what makes it deterministic."""
    return {
        **program_environment(relay_folder),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    }


def make_work_folder(work: Path, project: Path, writes: Sequence[str]) -> None:
    """Link each entry of the frozen `project` into the folder `work`; what the program has written there stays.

    Folders named in `writes`, those that they lie in, and those of the project that hold nothing but hidden files, are
    real ones. Links to other versions of the project are replaced, or removed with their file.
    """
    _fill(work, project, [Path(name).parts for name in writes], project.parent)


def _fill(folder: Path, source: Path | None, writes: Sequence[Sequence[str]], projects: Path) -> None:
    """`source`: None for a folder to write to, in which nothing of the project is."""
    folder.mkdir(exist_ok=True)
    entries = {entry.name: entry for entry in source.iterdir()} if source and source.is_dir() else {}
    for link in folder.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(projects) and link.readlink() != entries.get(link.name):
            link.unlink()
    below: dict[str, list[Sequence[str]]] = {}
    for first, *rest in writes:
        below.setdefault(first, []).append(rest)
    for name in sorted(entries.keys() | below.keys()):
        target, entry = folder / name, entries.get(name)
        if name in below:
            _fill(target, entry if all(below[name]) else None, [rest for rest in below[name] if rest], projects)
        elif entry is not None and _is_empty(entry):
            target.mkdir(exist_ok=True)
        elif entry is not None and not target.exists() and not target.is_symlink():
            target.symlink_to(entry)


def _is_empty(folder: Path) -> bool:
    """Whether it is a folder that holds nothing but hidden files."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return all(path.name.startswith(".") for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
