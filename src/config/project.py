"""The user's project of an experiment: which files are frozen with its runs, and what was read where it lies."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from relay.projects.kind import SECTION, configurations
from relay.runs.project_snapshot import ProjectFiles, is_snapshot, keep_project, read_project
from relay.user import expanded
from src.config.schema import Config


def project_of(config: Config) -> ProjectFiles:
    """The files of the project as they are now. Raises ConfigError."""
    root, paths = Path(config.project.path), config.paths
    results = [paths.runs, paths.artifacts, paths.logs, *caches_in(config)]
    # Configurations are none of the code: a grid with one more value executes what it did before.
    apart = [*results, *configurations(root, (*Config.model_fields, SECTION)), *_outputs()]
    return read_project(root, config.project.links, (), [path.absolute() for path in apart])


def caches_in(config: Config) -> tuple[Path, Path]:
    """Relay's own folders in `dataset.root`."""
    root = expanded(config.dataset.root)
    return root / "decoded", root / "hub"


def _outputs() -> list[Path]:
    """The files to which this command's output goes: one in the project would change while it is read."""
    found = []
    for number in (1, 2):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/self/fd/{number}").readlink())
    return found


def project_digest(config: Config) -> str:
    """What names the state of the project's files: those that are frozen for a run, or those of now."""
    root = Path(config.project.path)
    return root.name if is_snapshot(root) else project_of(config).digest


def linked_digest(config: Config) -> str:
    """A digest of the relative path, size and modification time of every file that `project.links` leads to."""
    digest = hashlib.sha256()
    own = {path.resolve() for path in caches_in(config)}
    for link in config.project.links:
        # A frozen project has links to the files, which lead to the same place.
        place = Path(config.project.path, link).resolve()
        digest.update(json.dumps([link, *_facts_below(place, own)]).encode())
    return digest.hexdigest()[:16]


def _facts_below(place: Path, apart: set[Path]) -> list[tuple[str, int, int]]:
    if place.is_file():
        facts = place.stat()
        return [("", facts.st_size, facts.st_mtime_ns)]
    found = []
    for parent, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if name[0] != "." and Path(parent, name) not in apart)
        for name in sorted(files):
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                facts = path.stat()
                found.append((str(path.relative_to(place)), facts.st_size, facts.st_mtime_ns))
    return found


@contextlib.contextmanager
def as_frozen(config: Config) -> Iterator[Config]:
    """The configuration with its project as a run has it: a copy of the files that are frozen, and the links.

    What is tried or read before a run is planned is so what the run will find. Raises ConfigError, RunError.
    """
    if not config.own_code or is_snapshot(Path(config.project.path)):
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="relay-project-") as folder:
        copy = keep_project(Path(folder), project_of(config))
        yield config.model_copy(update={"project": config.project.model_copy(update={"path": str(copy)})})


def explained(problem: str, frozen: Config, config: Config) -> str:
    """A problem of code in a frozen copy, in terms of the project that it was copied from."""
    root, copy = Path(config.project.path), frozen.project.path
    said = problem.replace(copy, str(root))
    if copy == str(root):
        return said
    module = re.search(r"it imports (\w+), which|there is no module (\w+) in", said)
    name = next(filter(None, module.groups()), "") if module else ""
    if name and ((root / f"{name}.py").is_file() or (root / name).is_dir()):
        return f"{said.partition(':')[0]}: {name} lies in the project, but {_NOT_FROZEN}"
    file = re.search(r"No such file or directory: '([^']+)'", said)
    if file and (root / file[1]).exists():
        return f"{said}; it lies in the project, but {_NOT_FROZEN}"
    return said


_NOT_FROZEN = (
    "is not frozen with it: .gitignore names it, it is hidden, not a text, or in a folder of results; code must be "
    "frozen, and what is only read can be listed in project.links"
)
