from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from relay.figures import in_lines, short_names, ticks_between
from relay.results import grid_figures
from relay.results.answer import Answer, answer_of
from relay.results.grid_figures import draw_grid, draw_heatmap, draw_parallel
from relay.results.statistics.early import Curve, how_early
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Table


def grid(response: Callable[..., float], **axes: list[Any]) -> list[dict[str, Any]]:
    """The rows of a complete grid, with the response as `y`."""
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [{**point, "y": response(*point.values())} for point in points]


def table_of(rows: list[dict[str, Any]], select: Ranking | None = None) -> Table:
    """A table with `y` as val accuracy, and every other key as an axis."""
    axes = [name for name in rows[0] if name != "y"]
    made = [
        {"index": n, "run": f"run_{n}", "state": "done", **row, "val/accuracy": row["y"]} for n, row in enumerate(rows)
    ]
    return Table("grid", made, axes, select or Ranking())


def answered(table: Table) -> Answer:
    return answer_of(table, lambda _: None)


FIGURES = ["effects.png", "heatmap.png", "parallel.png", "curves.png", "rank_correlation.png"]
Texts = Callable[[], list[str]]


def grid_of_48(select: Ranking | None = None) -> tuple[Table, dict[str, Curve]]:
    """48 cells with null, text and numbers on the axes, and curves of ten epochs."""
    random = np.random.default_rng(0)

    def response(lr: float, channels: str, batch_size: int | None, wd: float, modules: int) -> float:
        return 0.2 + 20 * lr + 0.01 * modules + random.normal(0, 0.01)

    axes = {"batch_size": [32, None], "wd": [1e-5, 1e-4], "num_modules": [4, 6]}
    table = table_of(grid(response, lr=[1e-4, 1e-3, 2e-3], channels=["64-64-64", "48-72-72"], **axes), select)
    curves = {
        row["run"]: (range(1, 11), [row["y"] * (epoch / 10) ** 0.5 + random.normal(0, 0.002) for epoch in range(1, 11)])
        for row in table.rows
    }
    return table, curves


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Texts:
    """The texts in the axes of the figures that were saved."""
    figures: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(grid_figures, "save_figure", save)
    return lambda: [text.get_text() for figure in figures for axes in figure.axes for text in axes.texts]


def test_all_figures_of_48_cells_are_small_and_the_same_every_time(tmp_path: Path) -> None:
    table, curves = grid_of_48()
    drawn = draw_grid(answered(table), curves, tmp_path / "a")
    again = draw_grid(answered(table), curves, tmp_path / "b")
    assert [path.name for path in drawn] == FIGURES
    assert [path.read_bytes() for path in drawn] == [path.read_bytes() for path in again]
    assert max(path.stat().st_size for path in drawn) < 150_000


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    one_axis = table_of(grid(lambda lr: float(lr), lr=[1, 2]))
    names = [path.name for path in draw_grid(answered(one_axis), {}, tmp_path)]
    assert names == ["effects.png", "parallel.png"]
    curves = {"run_0": ([1, 2], [0.1, 0.2])}
    names = [path.name for path in draw_grid(replace(answered(one_axis), effects=None), curves, tmp_path)]
    assert names == ["curves.png"]
    assert draw_grid(answered(Table("empty", [], [], Ranking())), {}, tmp_path) == []


def test_runs_without_a_result_are_in_no_figure(tmp_path: Path, texts: Texts) -> None:
    table, curves = grid_of_48()
    for row in table.rows[:5]:
        row |= {"state": "running", "val/accuracy": None}
    drawn = draw_grid(answered(table), {name: curves[name] for name in list(curves)[5:]}, tmp_path)
    assert [path.name for path in drawn] == FIGURES
    early = how_early(table, curves)
    assert early is not None
    assert early.cells == 43


def test_a_pair_of_levels_without_runs_has_no_value_in_the_heat_map(tmp_path: Path, texts: Texts) -> None:
    rows = grid(lambda lr, wd: lr + wd / 10, lr=[1, 2, 3], wd=[0, 1])
    table = table_of([row for row in rows if (row["lr"], row["wd"]) != (3, 0)])
    draw_heatmap(answered(table), tmp_path / "a.png")
    assert texts() == ["1.00", "2.00", "1.10", "2.10", "3.10"]


def test_the_result_axis_has_the_better_end_above(tmp_path: Path, texts: Texts) -> None:
    table = table_of(grid(lambda lr: float(lr), lr=[1, 5]), Ranking("val/loss", "min"))
    for row in table.rows:
        row["val/loss"] = row["y"]
    draw_parallel(answered(table), tmp_path / "a.png")
    assert texts()[-5:] == ["5", "4", "3", "2", "1"]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(grid_figures, "save_figure", save)
    return figures


def test_the_line_of_the_best_run_meets_the_names_of_its_levels(tmp_path: Path, saved: list[Figure]) -> None:
    table, _ = grid_of_48()
    draw_parallel(answered(table), tmp_path / "a.png")
    (axes,) = saved[0].axes
    best = table.best()
    assert best is not None
    (line,) = [line for line in axes.lines if line.get_linewidth() == 3]
    for number, axis in enumerate(table.axes):
        named = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_position()[0] < number}
        assert line.get_ydata()[number] == pytest.approx(named[grid_figures.shown_level(best[axis])]), axis


