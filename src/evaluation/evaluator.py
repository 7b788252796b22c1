"""Evaluation of a checkpoint on the val or test split."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from relay.errors import DataError
from relay.log import log
from relay.progress import Reporter, StopCheck
from relay.runs.environment import environment_of
from relay.runs.event_file import figure_tag, write_images
from relay.runs.lifecycle import Outcome, memory_of_attempts, note_first_step, write_provenance
from relay.runs.planned import check_as_planned, frozen_project
from relay.runs.rundir import RunDir
from src.config.keys import EVALUATION, content_key, name_of_images
from src.config.loading import config_of
from src.config.schema import Config
from src.data.dataset import ImageData, ImageSubset, digest, images_of, load, prepare
from src.data.inputs import are_images
from src.evaluation.files import FIGURES, crossed_on_val, write_evaluation
from src.evaluation.summary import evaluation_columns
from src.training.device import choose_device, compute_reproducibly, device_facts, packages_of, reuse_freed_memory
from src.training.metrics import evaluate_split
from src.training.pretrained import load_pretrained, no_images
from src.training.session import in_project


def evaluate(run: RunDir, should_stop: StopCheck, reporter: Reporter) -> Outcome:
    """Evaluate the checkpoint that the run's configuration names, and write result.json.

    The result has the split, the number of images, the metrics, and what they were measured with. A metric that is not
    finite is null, and `outcome` is then `diverged`. `leak` says how many images are not new to the network, if so.

    Raises CheckpointError if the checkpoint does not fit or is not the file that the evaluation was planned for,
    DataError and RunError if images or configuration are not as planned.
    """
    with in_project(run):
        return _evaluate(run, should_stop)


def _evaluate(run: RunDir, should_stop: StopCheck) -> Outcome:
    planned = config_of(run)
    project = frozen_project(run).name if planned.own_code else None
    device = choose_device(planned.train.device)
    compute_reproducibly(planned.train.seed)
    reuse_freed_memory()
    pretrained = load_pretrained(planned, log.info)
    environment = environment_of({**device_facts(device), **packages_of(planned)})
    write_provenance(run, str(device), environment, **({"project": project} if project else {}))
    config = pretrained.config
    data = load(config)
    # The digest in the manifest is that of the planned images. The checkpoint's own preprocessing may need other ones.
    same = images_of(config) == images_of(planned)
    check_as_planned(
        run,
        content_key(planned, EVALUATION),
        data.digest if same else digest(prepare(planned)),
        name_of_images(planned),
    )
    part = getattr(data, config.evaluation.split)
    if not len(part):
        raise no_images(config)
    used = _used_in_training(pretrained.trained_on)
    leak = _leak(part, config, used) if used else None
    if leak:
        log.warning(f"{pretrained.path}: {leak}")
    log.info(f"evaluating {pretrained.path} on {config.evaluation.split} ({len(part)} examples)")
    forward = pretrained.forward_on(device)
    note_first_step(run)
    measured = evaluate_split(pretrained.network, part, config, device, should_stop, forward)
    if measured is None:
        return Outcome("stopped", 0, 0, 1)

    def image_of(position: int) -> NDArray[np.uint8]:
        raw, _ = part.take(torch.tensor([position]))
        image: NDArray[np.uint8] = raw[0].permute(1, 2, 0).numpy()
        return image

    on_val = pretrained.val if config.evaluation.split == "test" else None
    if on_val and used:
        on_val = {**on_val, "n": len(used.val)}
    if on_val and on_val["n"] is None:
        on_val = None
    if on_val:
        on_val = {**on_val, "crossed": crossed_on_val(on_val, run.path.parent.parent)}
    found = write_evaluation(run, measured[1], data.class_names, on_val, image_of if are_images(part.images) else None)
    write_images(run, {figure_tag(name): run.figure(name) for name in FIGURES if run.figure(name).is_file()})
    source = {
        "checkpoint": str(pretrained.path),
        "checkpoint_sha256": planned.evaluation.sha256,
        "trained_by": pretrained.trained_by,
        "data": data.digest,
        "device": str(device),
        "environments": [environment],
    }
    values = found["metrics"]
    outcome = "completed" if None not in values.values() else "diverged"
    statistics = {name: found[name] for name in ("intervals", "ece", "against_val")}
    result = {
        "split": config.evaluation.split,
        "n": len(part),
        "outcome": outcome,
        **values,
        **statistics,
        **source,
        "leak": leak,
        **memory_of_attempts(run),
    }
    run.write_result({**result, "columns": evaluation_columns(planned.metrics, result)})
    return Outcome("done", 0, 1, 1)


def _used_in_training(trained_on: Config | None) -> ImageData | None:
    """The data that a checkpoint was trained on; None if it does not say what that was, or it is not here."""
    try:
        return load(trained_on, build=False) if trained_on else None
    except DataError as error:
        log.info(f"whether these examples were trained on is not known: {error}")
        return None


def _leak(part: ImageSubset, config: Config, used: ImageData) -> str | None:
    """A sentence if more of the measured examples than dataset.allowed_overlap were `used` in the training."""
    in_train, in_val = part.count_shared(used.train), part.count_shared(used.val)
    if config.evaluation.split == "val":
        in_val = 0  # What is measured on val is known to have chosen the epoch.
    if max(in_train, in_val) <= config.dataset.allowed_overlap * len(part):
        return None
    return (
        f"of the {len(part)} {config.evaluation.split} examples, {in_train} were trained on and {in_val} chose the "
        "best epoch: they are not new to the network"
    )
