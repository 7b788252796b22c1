"""The cells of a program's experiment: names that show what differs, keys of what is given."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.config import yaml_file
from relay.errors import ConfigError
from relay.projects.config import ProgramConfig
from relay.runs.cells import Cell

MAX_CELLS = 100_000
# Of a whole name; the longest that a file may have is 255 bytes.
_LONGEST_NAME = 150


@dataclass(frozen=True)
class Draft:
    """A cell before its parameters are checked: its name, and what is given for it."""

    name: str
    overrides: Mapping[str, Any]
    params: Mapping[str, Any]


def grid_drafts(config: ProgramConfig) -> list[Draft]:
    """The product of the axes. Raises ConfigError if there is none, or too many cells."""
    axes = config.hparams.axes
    if not axes:
        raise ConfigError("hparams: no axis to search; give at least one, for example hparams.lr=[1e-3,2e-3]")
    count = math.prod(map(len, axes.values()))
    if count > MAX_CELLS:
        raise ConfigError(f"hparams: {count:,} cells, and at most {MAX_CELLS:,} are allowed; give fewer values")
    # An axis of one value differs nowhere, so no name shows it.
    shown = [name for name, values in axes.items() if len(values) > 1]
    digits = max(3, len(str(count - 1)))
    drafts = []
    for index, point in enumerate(itertools.product(*(_plain(values) for values in axes.values()))):
        given = dict(zip(axes, point, strict=True))
        name = "_".join([f"k={index:0{digits}d}", *(f"{each}={_text(given[each])}" for each in shown)])
        drafts.append(_draft(config, name, given))
    return drafts


def compare_drafts(config: ProgramConfig) -> list[Draft]:
    """The base and each variant, by name; all have overrides for every parameter that one of them sets."""
    variants = config.compare.variants
    changed = dict.fromkeys(name for values in variants.values() for name in values)
    missing = [name for name in changed if name not in config.params]
    if missing:
        raise ConfigError(
            f"compare.variants: {missing[0]}: give the base value in params, so that the table can show it: "
            f"params.{missing[0]}"
        )
    base = {name: config.params[name] for name in changed}
    return [_draft(config, name, {**base, **values}) for name, values in {"base": {}, **variants}.items()]


def single_draft(config: ProgramConfig, name: str, more: Mapping[str, Any]) -> Draft:
    """The only run of a command, with `more` parameters than those of the configuration."""
    return Draft(name, {}, {**config.params, **more})


def _draft(config: ProgramConfig, name: str, given: Mapping[str, Any]) -> Draft:
    overrides = {f"params.{each}": value for each, value in given.items()}
    # A valid directory name, whatever the values contain; the index in front keeps it unique.
    return Draft(re.sub(r"[^A-Za-z0-9._=+-]", "-", name)[:_LONGEST_NAME], overrides, {**config.params, **given})


def make_cells(config: ProgramConfig, drafts: Sequence[Draft], fixed: Mapping[str, Any]) -> list[Cell]:
    """The cells of drafts whose parameters fit the program. `fixed`: what every run's config.yaml has besides."""
    cells: list[Cell] = []
    for draft in drafts:
        content = {**fixed, "params": dict(draft.params)}
        cells.append(
            Cell(
                index=len(cells),
                name=draft.name,
                overrides=draft.overrides,
                config=yaml_file.dump_yaml(content),
                key=run_key(config.program.model_dump(), draft.params),
                cost_key=_cost_key(config, draft.params),
                units=1,
            )
        )
    return cells


def run_key(program: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """16 hex digits of what was given: neither code nor defaults, so an edit of the program orphans no run.

    `program`: the section of that name.
    """
    kind = "function" if program["function"] else "command"
    return _digest({"kind": "program", kind: program[kind], "name": program["name"], "params": params})[:16]


def _cost_key(config: ProgramConfig, params: Mapping[str, Any]) -> str:
    ignored = config.program.cost_ignores
    costly = {name: value for name, value in params.items() if name not in ignored}
    return _digest({"program": config.program.what, "params": costly})[:12]


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_equals(drafts: Sequence[Draft], resolved: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError if two cells are the same run once the program's defaults are filled in."""
    first: dict[str, str] = {}
    for draft in drafts:
        text = json.dumps(resolved[draft.name], sort_keys=True)
        other = first.setdefault(text, draft.name)
        if other != draft.name:
            raise ConfigError(f"hparams: {other} and {draft.name} are the same run: their parameters are equal")


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_text(each) for each in value)
    if isinstance(value, float) and value and not 0.001 <= abs(value) < 1000:
        return f"{value:.2e}" if float(f"{value:.2e}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
