"""The sentences about a grid in both languages, for every outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.results.answer import Answer, answer_of
from relay.results.statements import effect_statements
from relay.results.statistics.design import Trend
from relay.results.statistics.effects import Effects, Level, Slope, Term
from relay.results.statistics.failures import LevelFailures
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Table
from src.config.loading import make_config
from src.reporting.blocks import Items, Paragraph
from src.reporting.effects import best_set_blocks, effects_blocks, seed_blocks
from src.reporting.finding import Sweeps
from src.reporting.report import Report
from src.reporting.texts import LANGUAGES, ReportTexts

SELECT = Ranking()


def report_in(language: str, folder: Path) -> Report:
    config = make_config({"paths": {"runs_dir": str(folder / "runs")}}, "a test")
    return Report(config, "a.yaml", ReportTexts(language), folder, {}, Sweeps(config))


def effects(
    p_value: float | None, *, share: float | None = 0.61, pair_p: float | None = None, **changed: Any
) -> Effects:
    """Two axes; `lr` has this adjusted p value and share, and the pair has `pair_p`."""
    terms = [
        Term(("lr",), share, p_value, 2, p_value),
        Term(("num_modules",), 0.1, 0.5, 1, 0.5),
        Term(("lr", "num_modules"), 0.2, pair_p, 2, pair_p),
    ]
    clear = p_value is not None and p_value < 0.05
    worse = changed.pop("worse", [{1, 2}, (), ()])
    means = (0.30, 0.45, 0.46)
    levels = {
        "lr": [
            Level(value, 2, mean, (mean - 0.1, mean + 0.1), frozenset(own) if clear else None)
            for value, mean, own in zip((0.0001, 0.001, 0.002), means, worse, strict=True)
        ],
        "num_modules": [Level(4, 3, 0.43, None), Level(6, 3, 0.43, None)],
    }
    options: dict[str, Any] = {"complete": True, "new_images": False, "noise": 0.01, "planned": 6, **changed}
    return Effects(
        runs=6,
        cells=6,
        terms=terms,
        levels=levels,
        degrees=6,
        repetitions=1,
        **options,
    )


FAILED = {"lr": [LevelFailures(0.1, 5, 6, 0.002, dropped=True), LevelFailures(0.01, 1, 6, 1.0, dropped=False)]}
SLOPE = {"lr": Slope(Trend(True, -3, 2), 0.02, (0.01, 0.03), 0.003)}


@pytest.mark.parametrize(
    ("found", "english", "french"),
    [
        (effects(0.0001), "0.002 and 0.001 cannot be told apart; both are better than 0.0001 (adjusted p < 0.001 on",
         "0.002 et 0.001 ne se distinguent pas ; les deux sont meilleurs que 0.0001 (p < 0.001 ajusté sur ces données"),
        (effects(0.02, worse=[{1, 2}, {2}, ()]), "lr: 0.002 is better than 0.001 and 0.0001 (adjusted p = 0.020",
         "lr : 0.002 est meilleur que 0.001 et 0.0001 (p = 0.020 ajusté"),
        (effects(0.02, worse=[{2}, (), ()]), "0.002 is better than 0.0001, and cannot be told from 0.001",
         "0.002 est meilleur que 0.0001, et ne se distingue pas de 0.001"),
        (effects(0.02, worse=[(), (), ()]), "has an effect, but no two of its values can be told apart",
         "aucune de ses valeurs ne se distingue"),
        (effects(0.02, pair_p=0.01), "; how much depends on num_modules (", "l'ampleur dépend de num"),
        (effects(0.02, pair_p=0.01, complete=False), "lr: its effect depends on num_modules (", "effet dépend de num"),
        (effects(0.41), "lr: no difference between its values can be shown (adjusted p = 0.410 on this data,",
         "l'écart entre ses valeurs est compatible avec le hasard"),
        (effects(0.41, new_images=True), "shown (adjusted p = 0.410, 61.0 %", "hasard (p = 0.410 ajusté, 61.0 %"),
        (effects(0.41, pair_p=0.01), "one that depends on num_modules", "un effet qui dépend de num_modules"),
        (effects(None), "0.002 is best on average, by 0.1600 against 0.0001; there are too few", "trop peu de runs"),
        (effects(None, share=None), "cannot be told apart from the other axes", "distingue pas des autres axes"),
        (effects(0.41, failures=FAILED), "lr: 0.1 failed in 5 of 6 runs and is left out; 0.01 failed in 1 of",
         "0.1 a échoué dans 5 runs sur 6 et n'est pas comparé ; 0.01 a échoué dans 1 runs sur 6 ; l'écart"),
        (effects(0.01, slopes=SLOPE), "lr: best near 0.003 on a fitted curve; at the middle of its range, "
         "val/accuracy changes by +0.0200 (95 %: +0.0100 to +0.0300) per", "lr : le meilleur est vers 0.003 sur une"),
    ],
)  # fmt: skip
def test_a_verdict_for_each_axis(tmp_path: Path, found: Effects, english: str, french: str) -> None:
    table = Table("grid", [], ["lr", "num_modules"], SELECT)
    for language, expected in (("en", english), ("fr", french)):
        blocks = list(effects_blocks(report_in(language, tmp_path), Answer(table, [], None, found)))
        (items,) = (block for block in blocks if isinstance(block, Items))
        assert expected in items.items[0].replace("\u00a0", " ").replace("\u202f", " ")


def test_an_axis_with_one_value_left_is_not_compared() -> None:
    only = effects(0.4, failures={"wd": [LevelFailures(0.1, 3, 3, 0.01, dropped=True)]})
    assert effect_statements(only, SELECT, ReportTexts("en"))[0] == "wd: 0.1 failed in 3 of 3 runs and is left out."


@pytest.mark.parametrize("language", LANGUAGES)
def test_seeds_and_the_best_set_have_sentences(tmp_path: Path, language: str) -> None:
    values = {(lr, seed): 0.5 + 10 * lr + 0.001 * seed for lr in (0.001, 0.002, 0.02) for seed in (1, 2)}
    rows = [
        {"index": n, "run": f"k={n}", "state": "done", "lr": lr, "seed": seed, "val/accuracy": value, "val/loss": 1.0}
        for n, ((lr, seed), value) in enumerate(values.items())
    ]
    answer = answer_of(Table("grid", rows, ["lr", "seed"], SELECT), lambda _: None)
    assert answer.best_set
    report = report_in(language, tmp_path)
    said = [block.text for block in best_set_blocks(report, answer) if isinstance(block, Paragraph)]
    assert said == [
        report.texts("best_set_alone_settings", total=2),
        report.texts("guarantee_seeds"),
        report.texts("noise_run_seeds", noise="0.0007", degrees="3"),
        report.texts("edge_largest", axis="lr", value="0.02"),
    ]
    title, _ = seed_blocks(report, answer)
    assert isinstance(title, Paragraph)
    assert report.texts("scope_seeds") in title.text
