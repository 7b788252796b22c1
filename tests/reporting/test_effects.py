"""The sentences about a grid in both languages, for every outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.config.loading import make_config
from src.reporting.blocks import Items, Paragraph
from src.reporting.effects import best_set_blocks, effects_blocks, seed_blocks
from src.reporting.finding import Sweeps
from src.reporting.report import Report
from src.reporting.texts import LANGUAGES, Texts
from src.results.answer import Answer, answer_of
from src.results.effects import Effects, Level, Term
from src.results.ranking import Ranking
from src.results.table import Table

SELECT = Ranking()


def report_in(language: str, folder: Path) -> Report:
    config = make_config({"paths": {"runs_dir": str(folder / "runs")}}, "a test")
    return Report(config, "a.yaml", Texts(language), folder, {}, Sweeps(config))


def effects(main: dict[str, Any], pair_p: float | None = None) -> Effects:
    """Two axes; `lr` has `main`, and the pair has `pair_p`."""
    terms = [
        Term(("lr",), main["share"], main["p"], 1),
        Term(("num_modules",), 0.1, 0.5, 1),
        Term(("lr", "num_modules"), 0.2, pair_p, 1),
    ]
    levels = {
        "lr": [Level(0.001, 2, 0.40, (0.3, 0.5)), Level(0.002, 2, 0.46, None)],
        "num_modules": [Level(4, 2, 0.43, None), Level(6, 2, 0.43, None)],
    }
    return Effects(8, 4, True, terms, levels, 0.01, 4, "seeds", 2.0)


def sentence(language: str, folder: Path, found: Effects) -> str:
    table = Table("grid", [], ["lr", "num_modules"], SELECT)
    blocks = list(effects_blocks(report_in(language, folder), Answer(table, [], None, found)))
    (items,) = (block for block in blocks if isinstance(block, Items))
    return items.items[0].replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("main", "pair_p", "english", "french"),
    [
        ({"share": 0.61, "p": 0.0001}, None, "0.002 is best on average, by 0.0600 against 0.001", "p < 0.001, 61.0 %"),
        ({"share": 0.61, "p": 0.02}, 0.01, "how much depends on num_modules (p = 0.020", "l'ampleur dépend de num"),
        ({"share": 0.003, "p": 0.41}, None, "no effect that these 8 runs can show (p = 0.410", "runs puissent montrer"),
        ({"share": 0.003, "p": 0.41}, 0.01, "one that depends on num_modules", "un effet qui dépend de num_modules"),
        ({"share": 0.61, "p": None}, None, "too few runs to say whether", "trop peu de runs pour dire si"),
        ({"share": None, "p": None}, None, "cannot be told apart", "ne se distingue pas des autres axes"),
    ],
)  # fmt: skip
def test_a_verdict_for_each_axis(
    tmp_path: Path, main: dict[str, Any], pair_p: float | None, english: str, french: str
) -> None:
    assert english in sentence("en", tmp_path, effects(main, pair_p))
    assert french in sentence("fr", tmp_path, effects(main, pair_p))


@pytest.mark.parametrize("language", LANGUAGES)
def test_seeds_and_a_threshold_have_sentences(tmp_path: Path, language: str) -> None:
    values = {(lr, seed): 0.5 + 10 * lr + 0.001 * seed for lr in (0.001, 0.002, 0.02) for seed in (1, 2)}
    rows = [
        {"index": n, "run": f"k={n}", "state": "done", "lr": lr, "seed": seed, "val/accuracy": value, "val/loss": 1.0}
        for n, ((lr, seed), value) in enumerate(values.items())
    ]
    answer = answer_of(Table("grid", rows, ["lr", "seed"], SELECT), lambda _: None)
    assert answer.best_set
    report = report_in(language, tmp_path)
    said = [block.text for block in best_set_blocks(report, answer) if isinstance(block, Paragraph)]
    assert said[0] == report.texts("best_set_alone", count=0, total=2)
    assert f"{answer.effects.threshold:.4f}" in said[1] if answer.effects and answer.effects.threshold else False
    assert len(list(seed_blocks(report, answer))) == 2
