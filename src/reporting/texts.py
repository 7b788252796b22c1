"""The sentences of the report in each language: texts.en.yaml and texts.fr.yaml, and those of relay/results."""

from __future__ import annotations

import re
from pathlib import Path

from relay import texts
from relay.config.yaml_file import read_mapping
from relay.results.statements import STATEMENTS

LANGUAGES = texts.LANGUAGES
_NARROW_SPACE = "\u202f"
# A number by itself: no part of a name, a path, a version or an identifier.
_NUMBER = re.compile(r"(?<![\w.,=/:@\-])([-+]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?=(?:e[-+]?\d+)?(?!\w|[./=@:]\w|,\d))")
_LISTED = re.compile(r"(?<=\d,\d)(\d*), (?=[-+]?\d)")
_PER_CENT = re.compile(r"(?<=\d)[ \u00a0]%")


class ReportTexts(texts.Texts):
    """The sentences of the report in one language."""

    def __init__(self, language: str) -> None:
        super().__init__(language, Path(__file__).with_name("texts"), STATEMENTS)
        file = Path(__file__).with_name(f"figures.{language}.yaml")
        # Figures are drawn in English.
        drawn = read_mapping(file) if file.exists() else {}
        self._drawn = [(_in_a_label(pattern), words) for pattern, words in drawn.items()]

    def in_figure(self, text: str) -> str:
        """A text of a figure in this language."""
        for pattern, words in self._drawn:
            text = pattern.sub(words, text)
        return self.numbers(text)

    def numbers(self, text: str) -> str:
        """The text with its numbers as the language writes them: `1,234.5` is `1 234,5` in French."""
        if self.language != "fr":
            return text
        return _PER_CENT.sub("\u202f%", _LISTED.sub(r"\1 ; ", _NUMBER.sub(_in_french, text)))


def _in_a_label(pattern: str) -> re.Pattern[str]:
    """Finds whole words, in labels that may be wrapped at their spaces."""
    found = pattern.replace(" ", r"\s")
    return re.compile(found if pattern[-1:] in " :" else rf"(?<![\w=/.-]){found}(?![\w=])")


def _in_french(found: re.Match[str]) -> str:
    sign, whole, decimals = found.groups()
    # No line breaks at the space within a number.
    return sign + whole.replace(",", _NARROW_SPACE) + (decimals or "").replace(".", ",")
