"""Which folders of other programs' logs are runs, and which of what they have logged are axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.results.foreign.logs import ForeignLogs, read_foreign
from relay.results.tables.table import Table
from src.config.schema import Config
from tests.results.foreign.test_foreign import curve, hparams, scalar, write


def log(folder: Path, values: dict[int, float], **given: Any) -> None:
    write(folder, *curve("val/acc", values), *([hparams(**given)] if given else []))


def read(tmp_path: Path) -> ForeignLogs:
    return read_foreign(tmp_path / "logs")


def column(table: Table, name: str) -> list[Any]:
    return [row[name] for row in table.rows]


@pytest.mark.parametrize(
    "names",
    [
        ["run1", "run2", "run3"],
        ["lightning_logs/version_0", "lightning_logs/version_5", "lightning_logs/version_7"],
        ["exp_1", "exp_2", "exp_4"],
        ["2026-01-02_03-04-05", "2026-01-03_03-04-05", "2026-02-02_13-00-00"],
        ["job_81723", "job_81724", "job_99999"],
        ["net/run=1", "net/run=2", "net/run=7"],
        ["vgg16", "vgg19", "resnet50"],
    ],
)
def test_numbers_that_count_runs_are_no_axes(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        log(tmp_path / "logs" / name, {1: number / 10})
    logs = read(tmp_path)
    assert (list(logs.table.axes), column(logs.table, "state")) == ([], ["logged"] * 3)
    assert "no hyperparameter that differs between the runs was logged" in logs.notes[-1]


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["layers_1", "layers_2", "layers_3"], {"layers": [1, 2, 3]}),
        (["net_learning_rate_0.1", "net_learning_rate_1e-4"], {"learning_rate": [0.1, 1e-4]}),
        (["zeta0.1_run1", "zeta0.2_run2"], {"zeta": [0.1, 0.2]}),
        (["lr=0.1/seed=1", "lr=0.1/seed=2"], {"seed": [1, 2]}),
        (["lr=0.1_run=1", "lr=0.1_run=2", "lr=0.2_run=1"], {"lr": [0.1, 0.1, 0.2]}),
    ],
)
def test_hyperparameters_in_names_are_axes(tmp_path: Path, names: list[str], axes: dict[str, list[Any]]) -> None:
    for name in names:
        log(tmp_path / "logs" / name, {1: 0.5})
    table = read(tmp_path).table
    assert {axis: column(table, axis) for axis in table.axes} == axes


def test_hyperparameters_with_the_names_of_columns_are_renamed_and_that_is_said(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(dump_yaml(small().to_dict()))
    names = ["run", "state", "index", "best_step"]
    for number in range(16):
        given = {name: number >> bit & 1 for bit, name in enumerate(names)}
        folder = tmp_path / "logs" / f"net{'abcdefghijklmnop'[number]}"
        write(folder, hparams(**given, lr=1), *curve("val/acc", {1: number**2 / 300}), scalar("run", 1, 9.0))
    aggregate.main([str(tmp_path / "logs")], str(tmp_path / "config.yaml"), out=tmp_path / "out")
    table = read(tmp_path).table
    assert sorted(table.axes) == sorted(f"{name} (hparam)" for name in names)
    assert column(table, "run") == [f"net{letter}" for letter in "abcdefghijklmnop"]
    assert (column(table, "index"), column(table, "state")) == (list(range(16)), ["logged"] * 16)
    assert (column(table, "run (logged)"), column(table, "run (hparam)")) == ([9.0] * 16, [0, 1] * 8)
    assert "the hyperparameter state is the column state (hparam)" in capsys.readouterr().out


def test_only_a_seed_makes_repetitions_and_a_rerun_is_none(tmp_path: Path) -> None:
    for name, values, rate in (
        ("crashed", {1: 0.9}, 0.1),
        ("restarted", {1: 0.4, 2: 0.5}, 0.1),
        ("other", {1: 0.3, 2: 0.6}, 0.01),
    ):
        log(tmp_path / "logs" / name, values, lr=rate)
    logs = read(tmp_path)
    assert dict(zip(column(logs.table, "run"), column(logs.table, "state"), strict=True)) == {
        "crashed": "rerun",
        "other": "logged",
        "restarted": "logged",
    }
    assert [len(rows) for rows in logs.table.comparable_rows().values()] == [1, 1]
    (note,) = (note for note in logs.notes if "rerun" in note)
    assert "1 run with state rerun (crashed)" in note


def test_a_seed_by_any_name_is_the_seed(tmp_path: Path) -> None:
    for number in range(4):
        log(tmp_path / "logs" / f"net{'abcd'[number]}", {1: 0.5}, lr=0.1 ** (number // 2), random_seed=number % 2)
    table = read(tmp_path).table
    assert sorted(table.axes) == ["lr", "seed"]
    assert [len(rows) for rows in table.comparable_rows().values()] == [2, 2]


def test_of_equal_reruns_the_latest_counts(tmp_path: Path) -> None:
    for name, rate, time in (("b", 0.1, 1700000001), ("a", 0.1, 1700000002), ("c", 0.2, 1700000003)):
        write(
            tmp_path / "logs" / name,
            hparams(lr=rate),
            *curve("val/acc", {1: 0.5}),
            name=f"events.out.tfevents.{time}.host",
        )
    assert column(read(tmp_path).table, "state") == ["logged", "rerun", "logged"]


def test_a_missing_value_is_no_level(tmp_path: Path) -> None:
    log(tmp_path / "logs" / "without", {1: 0.9})
    for number in range(3):
        log(tmp_path / "logs" / f"net{'abc'[number]}", {1: 0.5}, lr=0.1**number, batch_size=8)
    logs = read(tmp_path)
    assert list(logs.table.axes) == ["lr"]
    assert column(logs.table, "state") == ["logged", "logged", "logged", "partial"]
    assert len(logs.table.comparable_rows()) == 3
    assert any("1 run with state partial (without): it lacks a value of an axis (lr)" in note for note in logs.notes)


def test_what_few_runs_have_logged_is_no_axis(tmp_path: Path) -> None:
    for number in range(5):
        log(tmp_path / "logs" / f"net{'abcde'[number]}", {1: 0.5}, **({"lr": 0.1**number} if number < 2 else {}))
    logs = read(tmp_path)
    assert (list(logs.table.axes), column(logs.table, "state")) == ([], ["logged"] * 5)
    assert any("fewer than half of the runs logged them: lr" in note for note in logs.notes)


def test_folders_and_identifiers_are_no_axes_and_equal_columns_are_one(tmp_path: Path) -> None:
    for number, rate in enumerate((0.1, 0.01, 0.1)):
        labels = {"output_dir": f"out{number}", "run_id": f"x{number % 2}", "run_name": f"n{number}"}
        given = {"lr": rate, "initial_lr": rate, "depth": number, "width": str(2 * number + 1)}
        log(tmp_path / "logs" / f"net{'abc'[number]}", {1: 0.5}, **labels, **given)
    logs = read(tmp_path)
    table = logs.table
    assert sorted(table.axes) == ["depth", "initial_lr", "width"]
    assert (column(table, "depth"), column(table, "width")) == ([0, 1, 2], [1, 3, 5])
    assert any("name or count runs: output_dir, run_id, run_name" in note for note in logs.notes)
    assert any("vary with another one: lr" in note for note in logs.notes)


def test_a_value_that_is_not_of_the_best_step_is_marked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tags = curve("val/acc", {1: 0.5, 2: 0.7, 3: 0.6}), curve("at_best", {2: 5.0, 4: 6.0}), curve("later", {3: 8.0})
        write(tmp_path / "logs" / name, *(event for events in tags for event in events))
        # Steps where val/acc counts epochs.
        write(tmp_path / "logs" / name, *curve("fine", {step: step / 10 for step in range(100)}), name="x.tfevents.2")
    table = read(tmp_path).table
    (row, _) = table.rows
    assert (row["best_step"], row["at_best"], row["later (last)"], row["fine (last)"]) == (2, 5.0, 8.0, 9.9)
    assert not {"later", "fine", "at_best (last)"} & set(row)


def test_a_loss_that_ended_as_no_number_is_a_run_that_diverged(tmp_path: Path) -> None:
    log(tmp_path / "logs" / "a", {1: 0.5})
    write(
        tmp_path / "logs" / "b",
        *curve("val/acc", {1: 0.9}),
        *curve("train/loss", {1: 2.0, 2: float("nan")}),
    )
    logs = read(tmp_path)
    best = logs.table.best()
    assert best is not None
    assert (best["run"], column(logs.table, "state")) == ("a", ["logged", "diverged"])


@pytest.mark.parametrize("below", ["", "all/"])
def test_sub_runs_of_one_writer_with_different_hyperparameters_are_runs_of_their_own(
    tmp_path: Path, below: str
) -> None:
    with SummaryWriter(tmp_path / "logs" / below) as writer:
        for number in range(3):
            writer.add_hparams({"lr": 0.1**number}, {"val/accuracy": number / 10}, run_name=f"170000000{number}.5")
    table = read(tmp_path).table
    assert (column(table, "run"), column(table, "lr")) == (
        [f"{below}170000000{number}.5" for number in range(3)],
        [pytest.approx(0.1**number) for number in range(3)],
    )


def test_the_folders_of_add_scalars_are_parts_of_their_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with SummaryWriter(tmp_path / "logs" / name) as writer:
            for step in (1, 2):
                writer.add_scalars("Loss", {"train": 1 / step, "val": 2 / step}, step)
    table = read(tmp_path).table
    assert (column(table, "run"), table.select.column) == (["a", "b"], "Loss/val")
    assert column(table, "Loss/train") == [0.5, 0.5]


@pytest.mark.parametrize(
    ("folders", "runs"),
    [
        (["train", "validation"], ["logs"]),
        (["a/train", "a/validation", "b/train", "b/validation"], ["a", "b"]),
        (["test", "baseline"], ["baseline", "test"]),
    ],
)
def test_folders_of_splits_are_parts_of_a_run(tmp_path: Path, folders: list[str], runs: list[str]) -> None:
    for folder in folders:
        write(tmp_path / "logs" / folder, *curve("accuracy", {1: 0.5}))
    table = read(tmp_path).table
    assert column(table, "run") == runs
    assert table.select.column == ("validation/accuracy" if len(folders) != 2 or "train" in folders else "accuracy")


def test_settings_that_are_logged_as_a_text_are_hyperparameters(tmp_path: Path) -> None:
    for number in range(3):
        with SummaryWriter(tmp_path / "logs" / f"run{number}") as writer:
            table = f"|param|value|\n|-|-|\n|lr|{10**-number}|\n|note|{'long ' * 500}|\n|seed|1|"
            writer.add_text("hyperparameters", table)
            writer.add_text("args", f'{{"optimizer": {{"decay": {number / 10}}}, "on": null}}')
            writer.add_text("args", "not JSON {")
            writer.add_scalar("charts/episodic_return", number, 1)
    found = read(tmp_path).table
    assert {axis: column(found, axis) for axis in found.axes} == {
        "optimizer/decay": [0, 0.1, 0.2],
        "lr": [1, 0.1, 0.01],
    }
