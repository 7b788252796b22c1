"""Sentences in several languages, by name, from YAML files."""

from __future__ import annotations

import re
from pathlib import Path

from relay.config.yaml_file import read_mapping

LANGUAGES = ("en", "fr")
_BEFORE_SIGN = re.compile(r" (?=[:»])|(?<=«) ")
_NARROW = re.compile(r" (?=[;?!%])")


class Texts:
    """The sentences of one language. `texts("gap", name=value)` fills in the placeholders of the sentence `gap`."""

    def __init__(self, language: str, *files: Path) -> None:
        self.language = language
        self.sentences: dict[str, str] = {}
        for file in files:
            self.sentences |= read_mapping(file.with_name(f"{file.name}.{language}.yaml"))
        if language == "fr":
            # French puts a space before these signs, narrow or not, and within guillemets; no line may break there.
            self.sentences = {
                name: _NARROW.sub("\u202f", _BEFORE_SIGN.sub("\u00a0", text)) for name, text in self.sentences.items()
            }

    def __call__(self, name: str, /, **values: object) -> str:
        """The sentence `name` with the values in its placeholders."""
        return self.sentences[name].format(**values)

    def has(self, name: str) -> bool:
        """Whether there is a sentence of this name."""
        return name in self.sentences
