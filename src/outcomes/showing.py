"""What is shown of trainings besides their table: figures, and the sentences of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from relay.config.sections import Paths, select_of
from relay.results.answer import Answer
from relay.results.collection import answer_of_sweep
from relay.results.improvement import improvement
from relay.results.statements import english, last_epoch_statements
from relay.runs.exports import export_figure
from relay.runs.rundir import SweepDir
from src.artifacts import better_training_statements
from src.config.loading import config_of
from src.config.schema import Variant
from src.outcomes.overfit import report_overfit
from src.outcomes.rates import suggestion_text, write_lr_results
from src.outcomes.training_figure import draw_training, gap_text
from src.outcomes.variant_files import planned_variants, write_comparison
from src.requests import first_grid_of


def show_rates(sweep: SweepDir, paths: Paths) -> None:
    """The figure and the suggestion of an LR sweep over all its seeds."""
    written = write_lr_results(sweep)
    if written:
        summary, files = written
        print(suggestion_text(summary))
        _export(files, sweep, paths)


def show_training(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """The curves and the gap of a full training, or the result of an overfit test. Raises RunError if that failed."""
    (run,) = sweep.runs()
    gap, figure = gap_text(run), draw_training(run, sweep.figure("training"))
    if config_of(run).train.overfit_small:
        report_overfit(sweep, paths)
        return
    if gap:
        print(gap)
    (row,) = answer.table.rows
    for sentence in last_epoch_statements(run.label, row, english()):
        print(sentence)
    if figure:
        _export([figure], sweep, paths)
    _show_better_training(sweep, paths)


def show_grid(sweep: SweepDir, paths: Paths, answer: Answer) -> None:
    """The best cell of a narrower grid against that of the first one."""
    first = first_grid_of(sweep)
    found = improvement(sweep, answer, first, answer_of_sweep(first)) if first else None
    if found:
        print(found["sentence"])
    _show_better_training(sweep, paths)


def show_comparison(
    sweep: SweepDir, paths: Paths, answer: Answer, variants: Mapping[str, Variant] | None = None
) -> None:
    """The differences of each variant to the base, beside what was expected: when it was planned, or of `variants`."""
    expected = {**planned_variants(sweep), **(variants or {})}
    rows, files = write_comparison(sweep, answer.table, {name: variant.expect for name, variant in expected.items()})
    for row in rows:
        if row["seen"]:
            print(f"{row['run']} ({row['changed']})")
            print(f"  expected: {row['expected'] or 'nothing was written down'}")
            print(f"  seen:     {row['seen']}")
    _export(files, sweep, paths)
    _show_better_training(sweep, paths)


def _show_better_training(sweep: SweepDir, paths: Paths) -> None:
    """Say so if a finished training is better than artifacts/best.ckpt."""
    select = select_of(sweep.meta()["config"], str(sweep.meta_file))
    for sentence in better_training_statements(paths, select, english()):
        print(sentence)


def _export(files: Sequence[Path], sweep: SweepDir, paths: Paths) -> None:
    for path in files:
        print(f"wrote {path}, {export_figure(path, sweep, paths.artifacts)}")
