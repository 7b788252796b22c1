"""Asks a process of its own whether networks and optimizers that are not ours can be trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relay.ask import ask
from relay.errors import ConfigError
from relay.runs.code_snapshot import PROJECT_ROOT, python_path
from src.config.project import as_frozen, explained
from src.config.schema import Config
from src.config.train_section import OPTIMIZERS
from src.models.registry import content_of, is_ours

if TYPE_CHECKING:
    from src.data.dataset import ImageData

_TIMEOUT_S = 600


def check_trials(configs: Mapping[str, Config], load: Callable[[Config], ImageData]) -> None:
    """Raise ConfigError, with the problem of each, if networks or optimizers of cells, by name, cannot be trained.

    What is ours is not tried. It takes seconds: torch is imported, in another process. `load`: gives the data of a
    cell, if that is needed. Raises what it raises.
    """
    tried = {name: config for name, config in configs.items() if _is_tried(config)}
    if not tried:
        return
    trials = {name: _trial(config, load) for name, config in tried.items()}
    # Cells with equal trials share the first one's.
    cells = {text: name for name, text in reversed(trials.items())}
    own = next((config for config in tried.values() if config.own_code), next(iter(tried.values())))
    with as_frozen(own) as frozen:
        found = _ask({"project": frozen.project.path, "trials": [json.loads(text) for text in cells]})
    answers = dict(zip(cells, found, strict=True))
    problems: dict[str, str] = {}
    for name, text in trials.items():
        for problem in filter(None, answers[text]["problem"].splitlines()):
            problems.setdefault(explained(problem, frozen, own), name)
    if problems:
        raise ConfigError(
            "\n".join(f"{problem} ({name})" if len(configs) > 1 else problem for problem, name in problems.items())
        )
    for name, config in tried.items():
        if reason := answers[trials[name]]["single"]:
            _check_last_batch(config, len(load(config).train), reason)


def _is_tried(config: Config) -> bool:
    """Whether the network or the optimizer is tried before it is trained."""
    optimizer = config.train.optimizer
    return not is_ours(config.model.type) or optimizer.name not in OPTIMIZERS or bool(optimizer.options)


def _trial(config: Config, load: Callable[[Config], ImageData]) -> str:
    """Equal for cells with the same network, optimizer and kind of input, as JSON."""
    # The rate changes nothing but sizes of steps.
    optimizer = config.train.optimizer.model_dump(mode="json") | {"lr": 0.001}
    # Only what the user's function returns may be other than images.
    given = _input_of(load(config)) if config.has_own_data else {"type": "float32"}
    model = content_of(config.model.model_dump(mode="json"))
    return json.dumps({"model": model, "optimizer": optimizer, "input": given}, sort_keys=True)


def _input_of(data: ImageData) -> dict[str, Any]:
    """`type` of what a network takes, float32 or int64, and of whole numbers the `largest` in training."""
    part = data.train
    if part.images.dtype != "int64":
        return {"type": "float32"}
    return {"type": "int64", "largest": int(part.images[part.indices].max())}


def _check_last_batch(config: Config, images: int, reason: str) -> None:
    train = config.train
    count = train.overfit_size if train.overfit_small else images
    if count % train.batch_size == 1:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} leaves one of the {count} training images for the last batch of an "
            f"epoch, and {config.model.type} cannot be trained on one: {reason}; set another size"
        )


def _ask(question: Mapping[str, Any]) -> list[dict[str, str]]:
    folder, environment = Path(question["project"]), {**os.environ, **python_path(PROJECT_ROOT)}
    command = [sys.executable, "-m", "src.training.trial"]
    try:
        found, why = ask(command, question, folder=folder, environment=environment, timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise ConfigError(f"project.path: {folder}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"model.type: importing and building the network takes more than {_TIMEOUT_S} s; move the work out of the "
            "module, and out of what builds it"
        ) from None
    if found is None:
        raise ConfigError(f"model.type: the network could not be tried: {why}")
    answers: list[dict[str, str]] = found
    return answers
