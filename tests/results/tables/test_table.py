from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from relay.config import yaml_file
from relay.errors import RunError
from relay.files import append_lines
from relay.results.collection import answer_of_sweep, collect
from relay.results.tables.ranking import Ranking
from relay.results.tables.table import Table, read_table
from relay.results.tables.table_files import print_table, write_rows
from relay.runs.predictions import Predictions, write_predictions
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.loading import config_of, make_config
from src.config.schema import Config
from src.evaluation.summary import evaluation_columns
from src.requests import best_of_all, evaluation_request, first_grid_of, grid_request, with_best_cell
from src.training.columns import training_columns

ALL_METRICS = {"metrics.classification": ["macro_f1", "accuracy", "top5_accuracy"]}


def write_training(run: RunDir, result: dict[str, Any]) -> None:
    """Write the result of a training with its columns, as the trainer does."""
    run.write_result({**result, "columns": training_columns(config_of(run).metrics, result)})


def finish(run: RunDir, accuracy: float | None, loss: float = 1.0, **more: float) -> None:
    best = None if accuracy is None else {"accuracy": accuracy, "loss": loss, **more, "epoch": 2.0, "step": 12}
    run.record_attempt(1, start=1.0)
    run.record_attempt(1, end=2.0, cause="TIMEOUT", first_step=0, last_step=5, total_steps=12)
    run.record_attempt(2, start=3.0)
    run.record_attempt(2, end=4.0, cause="DONE", first_step=5, last_step=12, total_steps=12)
    outcome = "diverged" if accuracy is None else "completed"
    append_lines(
        run.metrics_file, [{"step": 12, "epoch": 2.0, "time": 1.0, "val/accuracy": accuracy or 0.0, "val/loss": loss}]
    )
    result = {
        "outcome": outcome,
        "best": best,
        "train": {"loss_epoch": 0.5},
        "epochs": 2.0,
        "steps": 12,
        "images_per_s": 100.0,
        "train_seconds": 3.0,
    }
    write_training(run, result)


@pytest.fixture
def sweep(small: Callable[..., Config]) -> SweepDir:
    """Four cells: two done, one diverged, one never started."""
    made, new = open_sweep(grid_request(small()))
    assert new
    for run, accuracy in zip(made.runs(), (0.25, 0.75, None), strict=False):
        finish(run, accuracy)
    return made


def test_every_cell_has_a_row_finished_or_not(sweep: SweepDir) -> None:
    rows = read_table(sweep).rows
    assert [row["state"] for row in rows] == ["done", "done", "diverged", "new"]
    assert [(row["lr"], row["num_modules"]) for row in rows] == [(0.001, 1), (0.001, 2), (0.01, 1), (0.01, 2)]
    assert rows[1]["val/accuracy"] == 0.75
    assert rows[1]["attempts"] == 2
    assert rows[1]["interruptions"] == "TIMEOUT"
    assert "train.epochs" not in rows[0]


