"""What the report says of two networks and of an evaluation, in both languages and for every outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.reporting.blocks import Paragraph
from src.reporting.report import verdict_sentence
from src.reporting.texts import LANGUAGES
from src.reporting.training import against_val, calibration
from tests.reporting.test_effects import report_in


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u202f", " ")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("found", "english", "french"),
    [
        (
            (0.1, False, 0.05, 0.15),
            "+0.1500: differs from 0 for these two networks",
            "diffère de 0",
        ),
        (
            (0.1, False, -0.05, 0.25),
            ": cannot be told from 0 for these two networks",
            "est compatible avec le hasard",
        ),
        (
            (0.1, True, 0.05, 0.15),
            "choice of the epochs +0.1000, 95 %",
            "choix des époques +0.1000",
        ),
        ((None, None, None, None), "no interval", "pas d'intervalle"),
    ],
)
def test_a_difference_has_one_verdict(
    tmp_path: Path, language: str, found: tuple[Any, ...], english: str, french: str
) -> None:
    row = dict(zip(("estimate", "crossed", "low", "high"), found, strict=True))
    assert {"en": english, "fr": french}[language] in plain(verdict_sentence(report_in(language, tmp_path), row))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("crossed", "explained", "english", "french"),
    [
        (
            0.48,
            True,
            "choice of the epoch: -0.0200 (95 % interval -0.0500 to +0.0100): compat",
            "choix de l'époque : -0.0200",
        ),
        (
            0.48,
            False,
            "chance explains with 200 and 800 examples",
            "le hasard explique avec 200 et 800 exemples",
        ),
        (
            None,
            None,
            "Test minus val accuracy: -0.0200 (95 % interval -0.0500 to +0.0100): no verdict",
            "pas de verdict, car val est la meilleure de 40",
        ),
    ],
)
def test_a_gap_has_a_verdict_where_it_can_have_one(
    tmp_path: Path, language: str, crossed: float | None, explained: bool | None, english: str, french: str
) -> None:
    against = {"n": 800, "accuracy": 0.5, "epochs": 40, "crossed": crossed, "gap": -0.02, "explained": explained}
    content = {"n": 200, "against_val": {**against, "interval": [-0.05, 0.01]}}
    (said,) = against_val(report_in(language, tmp_path), content)
    assert isinstance(said, Paragraph)
    assert {"en": english, "fr": french}[language] in plain(said.text)
    assert list(against_val(report_in(language, tmp_path), {"n": 200, "against_val": None})) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("value", "english", "french"),
    [
        (
            0.12,
            "at most 0.14 in 95 % of cases: no miscalibration can be shown",
            "aucun défaut de calibration",
        ),
        (
            0.2,
            "ECE 0.2 (95 % interval 0.06 to 0.25); a calibrated network would have 0.1",
            "ce réseau est mal calibré",
        ),
    ],
)
def test_the_calibration_error_never_stands_alone(
    tmp_path: Path, language: str, value: float, english: str, french: str
) -> None:
    found = {"value": value, "floor": 0.1, "bound": 0.14, "interval": [0.06, 0.25], "miscalibrated": value > 0.14}
    said = plain(calibration(report_in(language, tmp_path), found).text)
    assert {"en": english, "fr": french}[language] in said
    assert "0.1 " in said
