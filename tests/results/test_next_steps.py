"""What a search leaves open: the edge of an axis, and a best epoch that is the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hpc.submission.prepare import prepare_inputs
from hpc.works import work_of
from relay.results.collection import answer_of_sweep
from relay.results.statements import STATEMENTS, Edge, edges_of, english, search_statements
from relay.results.tables.ranking import ranking_of
from relay.results.tables.table import Row, Table
from relay.runs.sweeps import open_sweep
from relay.texts import Texts
from src.config.schema import Config
from src.requests import train_request
from tests.results.tables.test_table import finish


def table_of(axis: str, values: Sequence[Any], *, state: str = "done", **more: Any) -> Table:
    """Each value of the axis is better than the one before it."""
    rows: list[Row] = [
        {"index": n, "run": f"run{n}", "state": state, axis: value, "val/accuracy": n / 10, "best_epoch": 2.0} | more
        for n, value in enumerate(values)
    ]
    return Table("grid", rows, [axis], ranking_of("val/accuracy", "max", []))


def edges(table: Table) -> list[tuple[Any, str]]:
    best = table.best()
    assert best
    return [(edge.value, edge.side) for edge in edges_of(table, best)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0001, 0.001, 0.01], [(0.01, "largest")]),
        ([0.01, 0.001, 0.0001], [(0.0001, "smallest")]),
        ([0.001, 0.1, 0.01], []),
        # Of two values, one is always at the edge.
        ([0.001, 0.01], []),
        ([0.01, 0.001, 0.01], []),
        ([16, 64, 32, 128], [(128, "largest")]),
        # Nothing lies beyond none, nor beyond one of something that is counted.
        ([0.2, 0.1, 0.0], []),
        ([3, 2, 1], []),
        ([2.5, 1.5, 1], [(1, "smallest")]),
        ([-3.0, -2.0, -1.0], [(-1.0, "largest")]),
        # No numbers.
        (["16", "32", "64"], []),
        ([False, False, True], []),
        ([None, 0.001, 0.01, 0.1], [(0.1, "largest")]),
        ([0.1, 0.01, 0.001, None], []),
    ],
)
def test_a_best_value_at_the_edge_of_at_least_three_is_found(values: list[Any], found: list[tuple[Any, str]]) -> None:
    assert edges(table_of("lr", values)) == found


def test_values_that_failed_or_are_still_to_come_were_searched_too() -> None:
    table = table_of("lr", [0.0001, 0.001, 0.01])
    for state in ("diverged", "new", "crashed"):
        row: Row = {"index": 3, "run": "run3", "state": state, "lr": 0.1, "val/accuracy": None}
        assert edges(Table("grid", [*table.rows, row], ["lr"], table.select)) == []


def test_the_seed_is_no_axis_that_was_searched() -> None:
    assert edges(table_of("seed", [1, 2, 3])) == []


def test_what_is_open_is_said_in_both_languages() -> None:
    table = table_of("lr", [0.0001, 0.001, 0.01], epochs=2.0)
    best = table.best()
    assert best
    assert edges_of(table, best) == [Edge("lr", 0.01, "largest")]
    assert search_statements(table, best, english()) == [
        "lr: the best setting has 0.01, the largest value that was searched; a larger one may be better.",
        "The best epoch of run2 is its last one (2 of 2); a longer training may be better.",
    ]
    lowest = {**table.rows[0], "epochs": 3.0, "val/accuracy": 1.0}
    assert search_statements(table, lowest, english()) == [
        "lr: the best setting has 0.0001, the smallest value that was searched; a smaller one may be better."
    ]
    french = search_statements(table, best, Texts("fr", STATEMENTS))
    assert "la plus grande valeur essayée" in french[0]
    assert "La meilleure époque de run2 est la dernière (2 sur 2)" in french[1]


@pytest.mark.parametrize(
    ("best", "epochs", "said"),
    [(10.0, 10.0, True), (9.0, 10.0, False), (1.0, 1.0, False), (None, 10.0, False), (2.5, 2.5, True)],
)
def test_the_last_epoch_is_said_only_of_several(best: float | None, epochs: float, said: bool) -> None:
    table = table_of("lr", [0.1, 0.2], best_epoch=best, epochs=epochs)
    assert bool(search_statements(table, table.rows[1], english())) == said


def test_a_training_says_that_its_best_epoch_is_the_last_and_what_is_better_than_best_ckpt(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    from src.artifacts import export_best

    worse, better = (open_sweep(prepare_inputs(train_request(small(train__seed=seed))))[0] for seed in (1, 2))
    for sweep, accuracy in ((worse, 0.25), (better, 0.75)):
        (run,) = sweep.runs()
        finish(run, accuracy)
        run.checkpoints.mkdir()
        run.best_file.write_text(run.label)
    (run,) = worse.runs()
    export_best(run, run.result() or {})
    work_of(worse.kind).show(worse, small().paths, answer_of_sweep(worse))
    said = capsys.readouterr().out
    assert f"The best epoch of {run.label} is its last one (2 of 2); a longer training may be better.\n" in said
    assert f"; {better.runs()[0].label} is better on the same data (0.7500)" in said
