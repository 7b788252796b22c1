"""The config.yaml of each run of a sweep, and the content key that it has once it is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.config import yaml_file
from src.config.schema import Config
from src.runs.kinds import content_key_of
from src.section import Section
from src.user import expanded


class ConfigTexts:
    """The text of each section is made once, no matter how many runs share it.

    Measured for a grid of 4,000 cells over the learning rate, in which one section of twelve differs: 0.5 s of CPU for
    all texts and keys; without sharing, 8.3 s.
    """

    def __init__(self) -> None:
        # Keyed by identity, because equal sections need not have the same text: 0.0 == -0.0. The entry holds a
        # reference to its section, so that Python does not give the id to another object.
        self._texts: dict[int, tuple[Section, dict[str, Any], str]] = {}

    def text(self, config: Config) -> str:
        """The configuration with its paths absolute, as `dump_yaml` writes it."""
        return "".join(self._section(name, section)[1] for name, section in config)

    def key(self, config: Config, kind: str) -> str:
        """The content key that the configuration will have when a node reads its text back."""
        return content_key_of({name: self._section(name, section)[0] for name, section in config}, kind)

    def _section(self, name: str, section: Section) -> tuple[dict[str, Any], str]:
        if id(section) not in self._texts:
            content = with_absolute_paths(name, section)
            self._texts[id(section)] = (section, content, yaml_file.dump_yaml({name: content}))
        return self._texts[id(section)][1:]


def with_absolute_paths(name: str, section: Section) -> dict[str, Any]:
    """The section `name` as plain values with absolute paths, so that it means the same in every folder and on every
    node.
    """
    content: dict[str, Any] = section.model_dump(mode="json")
    if name == "paths":
        return {key: str(Path(value).absolute()) for key, value in content.items()}
    if name == "dataset":
        content["root"] = str(expanded(content["root"]).absolute())
        folder = expanded(content["name"])
        if content["source"] == "folder" or (content["source"] == "auto" and folder.is_dir()):
            content |= {"name": str(folder.absolute()), "source": "folder"}
    if name == "evaluation" and content["checkpoint"]:
        content["checkpoint"] = str(expanded(content["checkpoint"]).absolute())
    return content
