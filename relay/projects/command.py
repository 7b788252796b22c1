"""What is refused of a command where its runs are planned."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relay.errors import ConfigError
from relay.program.values import NO_METRICS
from relay.projects.cells import Draft
from relay.projects.config import ProgramConfig
from relay.runs.project_snapshot import ProjectFiles
from relay.scripts.template import (
    ARGS,
    CHECKPOINT,
    PARAMS_FILE,
    RESERVED,
    RUN_DIR,
    VARIABLE_PREFIX,
    Template,
    value_problem,
    variable_of,
)

PYTHON = "python"
# In a file: the variable of one parameter, or, where the name is put together, of any.
_VARIABLE = re.compile(rb"%s(\w*)" % VARIABLE_PREFIX.encode())


def begins_with_python(command: str) -> bool:
    """Whether `program.python` is what a command executes."""
    return Template.read(command, "program.command").parts[:1] == [PYTHON]


def check_command(config: ProgramConfig, drafts: Sequence[Draft], project: ProjectFiles, python: Sequence[str]) -> None:
    """Raise ConfigError for a template that cannot be filled in, for parameters that reach the command nowhere, and for
    a script or a `python` (its words) that is not there.
    """
    program = config.program
    template = Template.read(program.command or "", "program.command")
    if not template.parts or not template.parts[0]:
        raise ConfigError("program.command: has no words; give a command such as python train.py --lr {lr}")
    added = Template.read(program.restart.add, "program.restart.add") if program.restart else None
    if config.metrics.select.name in NO_METRICS:
        raise ConfigError(
            f"metrics.select.name: {config.metrics.select.name} is a column of Relay's own; a command that logs it has "
            f"it as logged/{config.metrics.select.name}"
        )
    given = {name: None for draft in drafts for name in draft.params}
    _check_parameter_names(given)
    template.check_names(given, ARGS, PARAMS_FILE, RUN_DIR)
    if added:
        added.check_names(given, CHECKPOINT, PARAMS_FILE, RUN_DIR)
    for draft in drafts:
        problem = next(filter(None, (value_problem(name, value) for name, value in draft.params.items())), "")
        if problem:
            raise ConfigError(f"{problem} ({draft.name})" if len(drafts) > 1 else problem)
    _check_that_all_reach(given, [template, *([added] if added else [])], project)
    if template.parts[0] == PYTHON and "/" in python[0] and not os.access(python[0], os.X_OK):
        raise ConfigError(f"program.python: {python[0]} does not exist, or cannot be executed")
    _check_script(template, project)


def _check_parameter_names(given: Mapping[str, Any]) -> None:
    for name in RESERVED:
        if name in given:
            raise ConfigError(f"params.{name}: {{{name}}} has a meaning of its own in a command; choose another name")
    variables: dict[str, str] = {}
    for name in given:
        if re.search(r"[{}\x00]", name) or not name:
            raise ConfigError(f"params.{name}: a name without braces is needed, so that {{name}} can stand for it")
        other = variables.setdefault(variable_of(name), name)
        if other != name:
            raise ConfigError(
                f"params.{name}: {other} has the same variable, {variable_of(name)}; rename one of them, in params and "
                "between the braces"
            )


def _check_that_all_reach(given: Mapping[str, Any], templates: Sequence[Template], project: ProjectFiles) -> None:
    """Raise ConfigError for parameters that change nothing: a grid over them would be one of equal runs."""
    named = {name for template in templates for name in template.names}
    if named & {ARGS, PARAMS_FILE}:
        return
    left = [name for name in given if name not in named]
    if left:
        mentioned = {
            found.decode()
            for content in (*(part.encode() for template in templates for part in template.parts), *_contents(project))
            for found in _VARIABLE.findall(content)
        }
        left = [name for name in left if not mentioned & {"", variable_of(name).removeprefix(VARIABLE_PREFIX)}]
    if left:
        raise ConfigError(
            f"params.{left[0]}: reaches the command nowhere, so it would change nothing; name it in program.command: "
            f"--{left[0]} {{{left[0]}}}, or {{{ARGS}}} for all, or {{{PARAMS_FILE}}}; or read ${variable_of(left[0])}"
        )


def _contents(project: ProjectFiles) -> list[bytes]:
    return [path.read_bytes() for name in project.digests if (path := project.root / name).is_file()]


def _check_script(template: Template, project: ProjectFiles) -> None:
    """Raise ConfigError if the script is not there, or not in the runs' folder."""
    first, *rest = template.parts
    script = rest[0] if first == PYTHON and rest else first
    is_path = first == PYTHON or "/" in first
    if not is_path or script.startswith("-") or "{" in script or Path(script).is_absolute():
        return
    name = os.path.normpath(script)
    frozen = name in project.digests or any(f"{name}/".startswith(f"{link}/") for link in project.links)
    inside_link = any(f"{name}/".startswith(f"{each}/") for each in project.digests)
    if frozen or inside_link:
        if first != PYTHON and not os.access(project.root / name, os.X_OK):
            raise ConfigError(f"program.command: {script}: cannot be executed; chmod +x it, or name what executes it")
        return
    if (project.root / name).exists():
        raise ConfigError(
            f"program.command: {script} is in {project.root}, but not frozen: git ignores it, or it is no text; let "
            "git track it, or add it to project.links"
        )
    raise ConfigError(f"program.command: {script}: there is no such file in {project.root}, the folder of the project")
