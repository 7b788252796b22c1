"""The two catalogues of sentences say the same, and every sentence is used."""

from __future__ import annotations

import re
from string import Formatter

import pytest
from markdown_it import MarkdownIt

from relay.config.yaml_file import read_mapping
from src.reporting.blocks import Items, Paragraph, TableBlock, is_numeric
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


@pytest.mark.parametrize(
    ("text", "french"),
    [
        ("lr 0.0005, 0.002 (28.9 %)", "lr 0,0005 ; 0,002 (28,9\u202f%)"),
        ("4 (1,234,567 -> 3,788.5)", "4 (1\u202f234\u202f567 -> 3\u202f788,5)"),
        ("-0.5 to +1.60e-03.", "-0,5 to +1,60e-03."),
        ("(3, 64, 64)", "(3, 64, 64)"),
        ("k=001_lr=2.00e-03, torch 2.9.1, runs/a_1.5/b.ckpt", "k=001_lr=2.00e-03, torch 2.9.1, runs/a_1.5/b.ckpt"),
        ("arXiv:1506.01186 v1.2 2026-12-01 12:30", "arXiv:1506.01186 v1.2 2026-12-01 12:30"),
    ],
)
def test_numbers_are_written_as_the_language_has_them(text: str, french: str) -> None:
    assert ReportTexts("fr").numbers(text) == french
    assert ReportTexts("en").numbers(text) == text
    table = TableBlock(["n"], [[ReportTexts("fr").numbers(cell)] for cell in ("1,234.5", "28.9 %", "< 0.001", "")])
    assert is_numeric(table, 0)


def test_figures_speak_french_but_names_stay() -> None:
    say = ReportTexts("fr").in_figure
    assert say("val accuracy\n(share\nof\nexamples)") == "val accuracy\n(part des exemples)"
    assert say("grid_1: mean per level,\nwith 95 % intervals; diamond: the best setting").splitlines() == [
        "grid_1: moyenne par valeur,",
        "avec des intervalles à 95\u202f%; losange : la meilleure combinaison",
    ]
    assert say("best epoch 6: 0.9600") == "meilleure époque 6 : 0,9600"
    assert say("k=1_mean=best_lr=0.5") == "k=1_mean=best_lr=0.5"
    assert ReportTexts("en").in_figure("best epoch 6: 0.96") == "best epoch 6: 0.96"


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
