"""What makes two runs of image experiments equal, and what one costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.config.sections import Section
from relay.user import expanded
from src.config.schema import Config
from src.models.registry import content_of


@dataclass(frozen=True)
class Facts:
    """What must be known about runs that do the same work.

    `work`: its name; runs with the same work and configuration have the same result. `cost_factors`: a unit of work
    takes the same time in two runs for which these are equal. `units`: the units of work of a run, for example its
    epochs. `section`: the section of the configuration that affects only these runs.
    """

    work: str
    cost_factors: Callable[[Config], tuple[object, ...]]
    units: Callable[[Config], float]
    section: str | None = None

    def key(self, content: Mapping[str, Any]) -> str:
        """16 hex digits, equal for two configurations, as plain values, if and only if their runs have the same result.

        Paths, checkpoint intervals and the device are not part of it, nor is what is at its default: a new option
        changes the key of no run that does not use it. So an option whose default changes needs a new name.
        """
        extra = {self.section: content[self.section]} if self.section else {}
        given = _without(_DEFAULTS, {**deciding_sections(content), **extra})
        text = json.dumps({**given, "kind": self.work}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def cost_key(self, config: Config) -> str:
        """12 hex digits, equal if a unit of work takes the same time: the same images, network, batch size and work."""
        return hashlib.sha256(repr((self.work, *self.cost_factors(config))).encode()).hexdigest()[:12]


def _images(config: Config) -> tuple[object, ...]:
    data = config.dataset
    return data.name, data.classes, data.train_per_class, data.split, config.preprocess


def _training_cost(config: Config) -> tuple[object, ...]:
    train = config.train
    # With max_steps, the whole run is one unit of work, so its length counts, too.
    epochs = train.epochs if train.max_steps is not None else None
    loop = (train.batch_size, train.optimizer.name, train.max_steps, epochs, train.overfit_small)
    return _images(config), config.augment, config.model, loop, train.precision, train.compile


def _training_units(config: Config) -> float:
    return 1.0 if config.train.max_steps is not None else float(config.train.epochs)


def _lr_sweep_units(config: Config) -> float:
    return float(config.lr_finder.num_steps)


def _evaluation_cost(config: Config) -> tuple[object, ...]:
    return _images(config), config.model, config.evaluation.split


# A training, a cell of a grid and one of a comparison do the same work: with equal configurations, they share a key.
TRAINING = Facts("train", _training_cost, _training_units)
LR_SWEEP = Facts("lr_sweep", _training_cost, _lr_sweep_units, section="lr_finder")
EVALUATION = Facts("evaluate", _evaluation_cost, lambda _: 1.0, section="evaluation")
_DEFAULTS = Config().to_dict()
# Those of the report's network, which were the defaults before they became `auto`: they are in no key.
_DEFAULTS["model"] |= {"num_classes": 200, "input_shape": [3, 64, 64]}


def _without(defaults: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` without the values that are those of `defaults`, and without sections that are then empty."""
    found = {}
    for name, value in content.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if inner := _without(default, value):
                found[name] = inner
        elif name not in defaults or value != default or type(value) is not type(default):
            found[name] = value
    return found


def deciding_sections(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The part of a configuration, given as plain values, that affects the result of every run."""
    sections = {name: dict(content[name]) for name in ("dataset", "preprocess", "augment", "model", "train", "metrics")}
    # Without options that the network ignores: cells that differ only in those are the same experiment.
    sections["model"] = content_of(content["model"])
    for name in ("root", "download", "num_workers", "allowed_overlap"):
        del sections["dataset"][name]
    # An overfit test is planned with its overfit_epochs as train.epochs.
    for name in ("device", "overfit_epochs"):
        del sections["train"][name]
    return sections


def content_key(config: Config, facts: Facts) -> str:
    """The key of a cell with this configuration."""
    return facts.key({name: with_absolute_paths(name, section) for name, section in config})


def with_absolute_paths(name: str, section: Section) -> dict[str, Any]:
    """The section `name` as plain values with absolute paths, so that it means the same in every folder and on every
    node.
    """
    content: dict[str, Any] = section.model_dump(mode="json")
    if name == "paths":
        return {key: str(Path(value).absolute()) for key, value in content.items()}
    if name == "project":
        content["path"] = str(Path(content["path"]).absolute())
    if name == "dataset":
        content["root"] = str(expanded(content["root"]).absolute())
        folder = expanded(content["name"])
        if content["source"] == "folder" or (content["source"] == "auto" and folder.is_dir()):
            content |= {"name": str(folder.absolute()), "source": "folder"}
    if name == "evaluation" and content["checkpoint"]:
        content["checkpoint"] = str(expanded(content["checkpoint"]).absolute())
    return content


def name_of_images(config: Config) -> str:
    """What messages call the data of a configuration."""
    return f"the data of dataset.name {config.dataset.name}"
