"""The options of a script, from its `--help` and, for the defaults that this does not show, from its source."""

from __future__ import annotations

import ast
import contextlib
import itertools
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.config import yaml_file
from relay.errors import ConfigError, RunError

_HELP_TIMEOUT_S = 120
_LINES_SHOWN = 3
# `  -b N, --batch-size N   of one step (default: 32)`, as argparse, click and others print it.
_OPTION = re.compile(
    r"^ {1,10}(?:-\w(?: [^\s,]+)?, ?)?--([A-Za-z][\w.-]*)(?:[ =]([^\s,/].*?))?(?= {2}|,|$| / )", re.MULTILINE
)
_DEFAULT = re.compile(r"\(default(?:s to|:|=) *(.*?)\)(?:\s|$)|\[default(?:s to|:|=) *(.*?)\](?:\s|$|;)", re.IGNORECASE)


@dataclass(frozen=True)
class Flag:
    """An option that takes a value. `default`: None if it is not known."""

    option: str
    default: Any = None

    @property
    def name(self) -> str:
        """As a parameter: `batch_size` of `--batch-size`."""
        return re.sub(r"\W", "_", self.option)


def flags_of(words: Sequence[str], folder: Path) -> list[Flag]:
    """The options of a command. Raises ConfigError if its script is not there, RunError if it does not
    print its help.
    """
    missing = next((word for word in words[1:] if word.endswith(".py") and not (folder / word).is_file()), None)
    if missing:
        raise ConfigError(f"--command: {missing}: there is no such file in {folder.absolute()}")
    try:
        done = subprocess.run(
            [*words, "--help"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{words[0]} --help: {error}") from None
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-_LINES_SHOWN:])
        raise RunError(f"--help ended with {done.returncode}: {said}")
    scripts = [folder / word for word in words if word.endswith(".py") and (folder / word).is_file()]
    known = {name: value for script in scripts for name, value in _defaults_in(script).items()}
    return _flags_in(done.stdout or done.stderr, known)


def _flags_in(text: str, known: dict[str, Any]) -> list[Flag]:
    found = list(_OPTION.finditer(text))
    flags: dict[str, Flag] = {}
    for option, following in itertools.zip_longest(found, found[1:]):
        name, metavar = option[1], option[2]
        if metavar and name not in ("help", "version"):
            described = " ".join(text[option.end() : following.start() if following else len(text)].split())
            default = _DEFAULT.search(f"{metavar} {described}")
            value = (
                known.get(name.replace("-", "_")) if default is None else _value_in((default[1] or default[2]).strip())
            )
            flags.setdefault(name, Flag(name, value))
    return list(flags.values())


def _value_in(text: str) -> Any:
    """The default that a help shows; None if it shows none."""
    try:
        value = yaml_file.parse_yaml(text, "")
    except ConfigError:
        return text
    return None if value == "None" or isinstance(value, dict) else value


def _defaults_in(script: Path) -> dict[str, Any]:
    """The defaults in the calls of `add_argument` of a script."""
    found: dict[str, Any] = {}
    with contextlib.suppress(SyntaxError, OSError, ValueError):
        for node in ast.walk(ast.parse(script.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"):
                continue
            default = next((keyword.value for keyword in node.keywords if keyword.arg == "default"), None)
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            with contextlib.suppress(ValueError):
                value = None if default is None else ast.literal_eval(default)
                found |= {name.lstrip("-").replace("-", "_"): value for name in names if name.startswith("--")}
    return found
