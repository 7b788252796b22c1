"""The runs of `train`, `lr-sweep`, and `compare`: the base training and its variants, each in full."""

from __future__ import annotations

from collections.abc import Callable

from relay.errors import ConfigError
from relay.runs.cells import Cell
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request
from src.config.keys import LR_SWEEP, TRAINING
from src.config.loading import Variants, make_config, variant_overrides
from src.config.schema import Config
from src.config.validation import BASE
from src.requests.plan import Plan, single


def train_request(config: Config, opened: Callable[[SweepDir], None] | None = None) -> Request:
    """One full training of the configuration, or its overfit test if train.overfit_small is set; `opened` as in
    `Request`.
    """
    tag = "overfit_small" if config.train.overfit_small else "train"
    # The number of epochs is part of the key, so it stands in one place: train.epochs.
    if config.train.overfit_small:
        epochs = {"train.epochs": config.train.overfit_epochs}
        config = make_config(config.to_dict(), "train.overfit_epochs", epochs)
    return single(config, TRAINING, tag).request("train", tag, opened=opened or (lambda sweep: None))


def lr_sweep_request(config: Config) -> Request:
    """One LR sweep for each seed in `lr_finder.seeds`, or only for `train.seed` if there are none."""
    seeds = config.lr_finder.seeds or (config.train.seed,)
    plan, variants = Plan(LR_SWEEP, config), Variants(config, "lr_finder.seeds")
    # Each run is named by its seed, so a repeated seed counts once.
    for seed in dict.fromkeys(seeds):
        plan.add(f"seed={seed}", {"train.seed": seed}, variants.make({"train.seed": seed}))
    return plan.request("lr_sweep", config.lr_finder.tag)


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
