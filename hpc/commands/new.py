"""`new`: a project that runs, to begin with, or the configuration of a script that is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.commands.flags import Flag, flags_of
from relay import hints
from relay.config import yaml_file
from relay.errors import ConfigError, RunError
from relay.log import log
from relay.projects.command import PYTHON
from relay.scripts.template import RESERVED, Template

_EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "char_lm"


def make_project(name: str) -> None:
    """Write a project into a new folder `name`, and print what to do with it. Raises RunError if there is one."""
    folder = Path(name)
    if not re.fullmatch(r"[\w.-]+", folder.name):
        raise RunError(f"new: {name}: give the name of a folder, of letters, digits, _, - and .")
    if folder.exists():
        raise RunError(f"new: {name}: exists already; choose another name")
    shutil.copytree(_EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "runs", "logs", "artifacts"))
    file = folder / "relay.yaml"
    file.write_text(re.sub(r"(?m)^(  name: )\w+", rf'\g<1>"{folder.name}"', file.read_text()))
    print(f"{folder}: a small language model, and relay.yaml with a grid of 27 runs")
    _print_next(folder)


def _print_next(folder: Path) -> None:
    commands = (["verify"], ["grid", "--cluster", "local"], ["status"], ["aggregate"])
    called = [hints.python("hpc.launch", *words) for words in commands]
    print(
        f"next: cd {shlex.quote(str(folder))}\n"
        f"      {called[0]:<40}# may it be interrupted?\n"
        f"      {called[1]:<40}# on this machine; --cluster NAME: on SLURM\n"
        f"      {called[2]:<40}# what runs, what is done\n"
        f"      {called[3]:<40}# the table again"
    )


def make_configuration(name: str, command: str) -> None:
    """Write relay.yaml for a command into the folder `name`: that of the project, or a new one below it.

    It has the parameters that the command's `--help` shows. Raises RunError or ConfigError.
    """
    here, folder = Path.cwd(), Path(name)
    file = folder / "relay.yaml"
    if file.exists():
        raise RunError(f"new: {file}: exists already; give another folder")
    template = Template.read(command, "--command")
    if not template.parts or template.names:
        raise ConfigError(f"--command: {command}: give the script with what never changes: python train.py")
    root = folder if folder.is_dir() else here
    python = _python_of(root)
    words = [python or sys.executable, *template.parts[1:]] if template.parts[0] == PYTHON else list(template.parts)
    try:
        flags = flags_of(words, root)
    except RunError as error:
        log.warning(f"{command}: its parameters are not known: {error}; write them into {file}")
        flags = []
    folder.mkdir(exist_ok=True)
    file.write_text(_configuration(command, flags, python, Path(os.path.relpath(root, folder))))
    taken = [flag.name for flag in flags if _is_parameter(flag) and flag.default is not None]
    print(f"{file}: {command}, with the parameters {', '.join(taken) or 'that you write into it'}")
    _print_next(folder)


def _python_of(root: Path) -> str | None:
    """What `python` means for the user: that of the active environment, or of the project; None: that of Relay."""
    environments = [os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"), str(root.absolute() / ".venv")]
    found = (Path(each) / "bin" / "python" for each in environments if each)
    python = next((each for each in found if each.exists()), None)
    return None if python is None or python == Path(sys.executable) else str(python)


# By their names, options that say where results go or what is resumed: those are no parameters of a grid.
_PLACES = re.compile(r"(^|_)(out|output|dir|path|root|logs|logdir|name|config|file|resume|checkpoint|ckpt)(_|$)")
_RESUME = re.compile(r"resume|restore|(^|_)(ckpt|checkpoint)(_path)?$|from_checkpoint")
_RATES = ("lr", "learning_rate")


def _is_parameter(flag: Flag) -> bool:
    return not _PLACES.search(flag.name) and flag.name not in RESERVED


def _configuration(command: str, flags: Sequence[Flag], python: str | None, root: Path) -> str:
    """The text of relay.yaml."""
    given = {flag.name: flag for flag in flags if _is_parameter(flag) and flag.default is not None}
    others = [f"--{flag.option}" for flag in flags if flag.name not in given]
    words = "".join(f" --{flag.option} {{{name}}}" for name, flag in given.items())
    rate = next((name for name in _RATES if isinstance(getattr(given.get(name), "default", None), float)), None)
    axes = {rate: [given[rate].default, float(f"{given[rate].default * 3:.6g}")]} if rate else {}
    axes |= {"seed": [0, 1, 2]} if "seed" in given else {}
    params = {name: flag.default for name, flag in given.items() if name not in axes}
    resume = next((flag.option for flag in flags if _RESUME.search(flag.name)), "resume")
    lines = [
        "# An existing script. All keys: docs/reference.md of Relay.",
        f"project: {_inline({'path': str(root)})}    # frozen with a sweep; links: [data] for what is only read",
        "program:",
        f"  command: {_inline(command.replace('{', '{{').replace('}', '}}') + words)}",
        *([f"  # not given: {', '.join(others)}"] if others else []),
        *([f"  python: {_inline(python)}"] if python else ["  # python: .venv/bin/python"]),
        "  # Without this, each attempt begins again, unless the script finds its checkpoint by itself:",
        f'  # restart: {{checkpoint: "checkpoints/step-*", add: "--{resume} {{checkpoint}}"}}',
        "  # stop: {signal: TERM}    # what tells it to save and end",
        "  metrics: {read: auto}     # JSON lines, CSV, TensorBoard or Hugging Face's, anywhere in its folder",
        "metrics:",
        "  select: {name: loss, direction: min}    # a name that it logs; ranks the runs",
        f"params: {_inline(params)}",
        "hparams:                    # the grid: a run for each combination",
        *(f"  {name}: {_inline(values)}" for name, values in axes.items()),
        *([] if axes else ["  # lr: [1e-3, 3e-3]        # and --lr {lr} in the command"]),
    ]
    return "\n".join(lines) + "\n"


def _inline(value: object) -> str:
    return yaml_file.dump_yaml(value, on_one_line=True)
