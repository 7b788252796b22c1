"""The two catalogues of sentences say the same, and every sentence is used."""

from __future__ import annotations

import re
from string import Formatter

import pytest
from markdown_it import MarkdownIt

from relay.config.yaml_file import read_mapping
from src.reporting.blocks import Items, Paragraph, TableBlock
from src.reporting.rendering import render_markdown
from src.reporting.texts import ReportTexts
from tests.conftest import ROOT

FOLDER = ROOT / "src" / "reporting"
RESULTS = ROOT / "relay" / "results"


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_sentences_with_the_same_placeholders() -> None:
    english, french = (
        read_mapping(FOLDER / f"texts.{language}.yaml") | read_mapping(RESULTS / f"statements.{language}.yaml")
        for language in ("en", "fr")
    )
    assert list(english) == list(french)
    for name, text in english.items():
        assert placeholders(text) == placeholders(french[name]), name
        assert text.strip() == text, name


def test_every_sentence_is_used() -> None:
    code = "\n".join(
        path.read_text()
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "relay").rglob("*.py"), *FOLDER.glob("*.jinja")]
    )
    # `f"prompt_{name}"` uses all that begin with prompt_.
    prefixes = (*re.findall(r'f"(\w+_)\{', code), "column_", "question_", "gap_", "fact_", "figure_")
    unused = [
        name
        for name in ReportTexts("en").sentences
        if not name.startswith(prefixes) and not re.search(rf'["\']{name}["\']', code)
    ]
    assert unused == []


def test_french_signs_do_not_begin_a_line() -> None:
    sentences = ReportTexts("fr").sentences.values()
    assert not [text for text in sentences if re.search(r" [:;?!»%]|« ", text)]


@pytest.mark.parametrize(
    "text",
    [
        *("# no heading", "- no list", "1. no list", "3.5 is a number", "+ x", "=== x", "a_b_c _d_ *e*", "a | b"),
        *("`x` <b> &amp; \\", "![i](u) [l](u)", "~~x~~ $y$", "> quote", "--- ", "  indented", "two\nlines"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    plain = re.sub(r"\s+", " ", text).strip()
    blocks = [Paragraph(text), Items([text]), TableBlock([text], [[text]])]
    rendered = MarkdownIt("commonmark").enable("table").render(render_markdown(blocks, ReportTexts("en"), FOLDER))
    shown = [re.sub("&lt;", "<", part) for part in re.findall(r"<(?:p|li|th|td)>(.*?)</(?:p|li|th|td)>", rendered)]
    unescaped = [part.replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&").strip() for part in shown]
    assert unescaped == [plain] * 4
