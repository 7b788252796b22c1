"""What `train`, `grid` and `compare` request for a program, and which runs they take. Nothing here writes a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.errors import ConfigError, RunError
from relay.files import read_lines
from relay.program.values import TABLE_COLUMNS
from relay.projects.cells import Draft, compare_drafts, grid_drafts, make_cells, refuse_equals, single_draft
from relay.projects.command import begins_with_python, check_command
from relay.projects.config import Program, ProgramConfig, project_root, python_of
from relay.projects.kind import configurations
from relay.projects.parameters import Description, describe_cells, versions_of
from relay.runs.environment import differences
from relay.runs.project_snapshot import read_project
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request
from relay.text import shortlist

KIND = "program"
# The sections of a run's configuration that its key does not cover and that can change its result.
_BEYOND_KEY = ("program", "metrics")


def grid_request(config: ProgramConfig, file: str) -> Request:
    """Every cell of the grid."""
    return _request(config, file, config.hparams.tag, grid_drafts(config), is_grid=True)


def compare_request(config: ProgramConfig, file: str) -> Request:
    """The base and each variant."""
    return _request(config, file, config.compare.tag, compare_drafts(config))


def train_request(config: ProgramConfig, file: str, params: Mapping[str, Any] | None = None) -> Request:
    """One run with the configuration's parameters, and `params` in place of some of them."""
    return _request(config, file, "train", [single_draft(config, "train", params or {})])


def verify_request(config: ProgramConfig, file: str) -> Request:
    """The first run of the grid, or the only one, with the parameters of `verify.params`."""
    first = grid_drafts(config)[0] if config.hparams.axes else single_draft(config, "train", {})
    draft = Draft("train", {}, {**first.params, **config.verify.params})
    return _request(config, file, "train", [draft])


def _request(config: ProgramConfig, file: str, tag: str, drafts: Sequence[Draft], *, is_grid: bool = False) -> Request:
    root = project_root(config, file)
    python, program = python_of(config, root), config.program
    # Configurations are none of the code: a grid with one more value executes what it did before.
    apart = [config.paths.runs, config.paths.artifacts, config.paths.logs, Path(file), *configurations(root)]
    project = read_project(root, config.project.links, config.project.writes, [path.absolute() for path in apart])
    given = {draft.name: draft.params for draft in drafts}
    if program.function:
        described = describe_cells(python, root, program.function, given)
    else:
        check_command(config, drafts, project, python)
        # Only to reuse finished runs: where runs are planned, a Python in a container may be missing.
        is_known = config.inputs is not None and begins_with_python(program.command or "")
        described = Description(given, versions_of(python, root) if is_known else {})
    refuse_equals(drafts, described.parameters)
    _require_name(config, root)
    fixed = {
        "paths": {name: str(Path(path).absolute()) for name, path in config.paths.model_dump().items()},
        "program": {**program.model_dump(mode="json"), **_executed_by(program, python), "project": str(root)},
        "project": {"writes": list(config.project.writes)},
        "inputs": None if config.inputs is None else {name: str((root / name).absolute()) for name in config.inputs},
        "metrics": config.metrics.model_dump(),
        "checkpoint": config.checkpoint.model_dump(),
        "verify": {"compare": list(config.verify.compare)},
    }
    cells = make_cells(config, drafts, fixed)
    return Request(
        KIND,
        tag,
        cells,
        config.paths,
        {name: section for name, section in config.to_dict().items() if name != "inputs"},
        axis_names={path: _axis_name(path) for cell in cells for path in cell.overrides},
        inputs=hashlib.sha256(f"{root} {program.what}".encode()).hexdigest()[:16],
        inputs_name="its inputs",
        prepare=lambda _: _digests(config, root, [draft.name for draft in drafts]),
        select=config.metrics.select,
        is_grid=is_grid,
        project=project,
        why_other=lambda origin, sweep: why_other(origin, sweep, described.versions),
    )


