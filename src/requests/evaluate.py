"""The run of `evaluate`: one checkpoint, identified by the digest of its file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from relay import hints
from relay.config import yaml_file
from relay.errors import CheckpointError
from relay.files import read_json
from relay.runs.sweeps import Request, find_sweep
from src.config.keys import EVALUATION, with_absolute_paths
from src.config.loading import make_config
from src.config.schema import Config
from src.data.sources import source_of
from src.requests.plan import single
from src.requests.training import train_request

# The longest name of a file or directory in bytes: NAME_MAX of limits.h.
_LONGEST_NAME = 255


def evaluation_request(config: Config) -> Request:
    """One evaluation of a checkpoint, by default `artifacts/best.ckpt`.

    The digest of the file is part of the plan: a file that is replaced while the job waits is not measured. Raises
    CheckpointError if the file is missing, damaged or, by default, trained on other images or with another split.
    """
    path = Path(config.evaluation.checkpoint or Path(config.paths.artifacts_dir) / "best.ckpt")
    # First, because Path.is_dir() raises OSError for such a name.
    if len(path.name.encode()) > _LONGEST_NAME:
        raise CheckpointError(f"{path.name[:60]}…: no file can have so long a name; give another with --checkpoint")
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; give a .ckpt file in it with --checkpoint")
    if not path.is_file():
        raise CheckpointError(hints.missing_checkpoint(path))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_digest(path, digest, config.evaluation.sha256)
    if config.evaluation.checkpoint is None:
        _check_same_experiment(path, config)
    named = make_config(
        config.to_dict(), "evaluation", {"evaluation.checkpoint": str(path), "evaluation.sha256": digest}
    )
    # The name of the run directory.
    name = f"{named.evaluation.split}-{path.stem}-{digest[:8]}"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{named.evaluation.split}-{digest[:8]}"

    def check() -> None:
        """Raise RelayError if the checkpoint does not fit. Imports torch, which takes seconds."""
        from src.training.pretrained import check_fits

        check_fits(named)

    return single(named, EVALUATION, name).request("evaluate", "evaluate", extra=digest, check=check)


def _check_same_experiment(path: Path, config: Config) -> None:
    """Raise CheckpointError if artifacts/best.ckpt, which the user did not name, was trained on other images or
    with another split: images that chose its epoch would be measured as new ones.
    """
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return
    trained = make_config(yaml_file.read_mapping(beside), str(beside))
    theirs, ours = (_images_of(each) for each in (trained, config))
    if theirs == ours:
        return
    # This configuration may have a training of its own, whose weights did not replace best.ckpt.
    own = find_sweep(Path(config.paths.runs_dir), "train", train_request(config).key)
    weights = own.runs()[0].best_file if own else None
    measure_own = (
        f"; to measure the training of this configuration: {hints.again('--checkpoint', str(weights))}"
        if weights and weights.is_file()
        else ""
    )
    differ = [name for name in theirs | ours if theirs.get(name) != ours.get(name)]
    was, now = (", ".join(f"{name} {found.get(name)}" for name in differ) for found in (theirs, ours))
    raise CheckpointError(
        f"{path}: was trained on other data or with another split ({was}; this configuration: {now}){measure_own}; "
        f"to measure it anyway: {hints.again('--checkpoint', str(path))}"
    )


def _images_of(config: Config) -> dict[str, Any]:
    """What names the images of a configuration and their split, equal for equal ones."""
    content = with_absolute_paths("dataset", config.dataset)
    names = ("name", "revision", "classes", "columns", "class_names", *source_of(config.dataset).options)
    split = {f"dataset.split.{name}": value for name, value in content["split"].items()}
    return {**{f"dataset.{name}": content[name] for name in names}, **split}


def _check_digest(path: Path, digest: str, expected: str | None) -> None:
    """Raise CheckpointError if the file does not have the `expected` digest, or the one in the JSON file beside it."""
    beside = path.with_suffix(".json")
    # NAME_MAX may allow a long `x.pt`, but not `x.json`.
    beside_fits = len(beside.name.encode()) <= _LONGEST_NAME
    written = (read_json(beside) or {}).get("sha256") if beside_fits else None
    if expected not in (None, digest):
        raise CheckpointError(
            f"evaluation.sha256: {expected}, but {path} has {digest}; set it to null to accept the file"
        )
    if isinstance(written, str) and written != digest:
        raise CheckpointError(
            f"{path}: does not match {beside.name} beside it, so it was damaged or replaced. Train again, give another "
            f"file with --checkpoint, or remove {beside} to measure this one as it is"
        )
