"""The kinds of runs, in one table: what makes two runs of a kind equal, what one costs, and which results it shows.

How a kind is planned and executed is in jobs/kinds.py, because that needs the code that does it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from src.config.schema import Config, Metrics
from src.errors import RunError
from src.models.registry import content_of


@dataclass(frozen=True)
class Kind:
    """What `src` must know of a kind of run.

    `work`: a name of the work that a run does; runs with equal work and equal configuration come out equal.
    `cost_factors`: a unit of work costs the same in two runs where these are equal.
    `units`: the units of work of a run, for example its epochs.
    `columns`: the columns of the table of results, from the configured metrics and the content of result.json.
    `section`: the section of the configuration that decides a run of this kind beside those that decide every run.
    """

    work: str
    cost_factors: Callable[[Config], tuple[object, ...]]
    units: Callable[[Config], float]
    columns: Callable[[Metrics, Mapping[str, Any]], dict[str, Any]]
    section: str | None = None


def _images(config: Config) -> tuple[object, ...]:
    data = config.dataset
    return data.name, data.classes, data.train_per_class, data.split, config.preprocess


def _training_cost(config: Config) -> tuple[object, ...]:
    train = config.train
    epochs = train.epochs if train.max_steps is not None else None
    loop = (train.batch_size, train.optimizer.name, train.max_steps, epochs, train.overfit_small)
    return _images(config), config.augment, config.model, loop


def _training_units(config: Config) -> float:
    return 1.0 if config.train.max_steps is not None else float(config.train.epochs)


def _training_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    best, train = result.get("best") or {}, result.get("train") or {}
    return {
        **{f"val/{name}": best.get(name) for name in columns_of(metrics)},
        "best_epoch": best.get("epoch"),
        "train/loss": train.get("loss_epoch", train.get("loss")),
        "train/accuracy": train.get("accuracy"),
        "epochs": result.get("epochs"),
        "steps": result.get("steps"),
        "images_per_s": result.get("images_per_s"),
        "train_s": result.get("train_seconds"),
    }


def columns_of(metrics: Metrics) -> list[str]:
    """What every measurement on val or test has, in the order of columns: the selecting metric, the loss, the rest."""
    selected_by, *others = metrics.measured
    return [selected_by, "loss", *others]


def _lr_sweep_units(config: Config) -> float:
    return float(config.lr_finder.num_steps)


def _lr_sweep_columns(_: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    suggestion = result.get("suggestion") or {}
    suggested = {name: suggestion.get(name) for name in ("steepest", "valley")}
    return {**suggested, "steps": result.get("steps")}


def _evaluation_cost(config: Config) -> tuple[object, ...]:
    return _images(config), config.model, config.evaluation.split


def _evaluation_columns(metrics: Metrics, result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result.get(name) for name in ("split", "n", *columns_of(metrics), "checkpoint")}


_TRAINING = Kind("train", _training_cost, _training_units, _training_columns)

KINDS: Mapping[str, Kind] = {
    "train": _TRAINING,
    "lr_sweep": Kind("lr_sweep", _training_cost, _lr_sweep_units, _lr_sweep_columns, section="lr_finder"),
    "grid": _TRAINING,
    "evaluate": Kind("evaluate", _evaluation_cost, lambda _: 1.0, _evaluation_columns, section="evaluation"),
}


def kind_of(name: str, source: object = "a sweep") -> Kind:
    """The kind of this name. Raises RunError if there is none, as in a `source` that a newer version made."""
    if name not in KINDS:
        raise RunError(f"kind {name!r} of {source} is unknown; known: {', '.join(KINDS)}")
    return KINDS[name]


def content_key(config: Config, kind: str) -> str:
    """16 hex digits, equal for two configurations exactly where a run of this kind would come out equal.

    Where the run is written, how often it is saved and on which device it runs are not part of it.
    """
    return content_key_of(config.to_dict(), kind)


def content_key_of(content: Mapping[str, Any], kind: str) -> str:
    """`content_key` of a configuration in plain values."""
    facts = kind_of(kind)
    extra = {facts.section: content[facts.section]} if facts.section else {}
    text = json.dumps({**deciding_sections(content), **extra, "kind": facts.work}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def deciding_sections(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What decides the outcome of every run, out of a configuration in plain values."""
    kept = {name: dict(content[name]) for name in ("dataset", "preprocess", "augment", "model", "train", "metrics")}
    kept["model"] = content_of(content["model"])
    for name in ("root", "download", "num_workers"):
        del kept["dataset"][name]
    # An overfit test is planned with its overfit_epochs as train.epochs.
    for name in ("device", "overfit_epochs"):
        del kept["train"][name]
    return kept


def cost_key(config: Config, kind: str) -> str:
    """12 hex digits, equal where a unit of work costs the same: the same images, network, batch and work."""
    facts = kind_of(kind)
    return hashlib.sha256(repr((facts.work, *facts.cost_factors(config))).encode()).hexdigest()[:12]
