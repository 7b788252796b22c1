"""The sentences of the report in each language, by name: texts.en.yaml and texts.fr.yaml beside this file."""

from __future__ import annotations

from pathlib import Path

from src.config.yaml_file import read_mapping

LANGUAGES = ("en", "fr")


class Texts:
    """The sentences of one language. `texts("gap", name=value)` fills in the placeholders of the sentence `gap`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self.sentences: dict[str, str] = read_mapping(Path(__file__).with_name(f"texts.{language}.yaml"))

    def __call__(self, name: str, /, **values: object) -> str:
        return self.sentences[name].format(**values)

    def has(self, name: str) -> bool:
        """Whether there is a sentence of this name."""
        return name in self.sentences