def test_the_columns_are_the_axes_that_vary_and_the_configured_metrics(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    hparams = {"activation": ["relu", "tanh"], "augment.random_flip": [True, False], "seed": [1]}
    made, _ = open_sweep(grid_request(small(**ALL_METRICS, hparams=hparams)))
    finish(made.runs()[1], 0.5, 1.5, macro_f1=0.25, top5_accuracy=0.75)
    table = read_table(made)
    rows = table.rows
    assert list(rows[0]) == [
        *("index", "run", "state", "activation", "augment.random_flip"),
        *("val/accuracy", "val/loss", "val/macro_f1", "val/top5_accuracy", "best_epoch", "train/loss"),
        *("train/accuracy", "epochs", "steps", "images_per_s", "train_s", "attempts", "interruptions"),
    ]
    assert [row["val/macro_f1"] for row in rows] == [None, 0.25, None, None]
    files = write_rows(table.ranked, made.path / "table")
    assert pd.read_parquet(files[2])["val/top5_accuracy"].to_list()[0] == 0.75
    print_table(table.ranked, table.name)
    assert "val/top5_accuracy" in capsys.readouterr().out


def test_the_columns_are_those_of_the_results_and_steps_say_how_far_a_run_is(small: Callable[..., Config]) -> None:
    made, _ = open_sweep(grid_request(small()))
    first, second, third = made.runs()[:3]
    axes = ["index", "run", "state", "lr", "num_modules"]
    assert list(read_table(made).rows[0]) == [*axes, "val/accuracy", "attempts", "interruptions"]
    first.record_attempt(1, start=1.0)
    append_lines(first.metrics_file, [{"step": 4, "epoch": 1.0, "time": 1.0}])
    rows = read_table(made).rows
    assert list(rows[0]) == [*axes, "val/accuracy", "steps", "attempts", "interruptions"]
    assert [row["steps"] for row in rows] == [4, None, None, None]
    second.write_result({"columns": {"val/accuracy": 0.5, "steps": 12, "note": "good"}})
    third.write_result({"columns": {"val/accuracy": 0.25, "val/loss": 1.0}})
    rows = read_table(made).rows
    assert list(rows[0]) == [*axes, "val/accuracy", "steps", "note", "val/loss", "attempts", "interruptions"]
    assert [row["steps"] for row in rows] == [4, 12, None, None]
    assert [row["note"] for row in rows] == [None, "good", None, None]


def test_an_evaluation_shows_the_configured_metrics(small: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"weights")
    config = small(**ALL_METRICS, evaluation__checkpoint=str(tmp_path / "a.ckpt"))
    made, _ = open_sweep(evaluation_request(config))
    measured = {"accuracy": 0.5, "loss": None, "macro_f1": 0.25, "top5_accuracy": 0.75}
    result = {"split": "test", "n": 20, "outcome": "diverged", **measured, "checkpoint": "a.ckpt"}
    made.runs()[0].write_result({**result, "columns": evaluation_columns(config.metrics, result)})
    (row,) = read_table(made).rows
    assert list(row)[3:10] == ["split", "n", "accuracy", "loss", "macro_f1", "top5_accuracy", "checkpoint"]
    assert (row["loss"], row["macro_f1"]) == (None, 0.25)


def test_what_is_not_known_is_empty_and_never_zero(sweep: SweepDir) -> None:
    files = write_rows(read_table(sweep).ranked, sweep.path / "table")
    with files[0].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4
    assert [line["val/accuracy"] for line in lines] == ["0.75", "0.25", "", ""]
    assert lines[3]["val/loss"] == ""
    table = files[1].read_text()
    assert len(table.splitlines()) == 6
    assert " nan " not in table.lower()
    frame = pd.read_parquet(files[2])
    assert frame["val/accuracy"].isna().sum() == 2
    assert list(frame["run"]) == [line["run"] for line in lines]


def test_best_and_ranking() -> None:
    rows: list[dict[str, Any]] = [
        {"index": 0, "state": "new", "val/accuracy": None},
        {"index": 1, "state": "done", "val/accuracy": 0.5, "val/loss": 2.0},
        {"index": 2, "state": "done", "val/accuracy": 0.5, "val/loss": 1.0},
        {"index": 3, "state": "done", "val/accuracy": 0.0, "val/loss": 1.0},
        {"index": 4, "state": "done", "val/accuracy": 0.5, "val/loss": None},
        {"index": 5, "state": "done", "val/accuracy": 0.5, "val/loss": float("nan")},
        {"index": 6, "state": "diverged", "val/accuracy": 0.9, "val/loss": 0.1},
    ]
    table = Table("a", rows, [], Ranking())
    assert [row["index"] for row in table.ranked] == [2, 1, 3, 0, 4, 5, 6]
    best = table.best()
    assert best is not None
    assert best["index"] == 2
    assert Table("a", rows[:1], [], Ranking()).best() is None


def test_the_best_is_that_of_the_metric_and_direction_that_the_configuration_selects_by() -> None:
    rows: list[dict[str, Any]] = [
        {"index": 0, "state": "done", "val/accuracy": 0.5, "val/loss": 1.0, "val/macro_f1": 0.1},
        {"index": 1, "state": "done", "val/accuracy": 0.4, "val/loss": 2.0, "val/macro_f1": 0.3},
        {"index": 2, "state": "done", "val/accuracy": 0.3, "val/loss": 0.5, "val/macro_f1": 0.2},
    ]
    selects = Ranking(), Ranking("val/macro_f1"), Ranking("val/loss", "min")
    assert [Table("a", rows, [], select).ranked[0]["index"] for select in selects] == [0, 1, 2]


def test_a_run_that_diverged_after_a_good_epoch_is_a_state_of_its_own_and_never_the_best(
    sweep: SweepDir, small: Callable[..., Config], tmp_path: Path
) -> None:
    from src.outcomes.comparison import compare_axes

    run = sweep.runs()[3]
    finish(run, 0.75)
    write_training(run, {"outcome": "diverged", "best": {"accuracy": 0.8, "loss": 1.0, "epoch": 2.0}, "steps": 12})
    table = read_table(sweep)
    assert [row["state"] for row in table.rows] == ["done", "done", "diverged", "diverged"]
    best = table.best()
    assert best is not None
    assert best["index"] == 1
    assert [row["index"] for row in table.ranked] == [1, 0, 2, 3]
    collect(sweep, tmp_path)
    assert all(run != compared for c in compare_axes(sweep, answer_of_sweep(sweep)) for _, compared, _ in c.runs)


def test_collect_writes_tables_and_figure(sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect(sweep, tmp_path / "artifacts")
    assert (tmp_path / "artifacts" / f"{sweep.name}_curves.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "best: k=001" in shown
    assert shown.count("k=00") >= 5


def test_the_best_cell_goes_into_the_full_training(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    finish(sweep.runs()[3], None)
    assert best_of_all(small()).overrides == {"train.optimizer.lr": 0.001, "model.num_modules": 2}
    trained = with_best_cell(small())
    assert (trained.model.num_modules, trained.train.epochs) == (2, 3)
    said = capsys.readouterr().err
    assert f"--best: k=001_M=2_lr=1.00e-03 of {sweep.name}, val/accuracy 0.7500" in said


def test_the_best_cell_of_a_grid_that_is_not_complete_is_asked_for_by_name(
    sweep: SweepDir, small: Callable[..., Config]
) -> None:
    for ask in (with_best_cell, lambda config: grid_request(config, refined=1)):
        with pytest.raises(
            RunError, match=rf"only 3 of 4 cells of {sweep.name} are done; to finish that grid: .* --unfinished"
        ):
            ask(small())
    assert with_best_cell(small(), unfinished=True).model.num_modules == 2
    assert len(grid_request(small(), refined=1, unfinished=True).cells) == 9


def test_a_grid_that_diverged_everywhere_has_no_best_cell_and_says_so(
    sweep: SweepDir, small: Callable[..., Config]
) -> None:
    for run in sweep.runs():
        finish(run, None)
    for ask in (with_best_cell, lambda config: grid_request(config, refined=1)):
        with pytest.raises(RunError, match=rf"all 4 finished cells of {sweep.name} diverged; .*hparams\.lr"):
            ask(small())


def test_a_narrower_grid_that_diverged_leaves_the_best_of_the_first(
    sweep: SweepDir, small: Callable[..., Config]
) -> None:
    finish(sweep.runs()[3], None)
    narrower, _ = open_sweep(grid_request(small(), refined=1))
    for run in narrower.runs():
        finish(run, None)
    assert best_of_all(small()).sweep == sweep


def test_the_narrower_grid_is_known_to_the_full_training(sweep: SweepDir, small: Callable[..., Config]) -> None:
    finish(sweep.runs()[3], None)
    narrower, _ = open_sweep(grid_request(small(), refined=1))
    with pytest.raises(RunError, match=rf"only 0 of 9 cells of {narrower.name} are done"):
        best_of_all(small())
    for number, run in enumerate(narrower.runs()):
        finish(run, 0.9 if number == 4 else 0.2)
    best = best_of_all(small())
    assert best.sweep == narrower
    assert f"of {narrower.name}, val/accuracy 0.9000" in str(best)
    trained = with_best_cell(small())
    assert (trained.model.num_modules, trained.train.optimizer.lr) == (2, 0.001)
    assert trained.train.optimizer.weight_decay == pytest.approx(best.overrides["train.optimizer.weight_decay"])
    assert trained.train.epochs == 3
    finish(narrower.runs()[4], 0.7)
    assert best_of_all(small()).sweep == sweep


def test_refining_starts_from_the_best_cell(sweep: SweepDir, small: Callable[..., Config]) -> None:
    cells = grid_request(small(), refined=1, unfinished=True).cells
    configs = [make_config(yaml_file.parse_yaml(cell.config, "cell"), "cell") for cell in cells]
    assert {config.model.num_modules for config in configs} == {2}
    assert sorted({config.train.optimizer.lr for config in configs}) == [0.00075, 0.001, 0.00125]


def test_asking_twice_finds_the_same_sweep_and_fresh_makes_another(
    sweep: SweepDir, small: Callable[..., Config]
) -> None:
    again, new = open_sweep(grid_request(small()))
    assert (again.path, new) == (sweep.path, False)
    other, new = open_sweep(grid_request(small()), fresh=True)
    assert new
    assert other.path != sweep.path
    assert open_sweep(grid_request(small(train__seed=3)))[1]


def test_a_run_directory_is_complete_before_it_has_its_name(sweep: SweepDir) -> None:
    config = config_of(sweep.runs()[3])
    assert config.train.optimizer.lr == 0.01
    assert Path(config.paths.runs_dir).is_absolute()
    assert [path.name for path in sweep.path.parent.iterdir() if path.name.startswith(".making")] == []


def test_comparisons_are_between_cells_that_differ_in_one_value(small: Callable[..., Config], tmp_path: Path) -> None:
    from src.outcomes.comparison import compare_axes, draw_comparison

    made, _ = open_sweep(grid_request(small()))
    for run, accuracy in zip(made.runs(), (0.25, 0.75, 0.5, 0.1), strict=True):
        finish(run, accuracy)
    compared = {c.axis: [value for value, _, _ in c.runs] for c in compare_axes(made, answer_of_sweep(made))}
    assert compared == {"lr": [0.001, 0.01], "num_modules": [1, 2]}
    names = [[run.name[:5] for _, run, _ in c.runs] for c in compare_axes(made, answer_of_sweep(made))]
    assert names == [["k=001", "k=003"], ["k=000", "k=001"]]
    assert "0.75" in compare_axes(made, answer_of_sweep(made))[0].sentence()
    drawn = draw_comparison(compare_axes(made, answer_of_sweep(made))[0], tmp_path / "x.png")
    assert drawn
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_a_comparison_shows_all_metrics_and_sorts_numbers_as_numbers(
    small: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from src.outcomes import comparison

    channels = [[100, 4, 4], [20, 100, 4], [20, 4, 4]]
    hparams = {"branch_channels": channels, "batch_size": [128, 16], "activation": ["tanh", "relu"]}
    made, _ = open_sweep(grid_request(small(**ALL_METRICS, hparams=hparams)))
    for run in made.runs():
        finish(run, 0.5, macro_f1=0.25, top5_accuracy=0.75)
    compared = {c.axis.rsplit(".")[-1]: c for c in comparison.compare_axes(made, answer_of_sweep(made))}
    assert {axis: [value for value, _, _ in c.runs] for axis, c in compared.items()} == {
        "branch_channels": ["20-4-4", "20-100-4", "100-4-4"],
        "batch_size": [16, 128],
        "activation": ["relu", "tanh"],
    }
    assert "16: accuracy 0.5, loss 1, macro_f1 0.25, top5_accuracy 0.75; 128:" in compared["batch_size"].sentence()

    panels: list[str] = []
    monkeypatch.setattr(comparison, "curve_of", lambda run, name: (panels.append(name), ([1.0], [2.0]))[1])
    comparison.draw_comparison(compared["activation"], tmp_path / "x.png")
    names = ["train/loss", "val/loss", "val/accuracy", "val/macro_f1", "val/top5_accuracy"]
    assert list(dict.fromkeys(panels)) == names


def test_a_narrower_grid_knows_where_it_came_from_and_can_itself_be_refined(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    finish(sweep.runs()[3], None)
    with pytest.raises(RunError, match=rf"given 2 times: the grid around k=001.* of {sweep.name} .*give it 1 time fir"):
        grid_request(small(), refined=2)
    capsys.readouterr()
    narrower, _ = open_sweep(grid_request(small(), refined=1))
    name = sweep.runs()[1].name
    assert narrower.meta()["origin"] == {"sweep": sweep.name, "run": name, "val/accuracy": 0.75}
    assert f"--refined: around {name} of {sweep.name}, val/accuracy 0.7500" in capsys.readouterr().err
    for number, run in enumerate(narrower.runs()):
        finish(run, 0.9 if number == 1 else 0.2)
    again, new = open_sweep(grid_request(small(), refined=1))
    assert (again, new) == (narrower, False)
    third, new = open_sweep(grid_request(small(), refined=2))
    assert new
    assert third.meta()["origin"]["sweep"] == narrower.name
    assert first_grid_of(third) == narrower
    for run in third.runs():
        finish(run, 0.95)
    assert best_of_all(small()).sweep == third


def test_refining_says_when_other_cells_may_be_as_good(
    sweep: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for run in sweep.runs()[:3]:
        correct = random.random(100) < 0.5
        label = np.zeros(100, dtype=np.int64)
        found = Predictions(label, np.where(correct, 0, 1), np.full(100, 0.5), np.full(100, 1.0), correct, "images")
        write_predictions(run.predictions_file, found, lambda: None)
        finish(run, float(correct.mean()))
    finish(sweep.runs()[3], None)
    grid_request(small(), refined=1)
    assert "2 of the 2 other settings may be as good; the next one is k=00" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "predictions.npz", "result.json"])
def test_a_damaged_cell_may_have_been_the_best(small: Callable[..., Config], name: str) -> None:
    sweep = open_sweep(grid_request(small()))[0]
    for number, run in enumerate(sweep.runs()):
        run.metrics_file.write_text('{"step": 1, "epoch": 1.0, "time": 1.0}\n')
        run.predictions_file.write_bytes(b"content")
        finish(run, 0.1 * number)
    best = sweep.runs()[-1]
    path = best.path / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2").replace(b"content", b"changed"))
    for ask in (with_best_cell, lambda config: grid_request(config, refined=1)):
        with pytest.raises(RunError, match=rf"{best.name}|only 3 of 4"):
            ask(small())
    assert with_best_cell(small(), unfinished=True) != small()
