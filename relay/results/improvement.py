"""What a second grid found against the first one (M8 of the report): the best of one minus the best of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relay.results.answer import Answer
from relay.results.statistics.image_scores import ImageScores, read_scores
from relay.results.statistics.intervals import LEVEL, Estimate
from relay.results.statistics.noise import Spread, noise_of
from relay.results.statistics.pairs import UNPAIRED, Difference, Scope, difference_of, verdict_text, verdicts
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import SettingResults
from relay.runs.predictions import Predictions
from relay.runs.rundir import SweepDir


def improvement(
    refined: SweepDir, refined_answer: Answer, first: SweepDir, first_answer: Answer
) -> dict[str, Any] | None:
    """The best setting of `refined` minus that of `first`; None while one of them has no finished cell.

    Keys: `first`, `refined` ({sweep, run, value, epochs}), `metric`, `difference` (of the best values), `estimate`,
    `low` and `high` (95 %, corrected for the choice of the epochs where `crossed`; None without results per image),
    `scope` (whether they hold for new images and seeds, "settings", or for these two "networks" on new images),
    `paired` (whether both are of the same images), `sentence`.
    """
    answers = first_answer, refined_answer
    sides, settings, runs = [], [], []
    for sweep, answer in zip((first, refined), answers, strict=True):
        setting, row = answer.best(), answer.best_row()
        if setting is None or row is None:
            return None
        settings.append(setting)
        runs.append(sweep.run(str(row["run"])))
        sides.append({"sweep": sweep.name, "run": row["run"], "value": setting.mean, "epochs": row["epochs"]})
    select = answers[1].table.select
    difference = sides[1]["value"] - sides[0]["value"]
    found, scope = between_settings((first, refined), answers, settings), Scope.SETTINGS
    if found is None:
        found, scope = difference_of(runs[1], runs[0], select.name), Scope.NETWORKS
    (verdict,) = verdicts([found])
    unequal = "" if sides[0]["epochs"] == sides[1]["epochs"] else " The two also differ in their epochs."
    seen = verdict_text(select.column, difference, found, verdict, scope=scope)
    # Each is the best of many, so each value is too high. Simulated for 4 to 48 cells that are equally good, the
    # interval covered the difference of these networks in 94 to 100 %.
    seen += ", and both were selected for their values" if verdict else ""
    seen += f" ({UNPAIRED})" if found and not found.paired else ""
    sentence = (
        f"best of {refined.name} ({sides[1]['run']}, {sides[1]['epochs']:g} epochs) minus best of {first.name} "
        f"({sides[0]['run']}, {sides[0]['epochs']:g} epochs): {seen}.{unequal}"
    )
    return {
        "first": sides[0],
        "refined": sides[1],
        "metric": select.column,
        "difference": difference,
        "estimate": found.value if found and verdict else None,
        "low": verdict.low if verdict else None,
        "high": verdict.high if verdict else None,
        "scope": scope.value,
        "crossed": bool(found and found.crossed),
        "paired": found.paired if found else None,
        "sentence": sentence,
    }


def between_settings(
    sweeps: Sequence[SweepDir], answers: Sequence[Answer], settings: Sequence[SettingResults]
) -> Difference | None:
    """The second setting minus the first, with the noise of images and seeds; None unless both sweeps have estimates of
    the latter, and both settings results per image.
    """
    spreads = [answer.noise.spread for answer in answers if answer.noise and answer.noise.spread.degrees]
    # Runs of two sweeps may have the same name.
    named = [
        SettingResults([{**row, "run": f"{place} {row['run']}"} for row in each.rows], each.values)
        for place, each in enumerate(settings)
    ]

    def predictions_of(name: str) -> Predictions | None:
        place, _, run = name.partition(" ")
        return sweeps[int(place)].run(run).predictions()

    select = answers[1].table.select
    scores = read_scores(named, select.name, predictions_of) if len(spreads) == 2 else None
    if scores is None:
        return None
    return difference_of_settings(scores, [len(each.values) for each in named], spreads, select)


def difference_of_settings(
    scores: ImageScores, seeds: Sequence[int], spreads: Sequence[Spread], select: Ranking
) -> Difference:
    """The second of two settings minus the first one, in the metric's own sign, with the noise of images and seeds.

    `seeds`: of each. `spreads`: estimates of that of a run; the largest counts.
    """
    import numpy as np

    noise = noise_of([[0.0] * count for count in seeds], scores.groups, None)
    noise = replace(noise, spread=max(spreads, key=lambda spread: spread.variance))
    contrast = np.array([[-1.0, 1.0]])
    half = float(np.quantile(np.abs(noise.sample(contrast)[1]), LEVEL))
    value = select.score(float(noise.values[1] - noise.values[0]))
    estimate = Estimate.from_half_width(value, half)
    return Difference(value, estimate, len(scores.groups) == 1, scores.crossed, select.is_share)
