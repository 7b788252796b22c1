"""The cells of experiments: a fixed order, names that show what differs, keys derived from content."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from relay.config.sections import as_lists
from relay.errors import ConfigError
from relay.runs.cells import Cell
from src.config.keys import TRAINING
from src.config.loading import Variants, make_config
from src.config.schema import Config
from src.config.validation import key_path
from src.models.registry import LABELS, reads
from src.requests.plan import Plan

MAX_CELLS = 1_000_000
# Short labels in the order in which a name shows them, as in the report.
_LABELS = {
    **{f"model.{option}": label for option, label in LABELS.items()},
    "train.batch_size": "bs",
    "train.optimizer.lr": "lr",
    "train.optimizer.weight_decay": "wd",
}


def expand_grid(config: Config) -> Plan:
    """The cells of `config.hparams`: the product of its axes. The first axis in the file varies slowest.

    Raises ConfigError if there is no axis, or with the problems of all cells that are not valid configurations.
    """
    axes = {key_path(config, name): values for name, values in config.hparams.axes.items()}
    if not axes:
        raise ConfigError("hparams: no axis to search; give at least one, for example hparams.lr=[1e-3,2e-3]")
    shared = {} if config.hparams.epochs is None else {"train.epochs": config.hparams.epochs}
    return make_cells(config, axes, shared)


def refine_grid(config: Config, best: Mapping[str, Any]) -> Plan:
    """The narrower grid around `best` (the overrides of the best cell so far, or none), over rate and weight decay.

    With the default factors and the report's best cell, these are the 9 cells of its M8.
    """
    centre = make_config(config.to_dict(), "the best cell", best)
    lr, weight_decay = centre.train.optimizer.lr, centre.train.optimizer.weight_decay
    axes = {
        "train.optimizer.lr": _scaled(lr, config.refine.lr_factors),
        "train.optimizer.weight_decay": _scaled(weight_decay, config.refine.weight_decay_factors),
    }
    return make_cells(config, axes, {**best, "train.epochs": config.refine.epochs})


def make_cells(config: Config, axes: Mapping[str, tuple[Any, ...]], shared: Mapping[str, Any]) -> Plan:
    """The product of `axes` (key path -> values) over `shared` overrides, as cells in order."""
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MAX_CELLS:
        raise ConfigError(f"hparams: {count:,} cells, and at most {MAX_CELLS:,} are allowed; give fewer values")
    # An axis of one value differs nowhere, so no name shows it.
    shown = [path for path, values in axes.items() if len(values) > 1]
    shown.sort(key=lambda path: list(_LABELS).index(path) if path in _LABELS else len(_LABELS))
    labels, texts = _labels(shown), {path: _texts(path, axes[path]) for path in shown}
    points = itertools.product(*([as_lists(value) for value in values] for values in axes.values()))
    # Enough digits that the names sort in the order of the cells.
    digits = max(3, len(str(count - 1)))
    variants = Variants(config, "hparams")
    plan = Plan(TRAINING, config)
    # An ordered set, because thousands of cells may share one problem.
    problems: dict[str, None] = {}
    for index, point in enumerate(points):
        overrides = {**shared, **dict(zip(axes, point, strict=True))}
        parts = [f"k={index:0{digits}d}", *(f"{labels[path]}={texts[path][repr(overrides[path])]}" for path in shown)]
        try:
            cell_config = variants.make(overrides)
        except ConfigError as error:
            problems.update(dict.fromkeys(str(error).splitlines()[1:]))
            continue
        plan.add(_file_name(parts), overrides, cell_config)
    problems.update(dict.fromkeys(_same_experiments(plan)))
    if problems:
        raise ConfigError("\n".join(["hparams: some cells are not valid", *problems]))
    return plan


def _same_experiments(plan: Plan) -> Iterator[str]:
    """The problem of each pair of cells that differ only in options of `model` that their network does not read."""
    first_with: dict[str, Cell] = {}
    reported: set[tuple[str, str]] = set()
    for cell in plan.cells:
        first, network = first_with.setdefault(cell.key, cell), plan.configs[cell.name].model.type
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
    # Rounded to 12 digits: in binary, 1e-05 * 0.1 is 1.0000000000000002e-06, which nobody means.
    return tuple(dict.fromkeys(float(f"{value * factor:.12g}") for factor in factors))


def _labels(paths: Sequence[str]) -> dict[str, str]:
    """A short label of each key path: its own, or the end of the path, longer where two would be equal."""
    labels = dict[str, str]()
    # Those with a label of their own keep it.
    for path in sorted(paths, key=lambda path: path not in _LABELS):
        names = path.split(".")
        ends = (".".join(names[start:]) for start in reversed(range(len(names))))
        labels[path] = _LABELS.get(path) or next(end for end in ends if end not in labels.values() or end == path)
    return labels


def _texts(path: str, values: Sequence[Any]) -> dict[str, str]:
    """The text of each value of an axis, by the value's repr: different ones for different values."""
    texts, taken = dict[str, str](), set[str]()
    for value in map(as_lists, values):
        plain = _file_name([_text(path, value)])
        # What a file system may refuse was replaced, so that a/b and a:b would look equal.
        endings = itertools.chain([""], (f".{number}" for number in itertools.count(2)))
        texts[repr(value)] = next(plain + ending for ending in endings if plain + ending not in taken)
        taken.add(texts[repr(value)])
    return texts


def _text(path: str, value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_text(path, item) for item in value)
    if isinstance(value, float) and value and path == "train.optimizer.weight_decay":
        return _scientific(value)
    if isinstance(value, float) and path == "train.optimizer.lr":
        text = f"{value:.2e}"
        return text if float(text) == value else _scientific(value)
    if isinstance(value, float):
        return _scientific(value) if value and not 0.001 <= abs(value) < 1000 else f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scientific(value: float) -> str:
    """The shortest text that reads back as the same value: 1e-05, 1.5e-05.

    numpy.format_float_scientific writes some values of 16 digits differently, and sweeps are found by these names.
    """
    return next(text for digits in range(17) if float(text := f"{value:.{digits}e}") == value or digits == 16)


def _file_name(parts: Iterable[str]) -> str:
    """A valid directory name on any file system, whatever the values contain. The index in front keeps it unique."""
    # 150 of the 255 bytes of NAME_MAX: the files in artifacts/ are named by the sweep and the run.
    return re.sub(r"[^A-Za-z0-9._=+-]", "-", "_".join(parts))[:150]
