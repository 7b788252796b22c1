"""The base of every section of a configuration or profile, and the sections that every experiment has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from relay.config.messages import describe
from relay.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A section of the configuration. Unknown keys are refused, values are not converted, and it is immutable."""

    # strict: without it, pydantic takes "yes" for true and "3" for 3, and a typo goes unnoticed.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def as_tuples(value: Any) -> Any:
    """The value with tuples for its lists: strict pydantic accepts no list for a tuple field, and YAML and JSON have no
    tuples.
    """
    if isinstance(value, Mapping):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def as_lists(value: Any) -> Any:
    """The value with lists for its tuples, as YAML and JSON write them."""
    if isinstance(value, Mapping):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _check_tag(tag: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,63}", tag):
        raise ValueError(
            "it names a folder: give 1 to 64 of the characters A-Z, a-z, 0-9 and . _ + = -, "
            "beginning with a letter, a digit or _"
        )
    return tag


Tag = Annotated[str, AfterValidator(_check_tag)]


class Select(Section):
    """The metric on val that selects the best epoch, the best cell and the best training, and which way is better."""

    name: str = "accuracy"
    """The metric that selects."""
    direction: Literal["max", "min"] = "max"
    """Which way is better."""

    @property
    def column(self) -> str:
        """The column of the table and the tag in TensorBoard: `val/accuracy`."""
        return f"val/{self.name}"

    def score(self, value: float) -> float:
        """`value` with the sign for which greater is better."""
        return value if self.direction == "max" else -value


def absolute_below(folder: Path, path: str) -> Path:
    """The absolute form of a `path` that starts at `folder`."""
    found = (folder / path).absolute()
    # Only for these: the path that the user knows need not exist on a node under its real name.
    return Path(os.path.realpath(found)) if ".." in found.parts else found


def select_of(config: Mapping[str, Any], source: str) -> Select:
    """`metrics.select` of a configuration given as plain values; nothing else of it is validated.

    Raises ConfigError, whose message begins with `source`.
    """
    try:
        return Select.model_validate((config.get("metrics") or {}).get("select") or {})
    except ValidationError as error:
        raise ConfigError(describe(error, Select, f"{source}, metrics.select")) from None


class Checkpoint(Section):
    """When the exact state is saved, apart from when the run is asked to stop."""

    every_steps: Count | None = None
    """Save the state after so many steps. Null: only by time."""
    every_minutes: Annotated[float, Field(gt=0)] | None = 5.0
    """Save the state after so many minutes, the first one of an attempt after 30 s. Null: only by steps."""
    # At least two: a run whose newest state turns out to be damaged resumes from the one before.
    keep: Annotated[int, Field(ge=2)] = 2
    """How many of the newest states remain."""
    replace_best: bool = False
    """The weights of a full training replace artifacts/best.ckpt even if they are worse."""


class ProjectFolder(Section):
    """The user's folder that is frozen with a sweep."""

    path: str = "."
    """The folder that is frozen, relative to the configuration file."""
    links: tuple[str, ...] = ()
    """Files and folders in it that runs read where they are, such as data. They are not frozen."""


class Paths(Section):
    """Where results go. Relative paths start at the folder in which the command is called."""

    runs_dir: str = "./runs"
    """The folder of sweeps and pipelines."""
    artifacts_dir: str = "./artifacts"
    """The folder of best.ckpt, figures and reports."""
    logs_dir: str = "./logs"
    """The folder of links to the jobs' output."""

    @property
    def runs(self) -> Path:
        """The folder of sweeps and pipelines."""
        return Path(self.runs_dir)

    @property
    def artifacts(self) -> Path:
        """The folder of best.ckpt, figures and reports."""
        return Path(self.artifacts_dir)

    @property
    def logs(self) -> Path:
        """The folder of links to the jobs' output."""
        return Path(self.logs_dir)
