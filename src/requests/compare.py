"""The runs of `compare`: the base training and its variants, each in full."""

from __future__ import annotations

from relay.errors import ConfigError
from relay.runs.cells import Cell
from relay.runs.sweeps import Request
from src.config.keys import TRAINING
from src.config.loading import Variants, variant_overrides
from src.config.schema import Config
from src.config.validation import BASE
from src.requests.plan import Plan


def compare_request(config: Config) -> Request:
    """The base and each of `compare.variants`, by name. All have overrides for every value that one of them sets.

    Raises ConfigError if there are no variants, or if two of the runs would be the same training.
    """
    if not config.compare.variants:
        raise ConfigError(
            "compare.variants: there are none; add some to the configuration, such as "
            "compare.variants={lower_lr: {train.optimizer.lr: 5e-4}}"
        )
    content, variants = config.to_dict(), Variants(config, "compare.variants")
    given = {name: variant_overrides(config, variant) for name, variant in config.compare.variants.items()}
    base = {path: _value_at(content, path) for overrides in given.values() for path in overrides}
    plan = Plan(TRAINING, config)
    for name, changed in ({BASE: {}, **given}).items():
        overrides = {**base, **changed}
        plan.add(name, overrides, variants.make(overrides))
    _refuse_equals(plan.cells)
    return plan.request("compare", config.compare.tag)


def _value_at(content: object, path: str) -> object:
    for name in path.split("."):
        # A section that is null has no values.
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _refuse_equals(cells: list[Cell]) -> None:
    first: dict[str, str] = {}
    for cell in cells:
        other = first.setdefault(cell.key, cell.name)
        if other != cell.name:
            raise ConfigError(
                f"compare.variants.{cell.name}: is the same training as {other}; change a value that decides its result"
            )
