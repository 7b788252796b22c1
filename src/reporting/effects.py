"""What a grid says, for M5: which settings may be the best one, and what each hyperparameter did."""

from __future__ import annotations

from collections.abc import Iterator

from relay.results.answer import Answer
from relay.results.output import seeds_title
from relay.results.statements import effect_statements, method_statements
from relay.results.statistics.early import Early
from src.reporting.blocks import Block, Items, Paragraph
from src.reporting.report import Report, percent, shown


def best_set_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """Which settings may be the best one, what that does not cover, and what to expect of the leading one."""
    for sentence in (*answer.best_set_sentences(report.texts), *answer.next_steps(report.texts)):
        yield Paragraph(sentence)


def seed_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """The settings over their seeds, if the seed is an axis."""
    if answer.seeds:
        yield Paragraph(seeds_title(answer, report.texts))
        yield report.table(list(answer.seeds[0]), [[shown(value) for value in row.values()] for row in answer.seeds])


def effects_blocks(report: Report, answer: Answer) -> Iterator[Block]:
    """The shares of the variance, a verdict for each axis, and the means of its values."""
    effects, select = answer.effects, answer.table.select
    if effects is None:
        return
    for sentence in method_statements(effects, select, report.texts):
        yield Paragraph(sentence)
    if not effects.terms:
        # One value of each axis is left: only what failed can be said.
        yield Items(effect_statements(effects, select, report.texts))
        return
    terms = [
        [
            term.name,
            "" if term.share is None else percent(term.share, 1),
            _p_value(term.p_value),
            _p_value(term.adjusted),
            str(term.degrees),
        ]
        for term in effects.terms
    ]
    yield report.table(["term", "share", "p_value", "adjusted", "degrees"], terms)
    yield Items(effect_statements(effects, select, report.texts))
    levels = [
        [axis, shown(level.value), str(level.n), f"{level.mean:.4f}", *(f"{b:.4f}" for b in level.interval or ())]
        for axis, values in effects.levels.items()
        for level in values
    ]
    width = max(map(len, levels))
    yield report.table(
        ["axis", "value", "runs", "mean", "low", "high"][:width], [row + [""] * (width - len(row)) for row in levels]
    )


def early_blocks(report: Report, early: Early | None) -> Iterator[Block]:
    """How early the final ranking could be known."""
    if early is None:
        return
    at, rank = early.at, early.best_ranks[early.at]
    epochs = {"epoch": f"{early.epochs[at]:g}", "last": f"{early.epochs[-1]:g}"}
    sentence = "early_leads" if rank == 1 else "early"
    yield report.say(sentence, **epochs, correlation=f"{early.correlations[at]:.2f}", rank=rank, cells=early.cells)


def _p_value(p_value: float | None) -> str:
    return "" if p_value is None else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
