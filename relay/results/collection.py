"""Collects the results of a sweep: the tables, the figure of its curves, aggregate.json, and what is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from relay.errors import RunError
from relay.log import log
from relay.results.answer import Answer, answer_of
from relay.results.foreign.logs import read_foreign
from relay.results.grid_figures import draw_grid
from relay.results.output import print_answer, write_answer
from relay.results.tables.ranking import Direction
from relay.results.tables.table import curve_of, read_table
from relay.results.tables.view import View, ranked_by
from relay.runs.exports import export_figure
from relay.runs.rundir import SweepDir
from relay.text import counted

# The epochs and values of the selecting metric, by the name of a run.
Curves = Callable[[str], tuple[Sequence[float], Sequence[float]]]
# Of more runs than these, a part is drawn, evenly spread over the ranking: reading all curves takes long.
_CURVES = 200


def answer_of_sweep(sweep: SweepDir, metric: str | None = None, direction: Direction | None = None) -> Answer:
    """What the results of a sweep say, ranked by its own metric or by the column `metric`.

    Damaged results per image are noted, and not used. Raises RunError.
    """
    table, is_grid, notes = read_table(sweep), bool(sweep.meta()["is_grid"]), []
    if metric:
        table, sentence = ranked_by(table, metric, direction)
        notes.append(sentence)
    try:
        predictions_of = lambda name: sweep.run(name).predictions()  # noqa: E731
        return answer_of(table, predictions_of, notes, is_grid=is_grid)
    except RunError as error:
        return answer_of(table, lambda _: None, [*notes, str(error)], is_grid=is_grid)


def answer_of_logs(
    directory: Path, metric: str | None = None, direction: Direction | None = None
) -> tuple[Answer, Curves]:
    """What another program's TensorBoard logs say, and their curves. Raises RunError as `read_foreign` does."""
    logs = read_foreign(directory, metric, direction)
    return answer_of(logs.table, lambda _: None, logs.notes), logs.curves.__getitem__


def collect(sweep: SweepDir, artifacts: Path, view: View | None = None, suffix: str = "png") -> Answer:
    """Write the tables, aggregate.json and the figure of a sweep, print what `view` shows, and return the answer.

    The files hold all rows. Raises RunError if the manifest is damaged, or `view` names a column that does not exist.
    """
    answer = answer_of_sweep(sweep)
    rows = answer.rows()
    print_answer(answer, (view or View()).of(rows))
    files = write_answer(answer, rows, sweep.path)
    figures = draw_answer(answer, curves_of_sweep(sweep, answer.table.select.column), sweep.path, suffix)
    _print_files([*files, *(export_figure(path, sweep, artifacts) for path in figures)])
    return answer


def collect_into(answer: Answer, view: View, folder: Path, curves: Curves, suffix: str = "png") -> None:
    """Write the tables, aggregate.json and the figures to `folder`, with the rows that `view` shows, and print them.

    Raises RunError if `folder` cannot be created, or `view` names a column that does not exist.
    """
    rows = view.of(answer.rows())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be created: {error.strerror}; choose another folder with --out") from None
    print_answer(answer, rows)
    _print_files([*write_answer(answer, rows, folder), *draw_answer(answer, curves, folder, suffix)])


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
    """One line, whatever their number: of many sweeps, the paths would hide the tables."""
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    print("wrote " + " and ".join(f"{counted(len(own), 'file')} to {folder}" for folder, own in by_folder.items()))


def draw_answer(answer: Answer, curves: Curves, folder: Path, suffix: str = "png") -> list[Path]:
    """Draw the figures of a table with axes, as far as there is data."""
    table = answer.table
    if not table.axes:
        return []
    names = [str(row["run"]) for row in table.ranked]
    chosen = names[:: max(1, len(names) // _CURVES)]
    return draw_grid(answer, {name: curves(name) for name in chosen}, folder, suffix)
