"""Which of the hyperparameters that another program has logged are axes: those that vary, and name no run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relay.program.values import TABLE_COLUMNS
from relay.results.foreign.event_values import value_in
from relay.results.foreign.runs import ForeignRun
from relay.results.tables.ranking import words_of
from relay.runs.cells import SEED_AXIS, axis_key
from relay.text import shortlist

# The last words of names of what differs between runs, and changes nothing.
_PLACES = frozenset(
    words_of("dir dirs directory folder id uuid timestamp datetime host hostname port logdir outdir pid")
)
# The same, if it differs between all runs.
_LABELS = frozenset(
    words_of(
        "path file filename run version trial index idx exp experiment time date job notes comment description url"
    )
)
_NAMED = frozenset(words_of("run exp experiment job trial project wandb log logger save output file"))
_MISSING = object()


@dataclass(frozen=True)
class Axes:
    """The values of each axis, in the order of the runs, None where it is not known; and notes for the reader."""

    values: dict[str, list[Any]]
    notes: Sequence[str]


def axes_of(runs: Sequence[ForeignRun]) -> Axes:
    """The axes of the runs, in the order in which they were logged.

    A value that was logged as null is `null`. A seed is called `seed`; other names that tables use are marked.
    """
    names = dict.fromkeys(name for run in runs for name in run.hparams)
    logged = {name: _numbers([run.hparams.get(name, _MISSING) for run in runs]) for name in names}
    varying = {name: values for name, values in logged.items() if _differ(values)}
    counts = {name for name, values in varying.items() if runs[0].is_from_name and _counts_runs(name, values)}
    labels = [name for name, values in varying.items() if name in counts or _is_label(name, values)]
    rare = [name for name, values in varying.items() if 2 * _known(values) < len(runs)]
    kept = {name: values for name, values in varying.items() if name not in (*labels, *rare)}
    seeds = sorted((name for name in kept if _is_seed(name)), key=lambda name: name != SEED_AXIS)
    twice = _repeated({name: values for name, values in kept.items() if name not in seeds[1:]})
    values, notes = {}, []
    for name, own in kept.items():
        if name not in (*twice, *seeds[1:]):
            column = SEED_AXIS if name in seeds[:1] else f"{name} (hparam)" if name in TABLE_COLUMNS else name
            values[column] = [None if value is _MISSING else "null" if value is None else value for value in own]
            if column != name:
                notes.append(f"the hyperparameter {name} is the column {column}")
    if labels:
        notes.append(f"not used as hyperparameters, because they name or count runs: {shortlist(labels)}")
    if rare:
        notes.append(f"not used as axes, because fewer than half of the runs logged them: {shortlist(rare)}")
    if twice or seeds[1:]:
        notes.append(f"not used as axes, because they vary with another one: {shortlist([*twice, *seeds[1:]])}")
    return Axes(values, notes)


def _numbers(values: list[Any]) -> list[Any]:
    """The values; as numbers if all are texts of numbers, which is how some programs log them."""
    numbers = [value_in(value) if isinstance(value, str) else value for value in values]
    known = [(value, number) for value, number in zip(values, numbers, strict=True) if value is not _MISSING]
    are_texts = all(isinstance(value, str) and type(number) in (int, float) for value, number in known)
    return numbers if are_texts else values


def _known(values: Sequence[Any]) -> int:
    return sum(value is not _MISSING for value in values)


def _differ(values: Sequence[Any]) -> bool:
    return len({axis_key(value) for value in values if value is not _MISSING}) > 1


def _counts_runs(name: str, values: Sequence[Any]) -> bool:
    """Whether a number in the names of the runs is 0, 1, 2 and so on, as `k` in k=0_lr=0.1."""
    return (
        len(values) > 2
        and len(name) == 1
        and {str(value) for value in values}
        in ({str(number) for number in range(start, start + len(values))} for start in (0, 1))
    )


def _is_label(name: str, values: Sequence[Any]) -> bool:
    words = words_of(name)
    if not words or words[-1] in _PLACES:
        return bool(words)
    known = [axis_key(value) for value in values if value is not _MISSING]
    names_runs = words[-1] in _LABELS or (words[-1] == "name" and set(words[:-1]) <= _NAMED)
    return names_runs and len(set(known)) == len(known)


def _is_seed(name: str) -> bool:
    return bool(re.search(r"(^|[^a-z])seed$", name.lower())) or words_of(name)[-2:] == ["random", "state"]


def _repeated(columns: dict[str, list[Any]]) -> list[str]:
    """The columns whose values are those of one before them."""
    seen: dict[tuple[Any, ...], str] = {}
    keys = {name: tuple(map(axis_key, values)) for name, values in columns.items()}
    return [name for name, key in keys.items() if seen.setdefault(key, name) != name]
