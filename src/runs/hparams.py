"""The hyperparameters of a run under the names that tables and TensorBoard show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from src.config.schema import Config
from src.config.validation import AXES
from src.runs.kinds import deciding_sections
from src.runs.planned import planned_row
from src.runs.rundir import RunDir

# The only types that TensorBoard accepts for a hyperparameter.
Hparam = bool | int | float | str
_SHORT_NAMES = {path: name for name, path in AXES.items()}


def axis_name(path: str) -> str:
    """The short name of a key path, or the path itself if it has none."""
    return _SHORT_NAMES.get(path, path)


def axis_value(value: Any) -> Any:
    """A value of an axis as tables show it: a list as 64-64-64."""
    return "-".join(map(str, value)) if isinstance(value, list) else value


def hparams_of(run: RunDir, config: Config) -> dict[str, Hparam]:
    """All values of `train` and `model` that affect the run, and the values of its sweep's axes in other sections.

    Null values are left out. Raises RunError if the manifest is damaged.
    """
    sections = deciding_sections(config.to_dict())
    row = planned_row(run)
    decided = {"train": sections["train"], "model": sections["model"], **(row["overrides"] if row else {})}
    return {axis_name(path): value for section in decided for path, value in _leaves(section, decided[section])}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Hparam]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(f"{path}.{name}", item)
    elif value is not None:
        yield path, axis_value(value)
