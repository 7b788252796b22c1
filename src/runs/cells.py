"""A grid as cells: a fixed order, names that show what differs, keys from content.

A cell is one point of a grid: the overrides that make it, and the configuration that they resolve to.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.config.loading import Variants, make_config
from src.config.schema import Config
from src.config.validation import AXES, plain
from src.errors import ConfigError
from src.models.registry import LABELS, reads
from src.runs.kinds import content_key

MAX_CELLS = 1_000_000
# Short labels, in the order in which a name shows them: the report's own.
_LABELS = {
    **{f"model.{option}": label for option, label in LABELS.items()},
    "train.batch_size": "bs",
    "train.optimizer.lr": "lr",
    "train.optimizer.weight_decay": "wd",
}


@dataclass(frozen=True)
class Cell:
    """One point of a grid: `name` is that of its directory, `overrides` maps key paths to values.

    `former_name` is the name that an earlier version gave it, where that is another one; sweeps are found by it.
    """

    index: int
    name: str
    key: str
    overrides: Mapping[str, Any]
    config: Config
    former_name: str | None = None


def expand_grid(config: Config) -> list[Cell]:
    """The cells of `config.hparams`: the product of the axes, the first axis of the file turning slowest.

    Raises ConfigError if there is no axis, or where cells are not valid configurations; all their problems at once.
    """
    axes = {AXES.get(name, name): values for name, values in config.hparams.axes.items()}
    if not axes:
        raise ConfigError("hparams: there is no axis to search; give at least one, for example hparams.lr=[1e-3,2e-3]")
    shared = {} if config.hparams.epochs is None else {"train.epochs": config.hparams.epochs}
    return make_cells(config, axes, shared)


def refine_grid(config: Config, best: Mapping[str, Any]) -> list[Cell]:
    """The narrower grid around `best` (overrides of the best cell so far, or none): rate and weight decay vary.

    With the factors' defaults and the report's best cell these are the 9 cells of its M8.
    """
    centre = make_config(config.to_dict(), "the best cell", best)
    lr, weight_decay = centre.train.optimizer.lr, centre.train.optimizer.weight_decay
    axes = {
        "train.optimizer.lr": _scaled(lr, config.refine.lr_factors),
        "train.optimizer.weight_decay": _scaled(weight_decay, config.refine.weight_decay_factors),
    }
    return make_cells(config, axes, {**best, "train.epochs": config.refine.epochs})


def single_cell(config: Config, kind: str, name: str) -> Cell:
    """The one cell of a command that is no grid."""
    return Cell(0, name, content_key(config, kind), {}, config)


def make_cells(config: Config, axes: Mapping[str, tuple[Any, ...]], shared: Mapping[str, Any]) -> list[Cell]:
    """The product of `axes` (key path -> values) over `shared` overrides, as cells in order."""
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MAX_CELLS:
        raise ConfigError(f"hparams: {count:,} cells are more than {MAX_CELLS:,}; give fewer values")
    shown = [path for path, values in axes.items() if len(values) > 1]
    shown.sort(key=lambda path: list(_LABELS).index(path) if path in _LABELS else len(_LABELS))
    points = itertools.product(*([plain(value) for value in values] for values in axes.values()))
    digits = max(3, len(str(count - 1)))
    variants = Variants(config, "hparams")
    cells: list[Cell] = []
    problems: dict[str, None] = {}
    for index, point in enumerate(points):
        overrides = {**shared, **dict(zip(axes, point, strict=True))}
        name, former_name = (
            _file_name([f"k={index:0{digits}d}", *(f"{_label(path)}={text(path, overrides[path])}" for path in shown)])
            for text in (_text, _former_text)
        )
        try:
            cell_config = variants.make(overrides)
        except ConfigError as error:
            problems.update(dict.fromkeys(str(error).splitlines()[1:]))
            continue
        cells.append(Cell(index, name, content_key(cell_config, "grid"), overrides, cell_config, former_name))
    problems.update(dict.fromkeys(_same_experiments(cells)))
    if problems:
        raise ConfigError("\n".join(["hparams: some cells are not valid", *problems]))
    return cells


def _same_experiments(cells: Sequence[Cell]) -> Iterator[str]:
    """Cells that differ only in options of `model` that their network does not read."""
    first_with: dict[str, Cell] = {}
    reported: set[tuple[str, str]] = set()
    for cell in cells:
        first, network = first_with.setdefault(cell.key, cell), cell.config.model.type
        for path, value in cell.overrides.items():
            section, _, option = path.partition(".")
            unread = section == "model" and not reads(network, option) and first.overrides[path] != value
            if unread and (network, path) not in reported:
                reported.add((network, path))
                yield (
                    f"  hparams: {first.name} and {cell.name} are the same experiment, because {network} does not read "
                    f"{path}; give {path} one value, or search it in a grid without {network}"
                )


def _scaled(value: float, factors: tuple[float, ...]) -> tuple[float, ...]:
    # 12 digits: 1e-05 * 0.1 is 1.0000000000000002e-06 in binary, and nobody means that.
    return tuple(dict.fromkeys(float(f"{value * factor:.12g}") for factor in factors))


def _label(path: str) -> str:
    return _LABELS.get(path, path.rsplit(".", 1)[-1])


def _text(path: str, value: Any) -> str:
    if isinstance(value, float) and value and path == "train.optimizer.weight_decay":
        return _scientific(value)
    return _former_text(path, value)


def _former_text(path: str, value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_former_text(path, item) for item in value)
    if isinstance(value, float) and path == "train.optimizer.lr":
        text = f"{value:.2e}"
        return text if float(text) == value else _scientific(value)
    if isinstance(value, float):
        return _scientific(value) if value and not 0.001 <= abs(value) < 1000 else f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scientific(value: float) -> str:
    """As few digits as give the value back: 1e-05, 1.5e-05.

    numpy.format_float_scientific gives another text for some values of 16 digits, and sweeps are found by these names.
    """
    return next(text for digits in range(17) if float(text := f"{value:.{digits}e}") == value or digits == 16)


def _file_name(parts: Iterable[str]) -> str:
    """A name that is one directory anywhere, whatever a value holds; the index at its front keeps it unique."""
    return re.sub(r"[^A-Za-z0-9._=+-]", "-", "_".join(parts))[:150]
