"""Drafts: what they say of the numbers, and how a user accepts or replaces one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relay.results.tables.ranking import Ranking
from src.config.loading import make_config
from src.reporting import drafts
from src.reporting.blocks import Comment, Heading
from src.reporting.compose import _without_folders
from src.reporting.rendering import render_html, render_markdown
from src.reporting.report import Report
from src.reporting.texts import LANGUAGES, ReportTexts
from src.reporting.words import words_of
from tests.reporting.conftest import Project
from tests.reporting.test_effects import report_in
from tests.reporting.test_report import QUESTIONS, between


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_whole_experiment_has_a_draft_wherever_a_judgement_is_asked_for(project: Project, language: str) -> None:
    markdown, html = project.report(language)
    texts = ReportTexts(language)
    for name in drafts.DRAFTS:
        part = between(markdown, name, following(name)).replace("\\", "")
        assert f"> **{texts('draft')}** {texts('draft_note', name=name)}\n>\n> - " in part, name
    assert html.count('class="own draft"') == len(drafts.DRAFTS)
    links = re.findall(r"^!\[.*\]\((\S+?)/", markdown, re.M)
    assert set(links) == {"figures" if language == "en" else f"figures.{language}"}
    folders = (str(Path.cwd()), str(Path.home()))
    assert not [folder for folder in folders if f"{folder}/" in markdown.replace(str(project.folder), "")]


def following(name: str) -> str:
    order = [*QUESTIONS, "limits", "errors", "ideas", "section_11"]
    return order[order.index(name) + 1]


def test_ok_accepts_a_draft_and_own_words_replace_it(tmp_path: Path) -> None:
    texts = ReportTexts("en")
    shown = {}
    for text in ("", "ok", "OK", "My own words."):
        report = report_in("en", tmp_path)
        made = Report(
            report.config,
            "a.yaml",
            texts,
            tmp_path,
            {"M4": text},
            report.sweeps,
            drafts={"M4": lambda _: iter(["The rate is 0.5."])},
        )
        (comment,) = made.comment("M4")
        page = render_html([Heading(1, "t", "top"), comment], texts)
        shown[text] = render_markdown([comment], texts, tmp_path), page, comment.is_draft
    for text, (markdown, page, is_draft) in shown.items():
        assert is_draft == (text == "")
        assert (texts("draft") in markdown) == (texts("draft") in page) == is_draft
        assert ("The rate is 0.5." in markdown) == ("The rate is 0.5." in page) == (text != "My own words.")
    assert "My own words." in shown["My own words."][0]


def test_ok_without_a_draft_is_still_to_be_written(tmp_path: Path) -> None:
    report = report_in("en", tmp_path)
    made = Report(report.config, "a.yaml", report.texts, tmp_path, {"M4": "ok"}, report.sweeps)
    (comment,) = made.comment("M4")
    assert comment == Comment("M4", report.texts("prompt_M4"), "", [], accepted=True)
    assert report.texts("comment_missing", name="M4") in render_markdown([comment], report.texts, tmp_path)


CURVES = {"falls": [2.0, 1.5, 1.2, 1.1], "rises": [2.0, 1.2, 1.25, 1.9], "flat": [2.0, 1.2, 1.3, 1.21]}


@pytest.mark.parametrize(
    ("val", "best", "said", "unsaid"),
    [
        ("falls", 4, "Train longer", "overfitting after"),
        ("falls", 3, "no overfitting is visible", "Train longer"),
        (
            "rises",
            2,
            "From epoch 2 to 4, val/loss rises by 0.7 while the train loss falls by 0.3: overf",
            "Train longer",
        ),
        ("flat", 2, "does not tell overfitting from fluctuation", "overfitting after"),
    ],
)
def test_the_curves_decide_between_over_and_underfitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val: str, best: int, said: str, unsaid: str
) -> None:
    curves: Mapping[str, Sequence[float]] = {"val/loss": CURVES[val], "train/loss_epoch": [2.0, 1.0, 0.8, 0.7]}
    monkeypatch.setattr(drafts, "_trained", lambda _: SimpleNamespace(result=lambda: {"best": {"epoch": best}}))
    monkeypatch.setattr(
        drafts, "curve_of", lambda _, name: ([1.0, 2.0, 3.0, 4.0][: len(curves.get(name, []))], [*curves.get(name, [])])
    )
    text = " ".join(drafts.DRAFTS["M6"](report_in("en", tmp_path)))
    assert said in text
    assert unsaid not in text


@pytest.mark.parametrize(
    ("expected", "low", "high", "said"),
    [
        ("Worse: a slower start", -0.2, -0.1, "what was expected held: val/accuracy is worse"),
        ("Better, I hope", -0.2, -0.1, "what was expected did not hold: val/accuracy is worse"),
        ("meilleur", 0.1, 0.2, "what was expected held: val/accuracy is better"),
        ("Better", -0.1, 0.2, "cannot be told"),
        ("A slower start", -0.2, -0.1, "is for you to say"),
        (None, -0.2, -0.1, "nothing was expected in writing"),
    ],
)
def test_an_expectation_held_did_not_hold_or_cannot_be_told(
    tmp_path: Path, expected: str | None, low: float, high: float, said: str
) -> None:
    row: dict[str, Any] = {"difference": (low + high) / 2, "low": low, "high": high, "expected": expected}
    assert said in drafts._held(report_in("en", tmp_path), row, Ranking())


def test_paths_are_those_below_the_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert _without_folders(f"see {tmp_path}/runs/a/best.ckpt, '{tmp_path}/b'") == "see runs/a/best.ckpt, 'b'"
    assert _without_folders("/home/ada/data and /home/adam/data") == "~/data and /home/adam/data"


def test_classes_have_words_where_the_data_has_them(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n01443537\tgoldfish, Carassius auratus\nn00000001\tentity\n")
    (tmp_path / "train").mkdir()
    for folder in (tmp_path, tmp_path / "train"):
        dataset = make_config({"dataset": {"name": str(folder)}}, "a test").dataset
        assert words_of(dataset, ["n01443537", "cat"]) == {"n01443537": "goldfish"}
    assert words_of(make_config({}, "a test").dataset, ["n01443537"]) == {}
