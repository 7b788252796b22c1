"""The sentences of the report in each language, by name: texts.en.yaml and texts.fr.yaml beside this file."""

from __future__ import annotations

import re
from pathlib import Path

from src.config.yaml_file import read_mapping

LANGUAGES = ("en", "fr")
_BEFORE_SIGN = re.compile(r" (?=[:;?!»%])|(?<=«) ")


class Texts:
    """The sentences of one language. `texts("gap", name=value)` fills in the placeholders of the sentence `gap`."""

    def __init__(self, language: str) -> None:
        self.language = language
        sentences: dict[str, str] = read_mapping(Path(__file__).with_name(f"texts.{language}.yaml"))
        if language == "fr":
            # French puts a space before these signs and within guillemets; no line may break there.
            sentences = {name: _BEFORE_SIGN.sub("\u00a0", text) for name, text in sentences.items()}
        self.sentences = sentences

    def __call__(self, name: str, /, **values: object) -> str:
        """The sentence `name` with the values in its placeholders."""
        return self.sentences[name].format(**values)

    def has(self, name: str) -> bool:
        """Whether there is a sentence of this name."""
        return name in self.sentences
