"""What the works on images share: their options, the code that decides their results, and what forks need imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from relay import hints
from relay.cli import overrides_of
from relay.errors import ConfigError

if TYPE_CHECKING:
    from src.config.schema import Config

# relay/program and relay/config as well: the former saves and restores states, the latter reads configurations.
DECIDING = ("relay/program/", "relay/config/", "src/config/", "src/data/", "src/models/", "src/training/")
_UNFINISHED = "--unfinished"
UnfinishedOption = Annotated[
    bool,
    typer.Option(_UNFINISHED, help="With --best or --refined: take the best cell of an incomplete grid."),
]


def load(config: str, set_: Sequence[str], **options: object) -> Config:
    """The configuration in a file, with the values of --set, and those of options by key path (`__` for dots)."""
    from src.config.loading import load_config

    return load_config(config, overrides_of(set_, **options))


def check_unfinished(option: str, *, given: bool, unfinished: bool) -> None:
    """Raise ConfigError if --unfinished is given without `option`, the only one that reads a grid's results."""
    if unfinished and not given:
        raise ConfigError(
            f"{_UNFINISHED}: has no effect without {option}, which takes the best cell of a grid; to add it: "
            f"{hints.again(option)}"
        )


def preload() -> None:
    """Import what every run on images needs: our own modules, then what libraries import when they first write."""
    from src.training.preload import import_all

    import_all()
