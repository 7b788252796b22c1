"""Whether a configuration is one of a program: it has the section `program`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from relay.config import yaml_file
from relay.errors import ConfigError

SECTION = "program"


def is_program(file: str) -> bool:
    """Whether a configuration file is one of a program's experiment. Raises ConfigError if it cannot be read."""
    return SECTION in yaml_file.read_mapping(Path(file))


def configurations(root: Path) -> list[Path]:
    """The configurations of programs in a folder. A file that cannot be read is none."""
    found = []
    for path in sorted(root.glob("*.yaml")):
        with contextlib.suppress(ConfigError):
            found += [path] if is_program(str(path)) else []
    return found
