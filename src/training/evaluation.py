"""A checkpoint measured on a split that it was not chosen by."""

from __future__ import annotations

import math

from src.config.schema import Config
from src.data.dataset import digest, images_of, load, prepare
from src.errors import DataError
from src.progress import Reporter, StopCheck
from src.runs.attempts import Outcome, write_provenance
from src.runs.planned import check_as_planned
from src.runs.rundir import RunDir
from src.training.device import choose_device, compute_reproducibly
from src.training.metrics import evaluate_split
from src.training.pretrained import load_pretrained


def check_fits(config: Config) -> None:
    """Read the checkpoint that the config names, before a run is made for it. Raises CheckpointError, and DataError
    where there would be nothing to measure it on.
    """
    if not getattr(config.dataset.split, config.evaluation.split):
        raise _no_images(config)
    load_pretrained(config)


def evaluate(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Measure the checkpoint that the run's config names; result.json holds split, n, accuracy, loss and its source.

    A loss that is not finite is null there, and `outcome` is `diverged`.

    A checkpoint of ours says which model and preprocessing it was trained with, and is measured with those; one
    of the report's program is measured with the configured ones. Raises CheckpointError if it does not fit, or is
    not the file that the evaluation was planned for.
    """
    planned = run.config()
    device = choose_device(planned.train.device)
    write_provenance(run, str(device))
    compute_reproducibly(planned.train.seed)
    pretrained = load_pretrained(planned, reporter.say)
    config = pretrained.config
    data = load(config)
    same = images_of(config) == images_of(planned)
    check_as_planned(run, planned, "evaluate", data.digest if same else digest(prepare(planned)))
    part = getattr(data, config.evaluation.split)
    if not len(part):
        raise _no_images(config)
    reporter.say(f"evaluating {pretrained.path} on {config.evaluation.split} ({len(part)} images)")
    values = evaluate_split(pretrained.network.to(device), part, config, device, should_stop)
    if values is None:
        return Outcome("stopped", 0, 0, 1)
    source = {
        "checkpoint": str(pretrained.path),
        "checkpoint_sha256": planned.evaluation.sha256,
        "trained_by": pretrained.trained_by,
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
