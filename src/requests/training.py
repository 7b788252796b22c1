"""The runs of `train` and `lr-sweep`."""

from __future__ import annotations

from collections.abc import Callable

from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request
from src.config.keys import LR_SWEEP, TRAINING
from src.config.loading import Variants, make_config
from src.config.schema import Config
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
