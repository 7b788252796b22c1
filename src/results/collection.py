"""Collects the results of a sweep: the tables, the figure of its curves, aggregate.json, and what is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from src.config.schema import Select
from src.errors import RunError
from src.log import log
from src.results.answer import Answer, answer_of
from src.results.answer_output import print_answer, write_answer
from src.results.foreign import read_foreign
from src.results.table import Table, curve_of, read_table
from src.results.view import View
from src.runs.predictions import read_predictions
from src.runs.rundir import SweepDir

# The epochs and values of the selecting metric, by the name of a run.
Curves = Callable[[str], tuple[Sequence[float], Sequence[float]]]
# Of the cells between the best and the worst, a figure shows this many, evenly spread over the ranking.
_CURVES = 100


def answer_of_sweep(sweep: SweepDir) -> Answer:
    """What the results of a sweep say. Damaged results per image are noted, and not used. Raises RunError."""
    table = read_table(sweep)
    try:
        return answer_of(table, lambda name: read_predictions(sweep.run(name).predictions_file))
    except RunError as error:
        return answer_of(table, lambda _: None, [str(error)])


def answer_of_logs(directory: Path, select: Select) -> tuple[Answer, Curves]:
    """What another program's TensorBoard logs say, and their curves. Raises RunError as `read_foreign` does."""
    logs = read_foreign(directory, select)
    return answer_of(logs.table, lambda _: None, logs.notes), logs.curves.__getitem__


def collect(sweep: SweepDir, artifacts: Path, view: View | None = None) -> Answer:
    """Write the tables, aggregate.json and the figure of a sweep, print what `view` shows, and return the answer.

    The files hold all rows. Raises RunError if the manifest is damaged, or if `view` names a column that there is not.
    """
    answer = answer_of_sweep(sweep)
    rows = answer.rows()
    print_answer(answer, (view or View()).of(rows))
    files = write_answer(answer, rows, sweep.path)
    curves = curves_of_sweep(sweep, answer.table.select.column)
    figure = draw_table(answer.table, curves, artifacts / f"{sweep.name}.png")
    _print_files([*files, *([figure] if figure else [])])
    return answer


def collect_into(answer: Answer, view: View, folder: Path, curves: Curves) -> None:
    """Write the tables, aggregate.json and the figures to `folder`, with the rows that `view` shows, and print them.

    Raises RunError if `folder` cannot be created, or `view` names a column that there is not.
    """
    rows = view.of(answer.rows())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; choose another folder with --out") from None
    print_answer(answer, rows)
    figure = draw_table(answer.table, curves, folder / "curves.png")
    _print_files([*write_answer(answer, rows, folder), *([figure] if figure else [])])


def curves_of_sweep(sweep: SweepDir, column: str) -> Curves:
    """The curves of a metric of the runs of a sweep. A damaged log is logged, and has no points."""

    def curve(name: str) -> tuple[Sequence[float], Sequence[float]]:
        try:
            return curve_of(sweep.run(name), column)
        except RunError as error:
            log.warning(f"not in the figure: {error}")
            return [], []

    return curve


def _print_files(files: Sequence[Path]) -> None:
    for path in files:
        print(f"wrote {path}")


def draw_table(table: Table, curves_of: Curves, path: Path) -> Path | None:
    """Draw the selecting metric over the epochs for the runs that have it. Returns None if no run has."""
    from src.results.figures import Curve, draw_curves

    best, ranked = table.best(), table.ranked
    step = max(1, len(ranked) // _CURVES)
    curves = []
    for row in ranked[::step]:
        x, y = curves_of(str(row["run"]))
        if x:
            label = f"{row['run']} (best)" if best and row["run"] == best["run"] else str(row["run"])
            curves.append(Curve(label, x, y, faint=len(ranked) > 8 and not label.endswith("(best)")))
    if not curves:
        return None
    return draw_curves(path, curves, "epoch", table.select.column, title=table.name)
