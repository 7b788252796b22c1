from __future__ import annotations

import pytest

from relay.errors import RelayError
from relay.results.tables.view import View

ROWS = [
    {"run": "a", "lr": 0.002, "flip": True, "bc": "16-16", "acc": 0.5},
    {"run": "b", "lr": 1, "flip": False, "bc": "8-8", "acc": None},
    {"run": "c", "lr": 0.002, "flip": None, "bc": "16-16", "acc": 0.25},
]


@pytest.mark.parametrize(
    ("view", "runs"),
    [
        (View(), "abc"),
        (View(where=["lr=0.002"]), "ac"),
        (View(where=["lr=2e-3", "acc=0.5"]), "a"),
        (View(where=["lr=1.0"]), "b"),
        (View(where=["flip=true"]), "a"),
        (View(where=["flip=null"]), "c"),
        (View(where=["bc=16-16"]), "ac"),
        (View(where=["run=x"]), ""),
        (View(sort="acc"), "cab"),
        (View(sort="-acc"), "acb"),
        (View(sort="bc", top=1), "a"),
        (View(sort="-run", top=2), "cb"),
    ],
)
def test_rows_are_chosen_and_sorted_and_empty_values_come_last(view: View, runs: str) -> None:
    assert "".join(row["run"] for row in view.of(ROWS)) == runs


def test_columns_are_chosen_in_the_given_order() -> None:
    assert view_names(View(columns=["acc", "run"])) == ["acc", "run"]
    assert view_names(View()) == ["run", "lr", "flip", "bc", "acc"]


def view_names(view: View) -> list[str]:
    return list(view.of(ROWS)[0])


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(where=["lr"]), "--where lr: must be COLUMN=VALUE"),
        (View(where=["rate=1"]), "--where: there is no column 'rate'; the columns are run, lr, flip, bc, acc"),
        (View(where=["lr=[1"]), "--where lr: .*not valid YAML"),
        (View(sort="-rate"), "--sort: there is no column 'rate'"),
        (View(columns=["rate"]), "--columns: there is no column 'rate'"),
    ],
)
def test_a_column_that_there_is_not_is_an_error_that_names_those_there_are(view: View, message: str) -> None:
    with pytest.raises(RelayError, match=message):
        view.of(ROWS)
