"""The runs of another program's TensorBoard logs: which folders are one run, and what is known about it.

A run may be spread over folders: add_hparams and add_scalars of torch.utils.tensorboard write to sub-folders, Keras and
TensorFlow's programs to one folder for each split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.config.yaml_file import read_mapping
from relay.errors import RelayError, RunError
from relay.results.foreign.event_files import PATTERN, Events, read_events
from relay.results.foreign.event_values import flattened, value_in

# The steps and the values.
Series = tuple[Sequence[int], Sequence[float]]
# add_hparams writes to a folder that is named after the time.
_SUB_RUN = re.compile(r"\d{9,}(\.\d+)?")
# train and valid, as Keras has them; train_inner of fairseq and valid_log of Catalyst.
_SPLIT = re.compile(r"(train|training|val|valid|validation|dev|eval|evaluation|test)(_inner|_logs?)?", re.IGNORECASE)
# Lightning saves the hyperparameters there even where it does not log them.
_SAVED = "hparams.yaml"

_SEPARATOR = r"(?:^|[_,/ -])"
_NUMBER = r"\d[\d.]*(?:e[+-]?\d+)?"
_KNOWN = (
    "learning[_-]?rate|weight[_-]?decay|batch[_-]?size|num[_-]?layers|n[_-]?layers|hidden[_-]?size|hidden[_-]?dim|"
    "embed[_-]?dim|max[_-]?lr|base[_-]?lr|lr|bs|wd|batch|decay|dropout|drop|seed|epochs|layers|hidden|dim|heads|depth|"
    "width|units|filters|channels|modules|alpha|beta|gamma|lambda|momentum|temperature|temp|tau|eps|epsilon|clip|warmup|"
    "smoothing|mixup|rank|noise|sigma"
)
# lr=0.001 or weight_decay=1e-4, in a name whose parts are separated by any of "_,/ ".
_ASSIGNED = re.compile(r"(?:^|[_,/ ])([A-Za-z][A-Za-z0-9.]*(?:_[A-Za-z][A-Za-z0-9.]*)*)=([^_,/ ]+)")
# lr0.001, lr-0.001 or lr_0.001, in a name without "=": words that name a hyperparameter. Others, as in run1, version_5
# or exp_1, only if the number counts nothing: it is below 1 or has an exponent.
_NUMBERED = re.compile(
    rf"{_SEPARATOR}(?:({_KNOWN})[_-]?({_NUMBER})|([A-Za-z]+)[_-]?(0\.\d+(?:e[+-]?\d+)?|\d[\d.]*e[+-]?\d+))"
    r"(?=$|[_,/ -])",
    re.IGNORECASE,
)
# What counts runs, in a name with "=".
_COUNTERS = frozenset(
    (
        *("run", "id", "job", "jobid", "job_id", "version", "ver", "v", "exp", "experiment", "trial", "try"),
        *("attempt", "idx", "index", "i", "no", "num", "number", "date", "time"),
    )
)


@dataclass
class ForeignRun:
    """What a run has logged.

    `scalars`: by tag. `hparams`: by name; None stands for a value that was logged as null. `is_from_name`: the
    hyperparameters are those in the name of the run. `started`: when its newest file was opened, in seconds.
    """

    scalars: dict[str, Series] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    is_from_name: bool = False
    started: int = 0

    def add(self, events: Events, prefix: str, started: int) -> None:
        """Add what a folder of the run holds; its tags begin with `prefix`."""
        self.scalars |= {_prefixed(tag, prefix): series for tag, series in events.scalars.items()}
        self.hparams |= events.hparams
        self.started = max(self.started, started)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.scalars and not self.hparams


def read_runs(directory: Path) -> tuple[dict[str, ForeignRun], list[str]]:
    """The runs below `directory`, by their path below it and in its order, and what could not be read.

    Raises RunError if there are no event files.
    """
    folders = sorted({path.parent for path in directory.rglob(PATTERN) if path.is_file()})
    if not folders:
        raise RunError(f"{directory}: no sweep and no TensorBoard event files (*tfevents*) in it or below")
    files = {folder: sorted(path for path in folder.glob(PATTERN) if path.is_file()) for folder in folders}
    events = {folder: read_events(files[folder]) for folder in folders}
    places = {folder: _place_of(folder, directory, events) for folder in folders}
    runs: dict[str, ForeignRun] = {}

    def name_of(folder: Path) -> str:
        return str(folder.relative_to(directory)) if folder != directory else directory.resolve().name

    # A run after its sub-runs: of one tag, add_hparams repeats a single value, which does not replace the curve.
    for folder in sorted(folders, key=lambda folder: (places[folder][0] == folder, folder)):
        owner, prefix = places[folder]
        name = name_of(owner)
        runs.setdefault(name, ForeignRun()).add(events[folder], prefix, max(map(_opened, files[folder])))
        if not runs[name].hparams:
            runs[name].hparams |= _saved_in(folder)
    # A writer whose sub-runs stand for themselves has logged nothing.
    parents = {name_of(owner.parent) for owner, _ in places.values() if owner != directory}
    runs = {name: run for name, run in runs.items() if not (run.is_empty and name in parents)}
    for name, run in runs.items():
        if not run.hparams:
            run.hparams, run.is_from_name = _hparams_in(name), True
    return dict(sorted(runs.items())), [note for folder in folders for note in events[folder].notes]


def _place_of(folder: Path, directory: Path, events: Mapping[Path, Events]) -> tuple[Path, str]:
    """The folder of the run to which `folder` belongs, and what its tags begin with."""
    prefix = ""
    while folder != directory:
        parent = folder.parent
        if _SPLIT.fullmatch(folder.name) and (parent != directory or _is_split(folder, events)):
            prefix = f"{folder.name}/{prefix}"
        elif folder in events and parent in events and (key := _key_of_add_scalars(folder, events[folder])):
            prefix = f"/{key}"
        elif not (parent in events and _is_sub_run(folder, events)):
            break
        folder = parent
    return folder, prefix


def _prefixed(tag: str, prefix: str) -> str:
    """The tag with its split; add_scalars names the split after the tag."""
    if prefix.startswith("/"):
        return tag + prefix
    return tag if re.split(r"[/_.]", tag.lower())[0] == prefix.rstrip("/").lower() else prefix + tag


def _is_split(folder: Path, events: Mapping[Path, Events]) -> bool:
    """Whether a folder at the top, named `train` or `test`, is a part of a run and not one that has this name."""
    return folder.parent in events or any(
        other != folder and other.parent == folder.parent and _SPLIT.fullmatch(other.name) for other in events
    )


def _key_of_add_scalars(folder: Path, events: Events) -> str:
    """`val` of the folder Loss_val, in which the only tag is Loss; "" for any other folder."""
    tags = [tag.replace("/", "_").replace(" ", "_") for tag in events.scalars]
    name = folder.name.replace(" ", "_")
    return name.removeprefix(f"{tags[0]}_") if len(tags) == 1 and name.startswith(f"{tags[0]}_") else ""


def _is_sub_run(folder: Path, events: Mapping[Path, Events]) -> bool:
    """Whether a folder holds the hyperparameters of the run above it.

    Several with different hyperparameters, below one that has no curve, are runs of their own.
    """
    if folder not in events or not _SUB_RUN.fullmatch(folder.name):
        return False
    if events[folder.parent].scalars:
        return True
    beside = (each for each in events if each.parent == folder.parent and _SUB_RUN.fullmatch(each.name))
    return all(events[each].hparams == events[folder].hparams for each in beside)


def _opened(path: Path) -> int:
    """When a writer opened the file: the seconds since 1970 in its name, or else when it was changed."""
    found = re.search(r"tfevents\.(\d{9,11})\b", path.name)
    return int(found[1]) if found else int(path.stat().st_mtime)


def _saved_in(folder: Path) -> dict[str, Any]:
    try:
        saved = read_mapping(folder / _SAVED) if (folder / _SAVED).is_file() else {}
    except RelayError:
        # Objects of Python, or no mapping: not what a table can show.
        return {}
    return dict(flattened("", saved)) if saved else {}


def _hparams_in(name: str) -> dict[str, Any]:
    """The hyperparameters in the name of a run."""
    assigned = _ASSIGNED.findall(name)
    if assigned:
        return {key: value_in(text) for key, text in assigned if key.lower() not in _COUNTERS}
    found = (match[:2] if match[0] else match[2:] for match in _NUMBERED.findall(name))
    return {key: value_in(text) for key, text in found if key.lower() not in _COUNTERS}
