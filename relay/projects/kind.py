"""Whether a configuration is one of a program: it has the section `program`."""

from __future__ import annotations

from pathlib import Path

from relay.config import yaml_file

SECTION = "program"


def is_program(file: str) -> bool:
    """Whether a configuration file is one of a program's experiment. Raises ConfigError if it cannot be read."""
    return SECTION in yaml_file.read_mapping(Path(file))
