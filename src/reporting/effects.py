"""What a grid says, for M5: which settings are as good as the best one, and what each hyperparameter did."""

from __future__ import annotations

from collections.abc import Iterator

from src.reporting.blocks import Block, Items, Paragraph
from src.reporting.report import Report, percent, shown
from src.results.answer import Answer
from src.results.early import Early
from src.results.effects import Effects, Term
from src.results.effects_text import SIGNIFICANT
from src.results.ranking import Ranking
from src.results.seeds import seed_rows

# Of the settings that cannot be told from the best one; the table marks all.
_MOST_NAMES = 8


def best_set_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """Which settings cannot be told from the best one, how this was found, and the winner's value without bias."""
    found, column = answer.best_set, answer.table.select.column
    if found is None:
        if len(answer.settings) > 1:
            yield report.say("best_set_unknown")
        return
    others = found.names[1:]
    counts = {"count": len(others), "total": found.compared - 1}
    if others:
        names = ", ".join(others[:_MOST_NAMES]) + (", …" if len(others) > _MOST_NAMES else "")
        yield report.say("best_set", **counts, names=names)
    else:
        yield report.say("best_set_alone", **counts)
    if found.method == "bootstrap":
        seeds = max(len(each.values) for each in answer.settings) > 1
        yield report.say("bootstrap_seeds" if seeds else "bootstrap_one_seed")
        if found.image_sets > 1:
            yield report.say("bootstrap_sets", sets=found.image_sets)
    elif answer.effects and answer.effects.threshold is not None:
        threshold = {"column": column, "threshold": f"{answer.effects.threshold:.4f}"}
        yield report.say("threshold", **threshold, noise=_noise(report, answer.effects))
    winner = found.winner
    if winner:
        numbers = {"unbiased": winner.unbiased, "low": winner.low, "high": winner.high, "measured": winner.measured}
        yield report.say("winner", column=column, **{name: f"{value:.4f}" for name, value in numbers.items()})


def seed_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """The settings over their seeds, if the seed is an axis."""
    rows = seed_rows(answer.table)
    if rows:
        yield report.say("over_seeds", column=answer.table.select.column)
        yield report.table(list(rows[0]), [[shown(value) for value in row.values()] for row in rows])


def effects_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """The shares of the variance, a verdict for each axis, and the means of its values."""
    effects, select = answer.effects, answer.table.select
    if effects is None:
        return
    counts = {"cells": effects.cells, "runs": effects.runs}
    yield report.say("effects_complete" if effects.complete else "effects_incomplete", column=select.column, **counts)
    terms = [
        [term.name, "" if term.share is None else percent(term.share, 1), _p_value(term), str(term.degrees)]
        for term in effects.terms
    ]
    yield report.table(["term", "share", "p_value", "degrees"], terms)
    yield Items([_verdict(report, effects, axis, select) for axis in effects.levels])
    levels = [
        [axis, shown(level.value), str(level.n), f"{level.mean:.4f}", *(f"{b:.4f}" for b in level.interval or ())]
        for axis, values in effects.levels.items()
        for level in values
    ]
    width = max(map(len, levels))
    yield report.table(
        ["axis", "value", "runs", "mean", "low", "high"][:width], [row + [""] * (width - len(row)) for row in levels]
    )
    yield from _precision(report, effects)


def early_blocks(report: Report, early: Early | None) -> Iterator[Block]:
    """How early the final ranking could be known."""
    if early is None:
        return
    at, rank = early.at, early.best_ranks[early.at]
    epochs = {"epoch": f"{early.epochs[at]:g}", "last": f"{early.epochs[-1]:g}"}
    sentence = "early_leads" if rank == 1 else "early"
    yield report.say(sentence, **epochs, correlation=f"{early.correlations[at]:.2f}", rank=rank, cells=early.cells)


def _precision(report: Report, effects: Effects) -> Iterator[Paragraph]:
    if effects.lsd is None or effects.threshold is None:
        yield report.say("no_noise")
        return
    yield Paragraph(_noise(report, effects))
    yield report.say("lsd", lsd=f"{effects.lsd:.4f}", threshold=f"{effects.threshold:.4f}")


def _noise(report: Report, effects: Effects) -> str:
    sources = {"seeds": "noise_seeds", "higher interactions": "noise_higher", "the interaction": "noise_interaction"}
    return report.texts(sources[effects.noise_source], noise=f"{effects.noise:.4f}", degrees=effects.degrees)


def _verdict(report: Report, effects: Effects, axis: str, select: Ranking) -> str:
    """What an axis did, in one sentence: that of src/results/effects_text.py in the report's language."""
    (main,) = (term for term in effects.terms if term.axes == (axis,))
    pairs = [term for term in effects.terms if axis in term.axes and len(term.axes) > 1 and _is_clear(term)]
    levels = sorted(effects.levels[axis], key=lambda level: -select.score(level.mean))
    best, worst = levels[0], levels[-1]
    if main.share is None:
        return report.texts("effect_aliased", axis=axis)
    numbers = report.texts("effect_share", share=percent(main.share, 1))
    if main.p_value is not None:
        numbers = f"p {_p_value(main, sign=True)}, {numbers}"
    others = ", ".join(next(other for other in pair.axes if other != axis) for pair in pairs)
    lowest = worst.shown
    if len(levels) > 2:
        lowest = report.texts("effect_worst", value=lowest)
    values = {"axis": axis, "best": best.shown, "worst": lowest, "numbers": numbers}
    values |= {"difference": f"{abs(best.mean - worst.mean):.4f}", "runs": str(effects.runs), "others": others}
    if main.p_value is None:
        return report.texts("effect_untested", **values)
    if _is_clear(main):
        return report.texts("effect_depends" if others else "effect_clear", **values)
    return report.texts("effect_only_with" if others else "effect_none", **values)


def _is_clear(term: Term) -> bool:
    return term.p_value is not None and term.p_value < SIGNIFICANT


def _p_value(term: Term, *, sign: bool = False) -> str:
    if term.p_value is None:
        return ""
    if term.p_value < 0.001:
        return "< 0.001"
    return f"{'= ' if sign else ''}{term.p_value:.3f}"
