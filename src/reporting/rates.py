"""Section 4 of the report, the LR finder: M4."""

from __future__ import annotations

from collections.abc import Iterator

from src.config.loading import config_of
from src.outcomes.rates import METHODS, draw_lr_sweep, suggested_rates
from src.reporting.blocks import Block
from src.reporting.report import Report


def lr_section(report: Report) -> Iterator[Block]:
    """Section 4."""
    yield report.heading(2, "section_4")
    yield from report.ask("M4", _m4)


def _m4(report: Report) -> Iterator[Block]:
    found = report.need(report.sweeps.lr_sweep, "lr", "src.lr_finder")
    yield from report.about(found)
    runs, finder = found.done(), found.config().lr_finder
    results = [run.result() or {} for run in runs]
    summary = suggested_rates(results)
    span = {"low": f"{finder.min_lr:g}", "high": f"{finder.max_lr:g}", "steps": finder.num_steps}
    yield report.say("m4_method", **span, seeds=", ".join(map(str, summary["seeds"])))
    yield from report.drawn("lr_finder", lambda path: draw_lr_sweep(results, path))
    rows = [
        [report.texts(f"method_{method}"), *(_rate(summary[method][name]) for name in ("median", "min", "max"))]
        for method in METHODS
    ]
    yield report.table(["method", "suggested", "lowest", "highest"], rows)
    if all(summary[method]["median"] is None for method in METHODS):
        yield report.say("m4_none")
    optimizer = report.config.train.optimizer
    chosen = {"lr": f"{optimizer.lr:g}", "weight_decay": f"{optimizer.weight_decay:g}"}
    yield report.say("m4_chosen", **chosen)
    training = report.sweeps.training
    for trained in training.done() if training else ():
        final = config_of(trained).train.optimizer
        yield report.say("m4_final", lr=f"{final.lr:g}", weight_decay=f"{final.weight_decay:g}", run=trained.label)
    yield report.origin(*runs)


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.2e}"