LONG = ["torchvision.models.resnet18_pretrained", "my_project.networks.wide_residual:WideNet", "timm/convnext.in22k"]


def test_long_names_leave_the_panels_their_room_and_do_not_touch(tmp_path: Path, saved: list[Figure]) -> None:
    table = table_of(grid(lambda lr, _: lr, lr=[0.1, 0.2], **{"model.type": LONG}))
    draw_grid(answered(table), {}, tmp_path)
    effects, parallel = saved[0], saved[-1]
    for figure in (effects, parallel):
        figure.canvas.draw()
    assert all(panel.get_position().height > 0.4 for panel in effects.axes)
    boxes = [text.get_window_extent() for text in parallel.axes[0].texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert max(figure.get_figwidth() for figure in saved) <= 7


def early_table(finals: list[float], select: Ranking | None = None) -> Table:
    return table_of([{"lr": n, "y": final} for n, final in enumerate(finals)], select)


def early_curves(*values: list[float], first: int = 1) -> dict[str, Curve]:
    return {f"run_{n}": (range(first, first + len(run)), run) for n, run in enumerate(values)}


@pytest.mark.parametrize("first", [0, 1])
def test_how_early_one_can_know_is_said_in_a_sentence(first: int) -> None:
    curves = early_curves([0.1, 0.3, 0.5], [0.2, 0.35, 0.6], [0.3, 0.4, 0.7], first=first)
    early = how_early(early_table([0.5, 0.6, 0.7]), curves)
    assert early is not None
    assert early.sentence == (
        "After epoch 1 of 3 the ranking correlates 1.00 with the final one; the best cell already leads."
    )


def test_a_ranking_that_settles_late_is_called_that() -> None:
    curves = early_curves([0.3, 0.31, 0.5], [0.2, 0.2, 0.6], [0.1, 0.1, 0.7])
    early = how_early(early_table([0.5, 0.6, 0.7]), curves)
    assert early is not None
    assert early.correlations == pytest.approx([-1, -1, 1])
    assert early.best_ranks == [3, 3, 1]
    assert early.sentence == (
        "After epoch 2 of 3 the ranking correlates only -1.00 with the final one; "
        "the best cell is then among the first 3 of 3."
    )


def test_rankings_follow_the_best_value_so_far_in_the_direction_of_the_metric() -> None:
    select = Ranking("val/loss", "min")
    table = early_table([1.0, 2.0, 3.0], select)
    for row in table.rows:
        row["val/loss"] = row["y"]
    # The first run has its best epoch first, and ends as the worst.
    early = how_early(table, early_curves([1.0, 9.0], [4.0, 2.0], [5.0, 3.0]))
    assert early is not None
    assert early.best_ranks == [1, 1]
    assert early.correlations == pytest.approx([1, 1])


def test_epochs_without_a_ranking_or_that_not_all_runs_have_are_left_out() -> None:
    curves: dict[str, Any] = early_curves([0, 0.1, 0.5, 0.6], [0, 0.2, 0.6, 0.6], [0, 0.3, 0.7])
    early = how_early(early_table([0.5, 0.6, 0.7]), curves)
    assert early is not None
    assert early.epochs == [2, 3]
    assert how_early(early_table([0.5, 0.6, 0.7]), {**curves, "run_0": ([], [])}) is None


def test_an_axis_with_too_many_levels_to_read_is_in_no_figure_of_levels(tmp_path: Path, texts: Texts) -> None:
    table = table_of(grid(lambda lr, wd: lr + wd / 10, lr=list(range(60)), wd=[0, 1]))
    names = [path.name for path in draw_grid(answered(table), {}, tmp_path)]
    assert names == ["effects.png", "parallel.png"]
    labels = texts()
    assert "57" in labels
    assert "58" not in labels


def test_all_seeds_of_the_best_setting_are_marked_and_not_the_luckiest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {(0.1, 1): 0.6, (0.1, 2): 0.1, (0.4, 1): 0.4, (0.4, 2): 0.42}
    table = table_of([{"lr": lr, "seed": seed, "y": value} for (lr, seed), value in values.items()])
    figures: list[Figure] = []

    def save(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(grid_figures, "save_figure", save)
    draw_parallel(answered(table), tmp_path / "a.png")
    marked = [line for line in figures[0].axes[0].lines if line.get_linewidth() == 3]
    assert len(marked) == 2
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["2 seeds of the best setting, mean 0.41"]


def test_names_are_shortened_only_as_long_as_they_differ() -> None:
    assert short_names(["adamw", "sgd_with_nesterov_momentum"]) == ["adamw", "sgd_wit…mentum"]
    alike = ["the same beginning, 1, the same end", "the same beginning, 2, the same end"]
    assert short_names(alike) == alike
    assert in_lines("train.optimizer.weight_decay") == "train.\noptimizer.\nweight decay"


@pytest.mark.parametrize(
    ("first", "last", "ticks"),
    [(1, 1, [1]), (1, 3, [1, 2, 3]), (1, 10, [1, 3, 5, 7, 10]), (0.5, 40.5, [1, 9, 17, 25, 33, 40])],
)
def test_ticks_are_whole_numbers_from_the_first_to_the_last(first: float, last: float, ticks: list[int]) -> None:
    assert ticks_between(first, last) == ticks
