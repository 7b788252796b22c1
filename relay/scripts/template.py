"""The words of a command from its template, without a shell: a value never splits, whatever it contains.

    python train.py --lr {lr} --out {run_dir} {args}

The template is split once, as a shell splits words; then each word is filled in. `{{` and `}}` are braces.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.config.messages import nearest
from relay.errors import ConfigError

# What a template may name besides the parameters.
ARGS, PARAMS_FILE, RUN_DIR, CHECKPOINT = "args", "params_file", "run_dir", "checkpoint"
RESERVED = (ARGS, PARAMS_FILE, RUN_DIR, CHECKPOINT)
# Of the environment, before the name of a parameter in capitals.
VARIABLE_PREFIX = "RELAY_PARAM_"
# A single argument or variable may have 32 pages (MAX_ARG_STRLEN, execve(2)), with its name and its end.
_MOST_BYTES = 32 * 4096 - 256
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def text_of(value: Any) -> str:
    """A parameter as the command gets it: a text as it is, anything else as JSON: `true`, `null`, `[1, 2]`, `0.001`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def variables_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as environment variables: `lr` is RELAY_PARAM_LR. Characters that no variable can have become `_`."""
    return {variable_of(name): text_of(value) for name, value in params.items()}


def variable_of(name: str) -> str:
    """The variable of a parameter."""
    return VARIABLE_PREFIX + re.sub(r"\W", "_", name, flags=re.ASCII).upper()


@dataclass(frozen=True)
class Template:
    """The words of a template, each still to be filled in. `key`: where it stands in the configuration."""

    key: str
    parts: Sequence[str]

    @classmethod
    def read(cls, text: str, key: str) -> Template:
        """Split a template. Raises ConfigError if its quotes or braces are not balanced."""
        try:
            parts = shlex.split(text)
        except ValueError as error:
            raise ConfigError(f"{key}: {text}: {error}; quote it as for a shell") from None
        template = cls(key, parts)
        for part in parts:
            for found in _PART.finditer(part):
                if found[0] in "{}":
                    raise ConfigError(
                        f"{key}: {part}: a single brace; {{name}} stands for a parameter, and {{{{ and }}}} for braces"
                    )
            if ARGS in _names_in(part) and part != f"{{{ARGS}}}":
                raise ConfigError(f"{key}: {part}: {{{ARGS}}} stands for several words; leave blanks around it")
        return template

    @property
    def names(self) -> list[str]:
        """What it names, each once."""
        return list(dict.fromkeys(name for part in self.parts for name in _names_in(part)))

    def check_names(self, params: Mapping[str, Any], *reserved: str) -> None:
        """Raise ConfigError if it names anything but the parameters and the `reserved`."""
        known = [*params, *reserved]
        for name in self.names:
            if name not in known:
                shown = ", ".join(f"{{{each}}}" for each in known)
                raise ConfigError(
                    f"{self.key}: {{{name}}} is no parameter{nearest(name, known)}; it may name {shown}; {{{{ and }}}} "
                    "are braces"
                )

    def words(self, params: Mapping[str, Any], **reserved: str) -> list[str]:
        """Its words for these parameters, whose names it may hold, as it may those of `reserved`."""
        values = {**{name: text_of(value) for name, value in params.items()}, **reserved}
        words: list[str] = []
        for part in self.parts:
            if part == f"{{{ARGS}}}":
                words += [word for name, value in params.items() for word in (f"--{name}", text_of(value))]
            else:
                words.append(_PART.sub(lambda found: values[found[1]] if found[1] is not None else found[0][0], part))
        return words


def _names_in(part: str) -> list[str]:
    return [found[1] for found in _PART.finditer(part) if found[1] is not None]


def value_problem(name: str, value: Any) -> str:
    """Why the value of a parameter cannot be handed to a command; "" if it can."""
    text = text_of(value)
    if "\0" in text:
        return f"params.{name}: holds a NUL character, which no argument can have"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"params.{name}: {text!r:.80} is no valid text"
    if size > _MOST_BYTES:
        return (
            f"params.{name}: has {size:,} bytes, an argument at most {_MOST_BYTES:,}; write it to a file of the project"
        )
    return ""
