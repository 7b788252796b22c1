"""Whether a configuration is one of a program: it has the section `program`."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from relay.config import yaml_file
from relay.errors import ConfigError

SECTION = "program"


def is_program(file: str) -> bool:
    """Whether a configuration file is one of a program's experiment. Raises ConfigError if it cannot be read."""
    return SECTION in yaml_file.read_mapping(Path(file))


def configurations(root: Path, sections: Collection[str] = (SECTION,)) -> list[Path]:
    """The YAML files in a folder that have one of these sections. A file that cannot be read is none."""
    found = []
    for path in sorted(root.glob("*.yaml")):
        with contextlib.suppress(ConfigError):
            found += [path] if not yaml_file.read_mapping(path).keys().isdisjoint(sections) else []
    return found
