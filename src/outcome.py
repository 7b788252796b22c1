"""What is shown of a finished sweep besides its table, by its kind: the figures and sentences of the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from src.config.schema import Config
from src.requests import first_grid_of
from src.results.artifacts import better_training_statements, export_figure
from src.results.collection import collect
from src.results.evaluation_files import FIGURES, TABLES
from src.results.improvement import improvement
from src.results.lr_figures import suggestion_text, write_lr_results
from src.results.next_steps import last_epoch_statements
from src.results.statements import english
from src.results.table import read_table
from src.results.training_figure import draw_training, gap_text
from src.results.variant_files import planned_variants, write_comparison
from src.runs.kinds import kind_of
from src.runs.rundir import SweepDir


def collect_all(sweep: SweepDir, config: Config) -> None:
    """Write and print the tables and figures of a sweep, and what else its kind has."""
    collect(sweep, Path(config.paths.artifacts_dir))
    show_outcome(sweep, config)


def show_outcome(sweep: SweepDir, config: Config) -> None:
    """Write and print what a sweep of this kind has besides its table, from the runs that are done.

    An LR sweep: its figure and suggestion over all seeds. A training: its curves and its gap. A comparison: the
    differences to the base. An evaluation: its gap to val, its tables and figures. A refined grid: its best cell
    against that of the first grid. All trainings: one that is better than artifacts/best.ckpt. `config` says where the
    files are copied to, and what is expected of variants.
    Raises RelayError if files are damaged.
    """
    show = _OUTCOMES.get(sweep.kind)
    if show and any(run.is_done() for run in sweep.runs()):
        show(sweep, config)
        if kind_of(sweep.kind).work == "train":
            for sentence in better_training_statements(config, english()):
                print(sentence)


def _show_rates(sweep: SweepDir, config: Config) -> None:
    written = write_lr_results(sweep)
    if written:
        summary, files = written
        print(suggestion_text(summary))
        _export(files, sweep, config)


def _show_training(sweep: SweepDir, config: Config) -> None:
    (run,) = sweep.runs()
    gap, figure = gap_text(run), draw_training(run, sweep.figure("training"))
    if run.config().train.overfit_small:
        return
    if gap:
        print(gap)
    (row,) = read_table(sweep).rows
    for sentence in last_epoch_statements(run.label, row, english()):
        print(sentence)
    if figure:
        _export([figure], sweep, config)


def _show_comparison(sweep: SweepDir, config: Config) -> None:
    # An expectation that was edited since the runs were planned counts: it changes none of them.
    variants = {**planned_variants(sweep), **config.compare.variants}
    rows, files = write_comparison(sweep, {name: variant.expect for name, variant in variants.items()})
    for row in rows:
        if row["seen"]:
            print(f"{row['run']} ({row['changed']})")
            print(f"  expected: {row['expected'] or 'nothing was written down'}")
            print(f"  seen:     {row['seen']}")
    _export(files, sweep, config)


def _show_evaluation(sweep: SweepDir, config: Config) -> None:
    (run,) = sweep.runs()
    result = run.result() or {}
    if result.get("ece"):
        print(f"M9   {result['ece']['sentence']}")
    if result.get("against_val"):
        print(f"M9   {result['against_val']['sentence']}")
    if result.get("leak"):
        print(f"M9   {result['leak']}")
    tables = [run.path / f"{name}.csv" for name in TABLES]
    figures = [run.figure(name) for name in FIGURES]
    _export([path for path in (*tables, *figures) if path.is_file()], sweep, config)


def _show_improvement(sweep: SweepDir, config: Config) -> None:
    first = first_grid_of(sweep)
    found = improvement(sweep, first) if first else None
    if found:
        print(found["sentence"])


def _export(files: list[Path], sweep: SweepDir, config: Config) -> None:
    for path in files:
        print(f"wrote {path}, {export_figure(path, sweep, Path(config.paths.artifacts_dir))}")


_OUTCOMES: Mapping[str, Callable[[SweepDir, Config], None]] = {
    "lr_sweep": _show_rates,
    "train": _show_training,
    "compare": _show_comparison,
    "grid": _show_improvement,
    "evaluate": _show_evaluation,
}
