"""The configuration of a program's experiment: relay.yaml."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from relay.config import yaml_file
from relay.config.messages import describe
from relay.config.overrides import parse_override, set_key
from relay.config.sections import Checkpoint, Paths, ProjectFolder, Section, Select, Tag, absolute_below, as_tuples
from relay.errors import ConfigError
from relay.scripts.checkpoints import check_pattern


class Project(ProjectFolder):
    """The user's folder that is frozen with a sweep."""

    writes: tuple[str, ...] = ()
    """Folders of the project that runs write to. Each run has its own, empty at first."""


def _as_list(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


class Restart(Section):
    """How a command resumes: from its newest complete checkpoint, by the last number in its name."""

    checkpoint: Annotated[str, Field(min_length=1)]
    """A pattern of the script's checkpoints: files or folders below the run's own folder."""
    complete: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """Names of files that a complete checkpoint holds or, with ! in front, does not hold."""
    add: str = ""
    """Words that are added to the command when it resumes. `{checkpoint}` is the newest complete checkpoint."""


class Stop(Section):
    """What tells a command to save and end."""

    signal: Literal["TERM", "INT", "HUP", "USR1", "USR2"] | None = None
    """The signal that tells the command to save and end. TERM, unless there is a `file`."""
    file: Annotated[str, Field(min_length=1)] | None = None
    """A file that is made in the run's folder instead of a signal."""


class Read(Section):
    """Where a command logs its metrics."""

    model_config = ConfigDict(serialize_by_alias=True)

    read: Literal["auto", "hf", "csv", "jsonl", "tensorboard"] = "auto"
    """The kind of files that the command logs to. `auto`: the first kind that is found."""
    folder: Annotated[str, Field(min_length=1)] = Field(default=".", alias="from")
    """The file or folder with the metrics, below the run's own folder."""


class Program(Section):
    """What a run executes: a function or a command. `restart`, `stop` and `metrics` are of a command."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    """The function to execute, as module:name from the project's folder. Either this or `command`."""
    command: Annotated[str, Field(min_length=1)] | None = None
    """The command to execute, without a shell: see relay/scripts/template.py. Either this or `function`."""
    python: str | None = None
    """The Python of the program: a path from the project's folder, or a command that ends in a Python. Null: Relay's
    own.
    """
    deterministic: bool = True
    """Select kernels that give equal results for equal input."""
    cost_ignores: tuple[str, ...] = ("lr", "weight_decay", "seed")
    """The parameters that do not change how long a run takes."""
    name: str | None = None
    """Tells experiments apart whose results go to one folder outside of their projects."""
    restart: Restart | None = None
    """How a command resumes."""
    stop: Stop | None = None
    """How a command is told to save and end."""
    metrics: Read | None = None
    """Where a command logs its metrics."""

    @property
    def what(self) -> str:
        """The function or the command."""
        return self.function or self.command or ""


class ProgramSelect(Select):
    """The logged metric that selects the best row of a run and the best cell, and which way is better."""

    name: Annotated[str, Field(min_length=1)]
    """The logged metric that selects the best row of a run and the best cell."""

    @property
    def column(self) -> str:
        """The column of the table: the name under which it was logged."""
        return self.name


class Metrics(Section):
    """What is selected by."""

    select: ProgramSelect
    """What selects the best row of a run and the best cell."""


class Hparams(Section):
    """The grid: the name of each parameter with a list of values. The first one varies slowest."""

    # Any other key is a parameter of the program.
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    tag: Tag = "grid"
    """The name of the sweep's folder."""

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Parameter -> its values, in the order of the file."""
        return dict(self.model_extra or {})


class Compare(Section):
    """Variants of the base run by name: parameters with other values."""

    variants: dict[Tag, Annotated[dict[str, Any], Field(min_length=1)]] = Field(default_factory=dict)
    """The variants of the base run: a name, and the parameters that it changes."""
    tag: Tag = "compare"
    """The name of the sweep's folder."""


class Verify(Section):
    """What `verify` tries."""

    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the run that `verify` tries, in place of its own."""
    compare: tuple[str, ...] = ()
    """Files in the run's folder that must be equal at its end."""


class ProgramConfig(Section):
    """One experiment of a program."""

    project: Project = Project()
    program: Program
    params: dict[str, Any] = Field(default_factory=dict)
    """The parameters of every run, by name."""
    inputs: tuple[str, ...] | None = None
    """All files that runs read besides the frozen ones. They are checked before every attempt. Null: not known."""
    metrics: Metrics
    checkpoint: Checkpoint = Checkpoint()
    hparams: Hparams = Hparams()
    compare: Compare = Compare()
    verify: Verify = Verify()
    paths: Paths = Paths()

    def to_dict(self) -> dict[str, Any]:
        """Plain values (lists, not tuples), as YAML and JSON hold them."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain


def load_program(file: str, overrides: Iterable[str] = ()) -> ProgramConfig:
    """Read a configuration and apply `overrides` such as "params.lr=3e-4". Raises ConfigError."""
    content = yaml_file.read_mapping(Path(file))
    for path, value in map(parse_override, overrides):
        set_key(content, path, value)
    return make_program(content, file)


def make_program(content: Mapping[str, Any], source: str) -> ProgramConfig:
    """Validate plain values. Raises ConfigError, whose message begins with `source` and lists every problem."""
    given = {name: section for name, section in content.items() if section is not None}
    # Tuples of the schema are lists in YAML; those among parameters stay lists.
    values = {name: section if name == "params" else as_tuples(section) for name, section in given.items()}
    if isinstance(given.get("verify"), Mapping) and "params" in given["verify"]:
        values["verify"] = {**values["verify"], "params": given["verify"]["params"]}
    try:
        config = ProgramConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, ProgramConfig, source)) from None
    problems = _problems_of_program(config.program)
    problems += [
        f"hparams.{name}: {json.dumps(values)} is no list of values; give a list, or params.{name} for one value"
        for name, values in config.hparams.axes.items()
        if not isinstance(values, tuple) or not values
    ]
    axes = [*config.hparams.axes, *(name for values in config.compare.variants.values() for name in values)]
    problems += [
        f"{name!r}: is no name of a parameter that can be varied; use letters, digits and _"
        for name in dict.fromkeys(axes)
        if not re.fullmatch(r"\w+", name)
    ]
    if "base" in config.compare.variants:
        problems.append("compare.variants.base: is the name of the base; choose another one")
    both = [
        f"hparams.{name}: is given in params, too; keep one of them"
        for name in config.hparams.axes
        if name in config.params
    ]
    problems += [
        f"verify.compare: {pattern}: is no pattern of files below the run's folder"
        for pattern in config.verify.compare
        if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts or check_pattern(pattern)
    ]
    if problems or both:
        raise ConfigError("\n".join([f"{source}:", *(f"  {line}" for line in (*problems, *both))]))
    return config


def _problems_of_program(program: Program) -> list[str]:
    if bool(program.function) == bool(program.command):
        have = "both a function and" if program.function else "neither a function nor"
        return [f"program: has {have} a command; give one: function: module:name, or command: python train.py"]
    if program.function:
        own = ("restart", "stop", "metrics")
        return [
            f"program.{name}: is of a command; a function is told by its run" for name in own if getattr(program, name)
        ]
    problems = []
    places = {"restart.checkpoint": program.restart.checkpoint} if program.restart else {}
    places |= {"stop.file": program.stop.file} if program.stop and program.stop.file else {}
    places |= {"metrics.from": program.metrics.folder} if program.metrics else {}
    if program.restart and (reason := check_pattern(program.restart.checkpoint)):
        problems.append(f"program.restart.checkpoint: {program.restart.checkpoint}: is no pattern of files: {reason}")
    if program.stop and program.stop.signal and program.stop.file:
        problems.append("program.stop: has both a signal and a file; keep one of them: a command is told once")
    for key, place in places.items():
        path = PurePosixPath(place)
        if path.is_absolute() or ".." in path.parts:
            problems.append(
                f"program.{key}: {place}: give a path below the current folder of the run, which is its own"
            )
    return problems


def project_root(config: ProgramConfig, file: str) -> Path:
    """The absolute folder of the project of the configuration in `file`."""
    return absolute_below(Path(file).absolute().parent, config.project.path)


def python_of(config: ProgramConfig, root: Path) -> list[str]:
    """The command that is Python for the program."""
    if config.program.python is None:
        return [sys.executable]
    try:
        words = shlex.split(config.program.python)
    except ValueError as error:
        raise ConfigError(f"program.python: {config.program.python}: {error}; quote it as for a shell") from None
    if not words:
        raise ConfigError("program.python: is empty; give the path of a Python, or leave it out")
    # Not resolved: a virtual environment's Python is a link to another one.
    first, *rest = words
    # Behind `env`, say, words with a slash may be anything.
    rest = [str(root / word) if "/" in word and (root / word).exists() else word for word in rest]
    return [str(root / first) if "/" in first else first, *rest]