def _executed_by(program: Program, python: Sequence[str]) -> dict[str, Any]:
    """The words of `python`; and `path`, the folder of one that was given, which is in front of a command's PATH, for
    torchrun, and for scripts that call python.
    """
    is_path = program.python is not None and len(python) == 1 and "/" in python[0]
    return {"python": list(python), "path": str(Path(python[0]).parent) if is_path else None}


def _axis_name(path: str) -> str:
    """The name of a parameter; its key path if tables have a column of that name."""
    name = path.removeprefix("params.")
    return path if name in TABLE_COLUMNS else name


def _require_name(config: ProgramConfig, root: Path) -> None:
    """Two projects whose results go to one folder may have functions of the same name."""
    if config.program.name is None and not config.paths.runs.absolute().is_relative_to(root):
        raise ConfigError(
            f"program.name: missing; paths.runs_dir ({config.paths.runs_dir}) lies outside of the project {root}, and "
            "may hold runs of other projects; give a name that no other project there has"
        )


def _digests(config: ProgramConfig, root: Path, names: Sequence[str]) -> dict[str, str]:
    """The digest of the inputs for each cell, if it is known which there are."""
    if config.inputs is None:
        return {}
    digest = inputs_digest({name: root / name for name in config.inputs})
    return dict.fromkeys(names, digest)


def inputs_digest(inputs: Mapping[str, Path]) -> str:
    """16 hex digits of the content of files, and of all files below folders, by their names. Raises ConfigError."""
    found = hashlib.sha256()
    for name, path in sorted(inputs.items()):
        for file in _files_of(path):
            try:
                with file.open("rb") as opened:
                    content = hashlib.file_digest(opened, "sha256").hexdigest()
            except OSError as error:
                raise ConfigError(f"inputs: {name}: {file}: cannot be read: {error.strerror}") from None
            relative = file.relative_to(path) if path.is_dir() else ""
            found.update(f"{name} {relative} {content}\n".encode(errors="surrogateescape"))
    return found.hexdigest()[:16]


def _files_of(path: Path) -> list[Path]:
    """The file, or all files below the folder. Links are followed, each folder once."""
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if os.path.realpath(f"{parent}/{name}") not in seen)
        seen |= {os.path.realpath(f"{parent}/{name}") for name in folders}
        files += [Path(parent, name) for name in names]
    return sorted(files)


def why_other(origin: RunDir, sweep: SweepDir, versions: Mapping[str, str]) -> str:
    """Why a finished run with an equal key and equal inputs is not the run that `sweep` would execute; "" if it is.

    `versions`: of all that is installed for the program now. A run is the same only if all its attempts had the same
    code of the project and of Relay, the same command as Python, and the same versions.
    """
    then, now = origin.config(), sweep.runs()[0].config()
    other = [
        f"{name}.{key}" for name in _BEYOND_KEY for key, value in now[name].items() if then[name].get(key) != value
    ]
    if other:
        return f"executed with another value of {shortlist(other)}"
    if elsewhere := (origin.result() or {}).get("elsewhere"):
        return f"executed with code from outside of the project ({shortlist(elsewhere)})"
    try:
        attempts = read_lines(origin.provenance_file)
    except RunError:
        attempts = []
    # An attempt that was killed early may have left no line, but a state.
    known = {attempt.get("attempt") for attempt in attempts}
    if not attempts or any(each.number not in known for each in origin.attempts()):
        return "executed with code that is not known"
    if not versions:
        return "executed by a command of which no versions are known"
    meta = sweep.meta()
    if any(attempt.get("project") != meta["project"] for attempt in attempts):
        return "executed with other code of the project"
    if any(attempt.get("code_snapshot") != meta["snapshot"] for attempt in attempts):
        return "executed by another version of Relay"
    changes = next(filter(None, (differences(attempt.get("versions") or {}, versions) for attempt in attempts)), "")
    return f"executed under other versions ({shortlist(changes.split('; '))})" if changes else ""
