"""The runs of `train` and `lr-sweep`."""

from __future__ import annotations

from src.config.loading import Variants, make_config
from src.config.schema import Config
from src.runs.cells import Cell, single_cell
from src.runs.kinds import content_key
from src.runs.sweeps import Request


def train_request(config: Config) -> Request:
    """One full training of the configuration, or its overfit test if train.overfit_small is set."""
    tag = "overfit_small" if config.train.overfit_small else "train"
    # The number of epochs is part of the content key, so it stands in one place: train.epochs.
    if config.train.overfit_small:
        epochs = {"train.epochs": config.train.overfit_epochs}
        config = make_config(config.to_dict(), "train.overfit_epochs", epochs)
    return Request("train", tag, [single_cell(config, "train", tag)], config)


def lr_sweep_request(config: Config) -> Request:
    """One LR sweep for each seed in `lr_finder.seeds`, or only for `train.seed` if there are none."""
    seeds = config.lr_finder.seeds or (config.train.seed,)
    cells, variants = [], Variants(config, "lr_finder.seeds")
    # Each run is named by its seed, so a repeated seed counts once.
    for index, seed in enumerate(dict.fromkeys(seeds)):
        seeded = variants.make({"train.seed": seed})
        cells.append(Cell(index, f"seed={seed}", content_key(seeded, "lr_sweep"), {"train.seed": seed}, seeded))
    return Request("lr_sweep", config.lr_finder.tag, cells, config)
