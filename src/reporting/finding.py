"""Which sweep feeds which section of the report.

A sweep belongs to the report if it is of the same images (dataset, split and preprocessing) as the configuration, and
of the same kind and tag. Among those, one of exactly the requested runs comes before one of another configuration on
the same images, a complete one before an incomplete one, and then the newest.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.errors import ConfigError, DataError, RelayError, RunError
from relay.program.own_code import is_own
from relay.results.answer import Answer
from relay.results.collection import answer_of_sweep
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request, sweeps
from relay.user import expanded
from src.config.keys import deciding_sections
from src.config.loading import make_config, with_values
from src.config.schema import Config
from src.data.dataset import load
from src.data.found import with_found
from src.requests import best_of_all, compare_request, first_grid_of, grid_request, lr_sweep_request, train_request


@dataclass(frozen=True)
class SectionSweep:
    """The sweep that feeds a section. `exact`: it is of the requested runs; otherwise of others on the same images."""

    sweep: SweepDir
    exact: bool

    def config(self) -> Config:
        """The configuration of the sweep. Raises RunError or ConfigError if it is damaged."""
        return make_config(self.sweep.meta()["config"], str(self.sweep.meta_file))

    @functools.cached_property
    def answer(self) -> Answer:
        """What its results say. Raises RunError if the manifest is damaged."""
        return answer_of_sweep(self.sweep)

    def done(self) -> list[RunDir]:
        """Its finished runs. Raises RunError if the manifest is damaged, or if there is none and one is damaged."""
        runs = self.sweep.runs()
        done = [run for run in runs if run.is_done()]
        damage = next((damage for run in runs if (damage := run.damage())), "")
        if not done and damage:
            raise RunError(damage)
        return done


class Sweeps:
    """The sweeps on the images of a configuration, and which of them belongs to each section."""

    def __init__(self, config: Config) -> None:
        # Which sweep was asked for does not depend on the linked files, which may be on another machine.
        self.config = config.model_copy(update={"project": config.project.model_copy(update={"links": ()})})
        images = _images(config.to_dict())
        known = sweeps(Path(config.paths.runs_dir))
        # The newest first.
        self.all = [sweep for sweep in reversed(known) if _images(_planned_content(sweep)) == images]

    @functools.cached_property
    def lr_sweep(self) -> SectionSweep | None:
        """The LR sweep."""
        return self._newest([lr_sweep_request(self.config)]) if self.all else None

    @functools.cached_property
    def overfit(self) -> SectionSweep | None:
        """The overfit test."""
        if not self.all:
            return None
        small = make_config(self.config.to_dict(), "the overfit test", {"train.overfit_small": True})
        return self._newest([train_request(small)])

    @functools.cached_property
    def grid(self) -> SectionSweep | None:
        """The grid."""
        if not self.all or not self.config.hparams.axes:
            return None
        return self._newest([grid_request(self.config)])

    @functools.cached_property
    def refined(self) -> SectionSweep | None:
        """The newest narrower grid: around the best cell of the grid, or of a narrower one around that."""
        first = self.grid
        tag = self.config.refine.tag
        descended = [sweep for sweep in self._fitting("grid", tag) if first and _descends(sweep, first.sweep)]
        return self._newest_of("grid", tag, frozenset(str(sweep.meta()["key"]) for sweep in descended))

    @functools.cached_property
    def training(self) -> SectionSweep | None:
        """The full training: of the configuration or of the best cell of its grids."""
        if not self.all:
            return None
        wanted = [train_request(self.config)]
        try:
            best = best_of_all(self.config, unfinished=True)
            wanted.append(train_request(make_config(self.config.to_dict(), "the best cell", best.overrides)))
        except RunError:
            pass
        return self._newest(wanted)

    @functools.cached_property
    def comparison(self) -> SectionSweep | None:
        """The comparison of full trainings."""
        if self.all and self.config.compare.variants:
            return self._newest([compare_request(self.config)])
        return self._newest_of("compare", self.config.compare.tag, frozenset())

    def evaluation(self, training: RunDir) -> SectionSweep | None:
        """The evaluation of the best weights of `training` on the configured split."""
        split, digest = self.config.evaluation.split, _digest(training.best_file)
        for sweep in self.all:
            evaluated = sweep.meta()["config"].get("evaluation") or {}
            if sweep.kind != "evaluate" or evaluated.get("split") != split or not _has_results(sweep):
                continue
            own = evaluated.get("checkpoint") or ""
            # The weights may have been removed since; artifacts/best.ckpt is a copy with the same digest.
            if evaluated.get("sha256") == digest if digest else Path(own) == training.best_file:
                return SectionSweep(sweep, True)
        return None

    def _newest(self, requests: Sequence[Request]) -> SectionSweep | None:
        first = requests[0]
        return self._newest_of(first.kind, first.tag, frozenset(request.key for request in requests))

    def _newest_of(self, kind: str, tag: str, keys: frozenset[str]) -> SectionSweep | None:
        # sorted() is stable, so the newest stays first among equals.
        ranked = sorted(
            self._fitting(kind, tag), key=lambda sweep: (sweep.meta()["key"] not in keys, not _is_complete(sweep))
        )
        return SectionSweep(ranked[0], ranked[0].meta()["key"] in keys) if ranked else None

    def _fitting(self, kind: str, tag: str) -> list[SweepDir]:
        return [s for s in self.all if s.kind == kind and s.meta().get("tag") == tag and _has_results(s)]


def with_known(config: Config) -> Config:
    """The configuration with what its data decides, from the decoded data or, if that is not here, from the newest
    sweep that was planned with the same settings of it. Itself if there is neither.

    Raises ConfigError if what was found does not fit, or if neither is known and the project cannot be read.
    """
    problem: ConfigError | None = None
    try:
        return with_found(config, functools.partial(load, build=False))
    except DataError:
        pass
    except ConfigError as error:
        # The project may have links to files that are not here.
        problem = error
    for sweep in reversed(sweeps(Path(config.paths.runs_dir))):
        if _images(sweep.meta()["config"]) == _images(config.to_dict()) and (values := _planned_values(sweep)):
            own = {path: value for path, value in values.items() if _value_at(config.to_dict(), path) == "auto"}
            # The mean and deviation of images, or null, where the default was planned.
            return with_values(config, {**own, "preprocess.normalize": values["preprocess.normalize"]})
    if problem:
        raise problem
    return config


_OF_DATA = ("model.num_classes", "model.input_shape", "preprocess.normalize")


def _planned_values(sweep: SweepDir) -> dict[str, Any] | None:
    """What the data of a sweep decided, by key path, from the configuration of its first run."""
    try:
        content = sweep.runs()[0].config()
    except (RelayError, IndexError):
        return None
    return {path: _value_at(content, path) for path in _OF_DATA}


def _planned_content(sweep: SweepDir) -> dict[str, Any]:
    """The configuration that a sweep was planned with, with what its data decided about the preprocessing."""
    content: dict[str, Any] = sweep.meta()["config"]
    asked = _value_at(content, "preprocess.normalize")
    if asked != "auto" and not is_own(str(_value_at(content, "dataset.name"))):
        return content
    values = _planned_values(sweep)
    if values is None:
        return content
    return {**content, "preprocess": {**content["preprocess"], "normalize": values["preprocess.normalize"]}}


def _value_at(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _descends(refined: SweepDir, first: SweepDir) -> bool:
    """Whether a narrower grid is around a cell of `first`, or of a narrower one that is."""
    seen: list[SweepDir] = []
    origin: SweepDir | None = refined
    while origin and origin not in seen and origin != first:
        seen.append(origin)
        origin = first_grid_of(origin)
    return origin == first


def changed_values(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Key path -> (value in `config`, value in `other`) of what decides both trainings and differs."""
    own, theirs = (_flat("", deciding_sections(each.to_dict())) for each in (config, other))
    # Not what only the network of one of them reads. A planned run names its source, which `auto` stands for.
    paths = [path for path in own if path in theirs and path != "dataset.source"]
    changed = {path: (own[path], theirs[path]) for path in paths if own[path] != theirs[path]}
    if "dataset.name" in changed and len({_place(each) for each in (config, other)}) == 1:
        # A planned run names its folder in full.
        del changed["dataset.name"]
    return changed


def _place(config: Config) -> Path:
    """The folder that dataset.name is, if it is one."""
    return Path(os.path.realpath(expanded(config.dataset.name)))


def _flat(prefix: str, content: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        path = f"{prefix}.{name}" if prefix else name
        flat |= _flat(path, value) if isinstance(value, Mapping) else {path: value}
    return flat


def _images(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """What decides the images of a configuration in plain values; None if it is not valid here."""
    # Validating the axes of a large grid takes long, and they decide no images.
    content = {name: section for name, section in content.items() if name not in ("hparams", "compare")}
    try:
        sections = deciding_sections(make_config(content, "a sweep").to_dict())
    except ConfigError:
        return None
    return {name: sections[name] for name in ("dataset", "preprocess")}


def _has_results(sweep: SweepDir) -> bool:
    """Whether it has a finished or damaged run: a damaged one is shown, and not passed over in silence."""
    try:
        return any(run.is_done() or run.damage() for run in sweep.runs())
    except RunError:
        return True


def _is_complete(sweep: SweepDir) -> bool:
    try:
        return all(run.is_done() for run in sweep.runs())
    except RunError:
        return False


def _digest(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None
