"""A checkpoint measured on a split that it was not chosen by."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.config.loading import make_config
from src.config.schema import Config
from src.data.dataset import digest, images_of, load, prepare
from src.errors import CheckpointError, ConfigError, DataError
from src.models.registry import build_model
from src.progress import Reporter, StopCheck
from src.runs.attempts import Outcome, write_provenance
from src.runs.planned import check_as_planned
from src.runs.rundir import RunDir
from src.training.checkpoint import load_checkpoint, load_weights
from src.training.device import choose_device, compute_reproducibly
from src.training.metrics import evaluate_split


def check_fits(config: Config) -> None:
    """Read the checkpoint that the config names, before a run is made for it. Raises CheckpointError, and DataError
    where there would be nothing to measure it on.
    """
    assert config.evaluation.checkpoint is not None
    if not getattr(config.dataset.split, config.evaluation.split):
        raise _no_images(config)
    path = Path(config.evaluation.checkpoint)
    content = load_checkpoint(path, config.evaluation.sha256)
    fitting = _as_trained(config, content, str(path), lambda text: None)
    load_weights(build_model(fitting.model), content["model_state_dict"], str(path))


def evaluate(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Measure the checkpoint that the run's config names; result.json holds split, n, accuracy, loss and its source.

    A loss that is not finite is null there, and `outcome` is `diverged`.

    A checkpoint of ours says which model and preprocessing it was trained with, and is measured with those; one
    of the report's program is measured with the configured ones. Raises CheckpointError if it does not fit, or is
    not the file that the evaluation was planned for.
    """
    planned = run.config()
    assert planned.evaluation.checkpoint is not None
    path = Path(planned.evaluation.checkpoint)
    device = choose_device(planned.train.device)
    write_provenance(run, str(device))
    compute_reproducibly(planned.train.seed)
    content = load_checkpoint(path, planned.evaluation.sha256)
    config = _as_trained(planned, content, str(path), reporter.say)
    network = build_model(config.model)
    load_weights(network, content["model_state_dict"], str(path))
    data = load(config)
    same = images_of(config) == images_of(planned)
    check_as_planned(run, planned, "evaluate", data.digest if same else digest(prepare(planned)))
    part = getattr(data, config.evaluation.split)
    if not len(part):
        raise _no_images(config)
    reporter.say(f"evaluating {path} on {config.evaluation.split} ({len(part)} images)")
    values = evaluate_split(network.to(device), part, config, device, should_stop)
    if values is None:
        return Outcome("stopped", 0, 0, 1)
    source = {
        "checkpoint": str(path),
        "checkpoint_sha256": planned.evaluation.sha256,
        "trained_by": trained_by if isinstance(trained_by := content.get("run"), str) else None,
        "data": data.digest,
        "device": str(device),
    }
    # JSON has no NaN: what is no number is null, and the outcome says so.
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    outcome = "completed" if None not in finite.values() else "diverged"
    run.write_result({"split": config.evaluation.split, "n": len(part), "outcome": outcome, **finite, **source})
    return Outcome("done", 0, 1, 1)


def _no_images(config: Config) -> DataError:
    return DataError(f"dataset.split.{config.evaluation.split}: there are no images in it; set it above 0")


def _as_trained(config: Config, content: dict[str, Any], source: str, say: Callable[[str], None]) -> Config:
    trained = content.get("config")
    if not isinstance(trained, dict) or "model" not in trained or "preprocess" not in trained:
        return config
    changed = {name: trained[name] for name in ("model", "preprocess")}
    classes = trained["model"].get("num_classes") if isinstance(trained["model"], dict) else None
    if classes not in (None, config.model.num_classes):
        raise CheckpointError(
            f"{source}: tells {classes} classes apart, and the configuration's images have {config.model.num_classes} "
            "(model.num_classes): give the configuration that it was trained with, or another checkpoint with "
            "--checkpoint"
        )
    values = {**config.to_dict(), **changed, "augment": {}}
    try:
        fitting = make_config(values, source)
    except (ConfigError, TypeError, ValueError, RecursionError) as error:  # Anything may be in its config.
        raise CheckpointError(f"{source}: was trained with another configuration: {error}") from None
    if (fitting.model, fitting.preprocess) != (config.model, config.preprocess):
        say(f"model and preprocessing are taken from {source}; they differ from the configuration's")
    return fitting
