"""A network from a checkpoint, with the model and the preprocessing that it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relay.errors import CheckpointError, ConfigError, DataError
from relay.program.own_code import is_own
from relay.runs.project_snapshot import is_snapshot, project_problem
from src.config.loading import make_config
from src.config.schema import Config
from src.models.registry import build_model
from src.training.numerics import Forward, Numerics
from src.training.weights import load_checkpoint, load_weights


@dataclass(frozen=True)
class Pretrained:
    """A network with the weights of the checkpoint at `path`, on the CPU.

    `config`: the configuration to use it with. `trained_by`: the run that wrote the checkpoint, None if it names none.
    `val`: that run, the accuracy of its best epoch on val, and the numbers of images there and of epochs, if the
    checkpoint has them.
    `trained_on`: the configuration of the images that it was trained on, if the checkpoint has it.
    """

    path: Path
    network: nn.Module
    config: Config
    trained_by: str | None
    val: dict[str, Any] | None
    trained_on: Config | None

    def forward_on(self, device: torch.device) -> Forward:
        """Move the network to the device, and return what maps normalised images to logits, float32, there."""
        # Not compiled: that takes longer than the evaluation.
        numerics = replace(Numerics.chosen(self.config, device), compiled=False)
        return numerics.prepare(self.network.to(device))


def check_fits(config: Config) -> None:
    """Check, before a run is created, that the checkpoint of `config` can be evaluated.

    Raises CheckpointError if it cannot be loaded, DataError if the split is empty.
    """
    if not getattr(config.dataset.split, config.evaluation.split):
        raise no_images(config)
    load_pretrained(config)


def no_images(config: Config) -> DataError:
    """The error of an evaluation whose split is empty."""
    return DataError(f"dataset.split.{config.evaluation.split}: the split is empty; set it above 0")


def load_pretrained(config: Config, say: Callable[[str], None] = lambda text: None) -> Pretrained:
    """The network of the checkpoint that `config.evaluation` names.

    A checkpoint of ours holds the configuration that it was trained with: its model and preprocessing replace those of
    `config`, and `say` reports a difference. One of the report's program holds none: it is loaded into the configured
    model. Raises CheckpointError if the file is missing, damaged, replaced since the evaluation was planned, or does
    not fit.
    """
    assert config.evaluation.checkpoint is not None
    path = Path(config.evaluation.checkpoint)
    content = load_checkpoint(path, config.evaluation.sha256)
    fitting = _as_trained(config, content, str(path))
    if (fitting.model, fitting.preprocess) != (config.model, config.preprocess):
        say(f"model and preprocessing are taken from {path}; they differ from the configuration's")
    network = build_model(fitting.model, _project_of(fitting, content, say))
    load_weights(network, content["model_state_dict"], str(path))
    trained_by = content.get("run") if isinstance(content.get("run"), str) else None
    return Pretrained(path, network, fitting, trained_by, _on_val(content, trained_by), _trained_on(fitting, content))


def _project_of(config: Config, content: dict[str, Any], say: Callable[[str], None]) -> str:
    """The folder with the code of the network: that which was frozen with its training, if it is still there."""
    if not is_own(config.model.type):
        return config.project.path
    trained = content.get("config")
    section = trained.get("project") if isinstance(trained, dict) else None
    path = section.get("path") if isinstance(section, dict) else None
    if isinstance(path, str) and is_snapshot(Path(path)):
        if problem := project_problem(Path(path)):
            raise CheckpointError(f"{path}: is no longer the code of {config.model.type}: {problem}; restore it")
        return path
    say(
        f"the code that {config.model.type} was trained with is not here ({path or 'its checkpoint names none'}); "
        "the weights are loaded into the network of now"
    )
    return config.project.path


def _on_val(content: dict[str, Any], trained_by: str | None) -> dict[str, Any] | None:
    try:
        accuracy, config = float(content["metrics"]["accuracy"]), content["config"]
        val, epochs = config["dataset"]["split"]["val"], int(config["train"]["epochs"])
    except (KeyError, TypeError, ValueError):  # The report's program writes neither, and the file may hold anything.
        return None
    # A share or the name of a split: how many those are, only the data says.
    found = {"run": trained_by, "accuracy": accuracy, "n": val if type(val) is int else None, "epochs": epochs}
    return found if 0 <= accuracy <= 1 and found["n"] != 0 else None


def _trained_on(config: Config, content: dict[str, Any]) -> Config | None:
    """`config` with the images and the split of a checkpoint's own configuration, if it has them."""
    trained = content.get("config")
    images = trained.get("dataset") if isinstance(trained, dict) else None
    if not isinstance(images, dict):
        return None
    here = {name: getattr(config.dataset, name) for name in ("root", "num_workers", "allowed_overlap")}
    # A function gives what it gave with the code of then.
    section = trained.get("project") if isinstance(trained, dict) else None
    project = {"project": section} if isinstance(section, dict) else {}
    try:
        return make_config({**config.to_dict(), **project, "dataset": {**images, **here}}, "the checkpoint")
    except (ConfigError, TypeError, ValueError, RecursionError):  # The file may hold anything.
        return None


def _as_trained(config: Config, content: dict[str, Any], source: str) -> Config:
    """`config` with the model and preprocessing of a checkpoint's own configuration, if `content` has one."""
    trained = content.get("config")
    if not isinstance(trained, dict) or "model" not in trained or "preprocess" not in trained:
        return config
    changed = {name: trained[name] for name in ("model", "preprocess")}
    classes = trained["model"].get("num_classes") if isinstance(trained["model"], dict) else None
    if classes is not None and config.model.num_classes not in ("auto", classes):
        raise CheckpointError(
            f"{source}: was trained for {classes} classes, but model.num_classes is {config.model.num_classes}; use "
            "the configuration that it was trained with, or another checkpoint with --checkpoint"
        )
    # An evaluation does not augment, and the configured crop need not fit the checkpoint's image size.
    values = {**config.to_dict(), **changed, "augment": {}}
    try:
        return make_config(values, source)
    except (ConfigError, TypeError, ValueError, RecursionError) as error:  # The file may hold anything.
        raise CheckpointError(f"{source}: was trained with a configuration that is invalid here: {error}") from None
