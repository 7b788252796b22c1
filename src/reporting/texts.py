"""The sentences of the report in each language: texts.en.yaml and texts.fr.yaml, and those of relay/results."""

from __future__ import annotations

from pathlib import Path

from relay import texts
from relay.results.statements import STATEMENTS

LANGUAGES = texts.LANGUAGES


class ReportTexts(texts.Texts):
    """The sentences of the report in one language."""

    def __init__(self, language: str) -> None:
        super().__init__(language, Path(__file__).with_name("texts"), STATEMENTS)
