"""`--set key.path=value`: parsed, and set in nested values."""

from __future__ import annotations

from typing import Any

from relay.config import yaml_file
from relay.errors import ConfigError


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=1` -> ("a.b", 1), the value read as YAML. Raises ConfigError if `text` is not of that form."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {text!r}: write it as key.path=value, for example --set train.optimizer.lr=3e-4")
    return path.strip(), yaml_file.parse_yaml(value, f"--set {text!r}") if value.strip() else None


def set_key(content: dict[str, Any], path: str, value: Any) -> None:
    """Set `path` ("train.optimizer.lr") in nested dicts, and create sections that are absent or null."""
    names = path.split(".")
    # The name of an axis may be a key path itself: hparams.train.scheduler.gamma is one key of hparams.
    if names[0] == "hparams" and len(names) > 2:
        names = ["hparams", ".".join(names[1:])]
    for name in names[:-1]:
        if not isinstance(content.get(name), dict):
            content[name] = {}
        content = content[name]
    content[names[-1]] = value
