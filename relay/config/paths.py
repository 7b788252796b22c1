"""Where results go: the section `paths`, which every experiment has, read without the rest of its configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relay.config import yaml_file
from relay.config.messages import describe
from relay.config.overrides import parse_override, set_key
from relay.config.sections import Paths, Section
from relay.errors import ConfigError


class _OnlyPaths(Section):
    paths: Paths = Paths()


def load_paths(file: str | Path, overrides: Iterable[str] = ()) -> Paths:
    """The folders that a configuration names. Raises ConfigError only for what is wrong with them, or with the file."""
    content = {"paths": _given(yaml_file.read_mapping(Path(file)))}
    for path, value in map(parse_override, overrides):
        if path.partition(".")[0] == "paths":
            set_key(content, path, value)
    return paths_of(content, file)


def paths_of(content: Mapping[str, Any], source: str | Path) -> Paths:
    """The folders in the plain values of a configuration, such as the one that a sweep.yaml holds."""
    try:
        return _OnlyPaths.model_validate({"paths": _given(content)}).paths
    except ValidationError as error:
        raise ConfigError(describe(error, _OnlyPaths, str(source))) from None


def _given(content: Mapping[str, Any]) -> Any:
    # `paths:` with nothing below it means the defaults, as an absent section does.
    section = content.get("paths")
    return {} if section is None else section
