"""Asks the project's own Python what a program's parameters are, whether those of each cell fit, and what is installed.

In a process of its own, so that planning imports nothing of the project's and no torch.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import relay
from relay.ask import ask
from relay.errors import ConfigError

_TIMEOUT_S = 300


@dataclass(frozen=True)
class Description:
    """What the project's Python says: the parameters of each cell with the program's defaults, by the name of the cell,
    and the versions of all that is installed there.
    """

    parameters: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]


def describe_cells(
    python: Sequence[str], root: Path, function: str, cells: Mapping[str, Mapping[str, Any]]
) -> Description:
    """Ask the project's Python about cells, whose given parameters are by name.

    Raises ConfigError with the problems of all cells.
    """
    answer = _ask(python, root, function, list(cells.values()))
    if "problem" in answer:
        raise ConfigError(answer["problem"])
    problems: dict[str, str] = {}
    for name, checked in zip(cells, answer["cells"], strict=True):
        for problem in checked["problems"]:
            # Thousands of cells may share one: the first of them is named.
            problems.setdefault(problem, name)
    if problems:
        raise ConfigError(
            "\n".join(f"{problem} ({name})" if len(cells) > 1 else problem for problem, name in problems.items())
        )
    parameters = {name: checked["values"] for name, checked in zip(cells, answer["cells"], strict=True)}
    return Description(parameters, answer["versions"])


def versions_of(python: Sequence[str], root: Path) -> dict[str, str]:
    """The versions of all that is installed for a Python. Raises ConfigError if it does not say them."""
    found: dict[str, str] = _ask(python, root, "", [])["versions"]
    return found


def _ask(python: Sequence[str], root: Path, function: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    command = [*python, "-m", "relay.program.describe", str(root), function]
    with tempfile.TemporaryDirectory() as folder:
        environment = program_environment(link_relay(Path(folder) / "relay_api"))
        try:
            found, why = ask(command, cells, folder=root, environment=environment, timeout_s=_TIMEOUT_S)
        except OSError as error:
            raise ConfigError(f"program.python: {python[0]} cannot be executed: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            module = function.partition(":")[0]
            raise ConfigError(
                f"program.function: importing {module} takes more than {_TIMEOUT_S} s; move its work into the function"
            ) from None
    if found is None:
        what = f"program.function: {function}: {' '.join(python)} did not say its parameters"
        raise ConfigError(f"{what if function else f'program.python: {python[0]} did not answer'}: {why}")
    described: dict[str, Any] = found
    return described


def link_relay(folder: Path) -> Path:
    """Make `folder` one in which `import relay` finds the Relay of this process, and nothing else. Returns it."""
    folder.mkdir(exist_ok=True)
    link(folder / "relay", Path(relay.__file__).parent)
    return folder


def link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, whatever it was."""
    if not (path.is_symlink() and path.readlink() == target):
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def users_paths() -> list[str]:
    """The entries of PYTHONPATH that are the user's: without the code of this process and the checkout of bin/relay,
    which differ in a job.
    """
    ours = (str(Path(relay.__file__).parent.parent), os.environ.get("RELAY_HOME"), "")
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ours]


def program_environment(relay_folder: Path) -> dict[str, str]:
    """The environment of a program: the user's, without what Relay has set for itself, where `import relay` finds what
    `link_relay` has linked into `relay_folder`.
    """
    own = {"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONHOME"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    # Lightning requeues its job by itself if it finds that it is the task of one: not in a job of this name, and not
    # without a number of tasks (lightning.fabric.plugins.environments.slurm).
    if kept.pop("SLURM_NTASKS", None) or "SLURM_JOB_NAME" in kept:
        kept["SLURM_JOB_NAME"] = "bash"
    return {**kept, "PYTHONPATH": os.pathsep.join([str(relay_folder), *users_paths()])}
