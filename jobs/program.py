"""`program`: a user's own function, which `train`, `grid` and `compare` request if the configuration has `program`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jobs.images import check_unfinished
from relay.errors import ConfigError
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request
from relay.work import Work

if TYPE_CHECKING:
    from relay.config.sections import Paths
    from relay.results.answer import Answer

# relay/config as well: it reads the configurations.
DECIDING = ("relay/program/", "relay/config/", "relay/projects/")
# Options of train and grid that only experiments on images have, by the names of their parameters.
_ONLY_IMAGES = {
    "overfit_small": "--overfit-small",
    "max_epochs": "--max-epochs",
    "max_steps": "--max-steps",
    "replace_best": "--replace-best",
    "refined": "--refined",
}


def request_of_program(config: str, set_: Sequence[str], command: str, **options: Any) -> Request:
    """What `train`, `grid` or `compare` requests for the program of a configuration, with its own options.

    Raises ConfigError for an option that only experiments on images have.
    """
    from relay.projects import request
    from relay.projects.best import best_params
    from relay.projects.config import load_program

    for name, value in options.items():
        if name in _ONLY_IMAGES and value:
            raise ConfigError(f"{_ONLY_IMAGES[name]}: only for experiments on images, and {config} has a program")
    loaded = load_program(config, set_)
    check_unfinished("--best", given=options.get("best", False), unfinished=options.get("unfinished", False))
    if command == "grid":
        return request.grid_request(loaded, config)
    if command == "compare":
        return request.compare_request(loaded, config)
    params = best_params(loaded, unfinished=options.get("unfinished", False)) if options.get("best") else {}
    if options.get("seed") is not None:
        params = {**params, "seed": options["seed"]}
    return request.train_request(loaded, config, params)


def usual_request_of_program(config: str, set_: Sequence[str]) -> Request:
    """The grid, or the run if there is no axis to search."""
    from relay.projects import request
    from relay.projects.config import load_program

    loaded = load_program(config, set_)
    make: Callable[..., Request] = request.grid_request if loaded.hparams.axes else request.train_request
    return make(loaded, config)


def verify_request_of_program(config: str, set_: Sequence[str]) -> tuple[Request, int]:
    """The first run, with the parameters of `verify.params`, and how many of its steps are made: 60 of a function, and
    all of a command (0).
    """
    from relay.projects import request
    from relay.projects.config import load_program

    loaded = load_program(config, set_)
    return request.verify_request(loaded, config), 0 if loaded.program.command else 60


def preload() -> None:
    """Nothing: the program imports what it needs, in its own process."""


def show(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """Nothing besides the table."""


PROGRAM = Work("program", "A program of the user.", None, None, preload, show, DECIDING, reuses=True)
