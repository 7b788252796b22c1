"""The cells of one request of an image experiment, with their configurations."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from relay.config import yaml_file
from relay.config.sections import Section
from relay.errors import DataError
from relay.files import read_lines
from relay.runs.cells import Cell
from relay.runs.project_snapshot import ProjectFiles
from relay.runs.reuse import other_versions
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request
from src.config.keys import Facts, name_of_images, with_absolute_paths
from src.config.project import linked_digest, project_of
from src.config.schema import Config
from src.config.validation import axis_name
from src.requests.trials import check_trials

if TYPE_CHECKING:
    from src.data.dataset import ImageData


class Plan:
    """Collects the cells of a request. The text of each section is made once, no matter how many cells share it.

    Measured for a grid of 4,000 cells over the learning rate, in which one section of twelve differs: 0.5 s of CPU for
    all texts and keys; without sharing, 8.3 s.
    """

    def __init__(self, facts: Facts, base: Config) -> None:
        self._facts, self._base = facts, base
        self.cells: list[Cell] = []
        self.configs: dict[str, Config] = {}
        # As they were given, with what is still `auto`.
        self._given: list[Config] = []
        # The data of cells with the same images: looking for it reads all of it.
        self._loaded: dict[object, ImageData] = {}
        # Both are keyed by identity, because equal sections need not have the same text: 0.0 == -0.0. The entry holds
        # a reference to its sections, so that Python does not give the id to another object.
        self._found: dict[tuple[int, ...], tuple[tuple[Section, ...], dict[str, Section]]] = {}
        self._texts: dict[int, tuple[Section, dict[str, Any], str]] = {}

    def add(self, name: str, overrides: Mapping[str, Any], config: Config) -> Cell:
        """Add a cell: its configuration as text, in which all paths are absolute, and the keys of that.

        What the data decides is resolved before. Raises DataError or ConfigError if it cannot be.
        """
        self._given.append(config)
        config = self._with_found(config)
        parts = {name: self._section(name, section) for name, section in config}
        cell = Cell(
            index=len(self.cells),
            name=name,
            overrides=overrides,
            config="".join(text for _, text in parts.values()),
            key=self._facts.key({name: content for name, (content, _) in parts.items()}),
            cost_key=self._facts.cost_key(config),
            units=self._facts.units(config),
        )
        self.cells.append(cell)
        self.configs[name] = config
        return cell

    def _with_found(self, config: Config) -> Config:
        """`with_found`, once for all cells that share what it depends on."""
        from src.data.found import with_found

        sections = (config.dataset, config.preprocess, config.model, config.metrics)
        key = tuple(map(id, sections))
        if key not in self._found:
            found = with_found(config, self._load)
            self._found[key] = (sections, {"preprocess": found.preprocess, "model": found.model})
        return config.model_copy(update=self._found[key][1])

    def _load(self, config: Config) -> ImageData:
        """The data of a cell. Raises DataError if it cannot be read, or the cell does not fit it."""
        from src.data.dataset import images_of, load
        from src.data.inputs import check_inputs

        images = images_of(config)
        if images not in self._loaded:
            self._loaded[images] = load(config)
        check_inputs(config, self._loaded[images].train.images)
        return self._loaded[images]

    def _section(self, name: str, section: Section) -> tuple[dict[str, Any], str]:
        if id(section) not in self._texts:
            content = with_absolute_paths(name, section)
            self._texts[id(section)] = (section, content, yaml_file.dump_yaml({name: content}))
        return self._texts[id(section)][1:]

    def request(
        self,
        kind: str,
        tag: str,
        *,
        extra: str = "",
        origin: Mapping[str, Any] | None = None,
        check: Callable[[], None] = lambda: None,
        opened: Callable[[SweepDir], None] = lambda sweep: None,
    ) -> Request:
        """The request for these cells; the parameters are fields of `Request`."""
        project = self._project()

        def check_all() -> None:
            check_trials(self.configs, self._load)
            check()

        dataset = json.dumps(self._base.dataset.model_dump(mode="json"), sort_keys=True)
        return Request(
            kind,
            tag,
            self.cells,
            self._base.paths,
            self._base.to_dict(),
            self._base.metrics.select,
            is_grid=kind == "grid",
            extra=extra,
            origin=origin,
            axis_names={path: axis_name(path) for cell in self.cells for path in cell.overrides},
            inputs=hashlib.sha256(dataset.encode()).hexdigest()[:16],
            inputs_name=name_of_images(self._base),
            prepare=self._prepare_images,
            to_prepare=self._to_decode,
            check=check_all,
            opened=opened,
            project=project,
            why_other=functools.partial(_why_other, project.digest, linked_digest(self._base)) if project else None,
        )

    def _project(self) -> ProjectFiles | None:
        """The user's project, if a cell names code of it. Raises ConfigError."""
        if not any(config.own_code for config in self.configs.values()):
            return None
        return project_of(self._base)

    def _prepare_images(self, look_closer: bool) -> Mapping[str, str]:
        """Download and decode the images of all cells. Returns the digest of each cell's images."""
        from src.data.dataset import digest, images_of, prepare

        digests: dict[object, str] = {}
        for config in self.configs.values():
            if images_of(config) not in digests:
                digests[images_of(config)] = digest(prepare(config, look_closer=look_closer))
        if look_closer:
            self._check_found()
        return {name: digests[images_of(config)] for name, config in self.configs.items()}

    def _check_found(self) -> None:
        """Raise DataError if what `auto` stands for is not what it was before the data was looked at closer."""
        before, self._found, self._loaded = self._found, {}, {}
        for config in self._given:
            self._with_found(config)
        if [found for _, found in before.values()] != [found for _, found in self._found.values()]:
            raise DataError(
                f"{name_of_images(self._base)} changed, and with them what auto stands for in the configuration; the "
                "data is read again now: give the same command once more"
            )

    def _to_decode(self) -> str:
        """What would be decoded, a line for each data set. Raises DataError if one is not there."""
        from src.data.cache import to_decode
        from src.data.dataset import images_of

        distinct = {images_of(config): config for config in self.configs.values()}
        return "\n".join(dict.fromkeys(filter(None, map(to_decode, distinct.values()))))


def _why_other(project: str, links: str, origin: RunDir, sweep: SweepDir) -> str:
    """As `Request.why_other`: whether all attempts at a run had this code of the project, what it links to, and the
    same versions.
    """
    attempts = read_lines(origin.provenance_file)
    if not attempts or any(attempt.get("project") != project for attempt in attempts):
        return "trained with other code of the project"
    if any(attempt.get("links") != links for attempt in attempts):
        return "trained with other files in project.links"
    return other_versions(origin, sweep)


def single(config: Config, facts: Facts, name: str) -> Plan:
    """The plan of a command that runs no grid: one cell."""
    plan = Plan(facts, config)
    plan.add(name, {}, config)
    return plan
