"""A kind of run, as one record. The engine calls what it holds, and imports no code of any kind of run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.config.sections import Paths
from relay.results.answer import Answer
from relay.runs.lifecycle import Execute
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request


@dataclass(frozen=True)
class Work:
    """A kind of run.

    `name`: as sweep.yaml has it; the command of the same name (with dashes) requests it. `summary`: what the command
    does, for its help.

    `request`: `request(config, set_, **options)` with the file of --config, the values of --set, and the command's own
    options, which are its keyword parameters, annotated as typer wants them. It returns the request; or, if nothing
    needs to be run, a function that prints the answer. It imports no torch. Raises RelayError. None: other commands
    request such runs, and there is no command of this name.

    `execute`: completes one run, or saves its state when it should stop. Its result.json has a key `columns`, the run's
    columns of the table. None: the run executes a program, in a process of its own (hpc/node/supervisor.py). `preload`:
    imports what `execute` needs, in a process that then forks for each run.

    `show`: writes and prints what a sweep has besides its table, from the runs that are done. The answer holds the
    table and the statements about it.

    `deciding`: how the paths of the code begin that can change results. The rest names, shows, submits and reports.

    `reuses`: whether a run takes the result of a finished run with the same key, instead of repeating it.
    """

    name: str
    summary: str
    request: Callable[..., Request | Callable[[], None]] | None
    execute: Execute | None
    preload: Callable[[], None]
    show: Callable[[SweepDir, Paths, Answer], None]
    deciding: tuple[str, ...]
    reuses: bool = False


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    `request`: from what was asked for (`Stages.ask`) and the sweeps of the stages before it, by name. Raises RunError
    if an earlier stage gave no usable result. `found`: the result of a finished stage, in a few words.
    """

    name: str
    request: Callable[[Mapping[str, Any], Mapping[str, SweepDir]], Request]
    found: Callable[[SweepDir], str]


@dataclass(frozen=True)
class Stages:
    """What a pipeline is to the engine: its stages in order, each planned from what those before it found.

    `ask`: `ask(config, set_, **options)`, as `Work.request`, returns what was asked for as plain values: `config`, the
    configuration, and `options`. `at_start`: the requests of the stages that can be planned before any result is there,
    to check and to forecast them. Raises RelayError.
    """

    summary: str
    stages: tuple[Stage, ...]
    ask: Callable[..., Mapping[str, Any]]
    at_start: Callable[[Mapping[str, Any]], Mapping[str, Request]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stages, in order."""
        return tuple(stage.name for stage in self.stages)

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)
