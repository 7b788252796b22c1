"""The kinds of runs, in one table: what makes two runs of a kind equal, what one costs, and which results it shows.

jobs/kinds.py has how each kind is planned and executed, because that imports the code that does it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from src.config.schema import Config, Metrics
from src.errors import RunError
from src.models.registry import content_of


@dataclass(frozen=True)
class Kind:
    """What `src` must know about a kind of run.

    `work`: the name of the work of a run; runs with the same work and configuration have the same result.
    `cost_factors`: a unit of work takes the same time in two runs for which these are equal.
    `units`: the units of work of a run, for example its epochs.
    `columns`: the columns of the table of results, from the configured metrics and the content of result.json.
    `section`: the section of the configuration that affects only runs of this kind.
    `reuses`: whether a run takes the result of a finished run with the same content key, instead of repeating it.
    """

    work: str
    cost_factors: Callable[[Config], tuple[object, ...]]
    units: Callable[[Config], float]
    columns: Callable[[Metrics, Mapping[str, Any]], dict[str, Any]]
    section: str | None = None
    reuses: bool = False


def _images(config: Config) -> tuple[object, ...]:
    data = config.dataset
    return data.name, data.classes, data.train_per_class, data.split, config.preprocess


def _training_cost(config: Config) -> tuple[object, ...]:
    train = config.train
    # With max_steps, the whole run is one unit of work, so its length counts, too.
    epochs = train.epochs if train.max_steps is not None else None
    loop = (train.batch_size, train.optimizer.name, train.max_steps, epochs, train.overfit_small)
    how = (train.precision, train.compile)
    return _images(config), config.augment, config.model, loop, *(() if how == ("auto", False) else how)


def _training_units(config: Config) -> float:
    return 1.0 if config.train.max_steps is not None else float(config.train.epochs)


def _training_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    best, train = result.get("best") or {}, result.get("train") or {}
    return {
        **{f"val/{name}": best.get(name) for name in metrics.columns},
        "best_epoch": best.get("epoch"),
        "train/loss": train.get("loss_epoch", train.get("loss")),
        "train/accuracy": train.get("accuracy"),
        "epochs": result.get("epochs"),
        "steps": result.get("steps"),
        "images_per_s": result.get("images_per_s"),
        "train_s": result.get("train_seconds"),
    }


def _lr_sweep_units(config: Config) -> float:
    return float(config.lr_finder.num_steps)


def _lr_sweep_columns(_: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    suggestion = result.get("suggestion") or {}
    suggested = {name: suggestion.get(name) for name in ("steepest", "valley")}
    return {**suggested, "steps": result.get("steps")}


def _evaluation_cost(config: Config) -> tuple[object, ...]:
    return _images(config), config.model, config.evaluation.split


def _evaluation_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result.get(name) for name in ("split", "n", *metrics.columns, "checkpoint")}


_DEFAULTS = Config().to_dict()

# A training, a cell of a grid and one of a comparison do the same work: with equal configurations, they share their
# content key.
_TRAINING = Kind("train", _training_cost, _training_units, _training_columns)

KINDS: Mapping[str, Kind] = {
    "train": _TRAINING,
    "lr_sweep": Kind("lr_sweep", _training_cost, _lr_sweep_units, _lr_sweep_columns, section="lr_finder"),
    "grid": _TRAINING,
    "compare": replace(_TRAINING, reuses=True),
    "evaluate": Kind("evaluate", _evaluation_cost, lambda _: 1.0, _evaluation_columns, section="evaluation"),
}


def kind_of(name: str, source: object = "a sweep") -> Kind:
    """The kind of this name. Raises RunError if there is none, as in a `source` written by a newer version."""
    if name not in KINDS:
        raise RunError(f"kind {name!r} of {source} is unknown; known: {', '.join(KINDS)}")
    return KINDS[name]


def content_key(config: Config, kind: str) -> str:
    """16 hex digits, equal for two configurations if and only if a run of this kind has the same result.

    Paths, checkpoint intervals and the device are not part of it.
    """
    return content_key_of(config.to_dict(), kind)


def content_key_of(content: Mapping[str, Any], kind: str) -> str:
    """`content_key` of a configuration given as plain values."""
    facts = kind_of(kind)
    extra = {facts.section: content[facts.section]} if facts.section else {}
    # Without what is at its default, so that a new option changes the key of no run that does not use it.
    given = _unlike(_DEFAULTS, {**deciding_sections(content), **extra})
    text = json.dumps({**given, "kind": facts.work}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unlike(defaults: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `content` that are not those of `defaults`, in their sections."""
    found = {}
    for name, value in content.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = _unlike(default, value)
            if not value:
                continue
        elif name in defaults and value == default and type(value) is type(default):
            continue
        found[name] = value
    return found


def deciding_sections(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The part of a configuration, given as plain values, that affects the result of every run."""
    sections = {name: dict(content[name]) for name in ("dataset", "preprocess", "augment", "model", "train", "metrics")}
    # Without options that the network ignores: cells that differ only in those are the same experiment.
    sections["model"] = content_of(content["model"])
    for name in ("root", "download", "num_workers", "allowed_overlap"):
        del sections["dataset"][name]
    sections["train"]["optimizer"] = dict(sections["train"]["optimizer"])
    # An overfit test is planned with its overfit_epochs as train.epochs.
    for name in ("device", "overfit_epochs"):
        del sections["train"][name]
    return sections


def cost_key(config: Config, kind: str) -> str:
    """12 hex digits, equal if a unit of work takes the same time: the same images, network, batch size and work."""
    facts = kind_of(kind)
    return hashlib.sha256(repr((facts.work, *facts.cost_factors(config))).encode()).hexdigest()[:12]
