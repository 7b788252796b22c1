from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc import aggregate
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.files import append_lines
from relay.results.output import SCHEMA
from relay.runs.predictions import write_predictions
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.benchmarks.simulation import sweep_of
from tests.results.statistics.test_best_set import Trained
from tests.results.tables.test_table import write_training


def finish(run: RunDir, trained: Trained, number: int) -> None:
    """Write what the simulated cell `number` leaves."""
    row = trained.table.rows[number]
    write_predictions(run.predictions_file, trained.predictions[row["run"]], lambda: None)
    run.record_attempt(1, start=1.0)
    run.record_attempt(1, end=2.0, cause="DONE", first_step=0, last_step=5, total_steps=5)
    measured = {"accuracy": row["val/accuracy"], "loss": row["val/loss"]}
    log = [{"step": 5 * e, "epoch": e, "time": 1.0, "val/accuracy": measured["accuracy"] * e / 2} for e in (1, 2)]
    append_lines(run.metrics_file, log)
    best = {**measured, "epoch": 2.0, "step": 10}
    result = {"outcome": "completed", "best": best, "steps": 10, "epochs": 2}
    write_training(run, result)


@pytest.fixture
def sweep(small: Callable[..., Config], tmp_path: Path) -> SweepDir:
    """2 rates x 3 seeds, one cell still running, and a config file beside it."""
    config = small(hparams={"lr": [0.001, 0.01], "seed": [1, 2, 3]})
    (tmp_path / "config.yaml").write_text(dump_yaml(config.to_dict()))
    made, _ = open_sweep(grid_request(config))
    trained = Trained(sweep_of(np.random.default_rng(0), [0.6, 0.3], 600, seeds=3, sd=0.01))
    for number, run in enumerate(made.runs()[:5]):
        finish(run, trained, number)
    run = made.runs()[5]
    run.record_attempt(1, start=1.0)
    run.record_attempt(1, end=2.0, cause="OUT_OF_MEMORY", error="no room\nfor 3 GiB", first_step=0, last_step=4)
    append_lines(run.metrics_file, [{"step": 4, "epoch": 1.0, "time": 1.0, "train/loss": 1.0}])
    return made


def ask(tmp_path: Path, *names: str, **options: Any) -> None:
    aggregate.main(list(names), config=str(tmp_path / "config.yaml"), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_an_unfinished_run_has_a_row_with_its_step_its_cause_and_its_error(sweep: SweepDir, tmp_path: Path) -> None:
    ask(tmp_path)
    with sweep.table_file("csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["best", "best", "best", "worse", "worse", ""]
    assert (rows[5]["state"], rows[5]["steps"], rows[5]["error"]) == ("out_of_memory", "4", "no room for 3 GiB")
    assert (rows[5]["val/accuracy"], rows[5]["verdict"], rows[5]["images_per_s"]) == ("", "", "")


def test_the_settings_are_shown_over_their_seeds_and_the_best_is_named(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(tmp_path, sweep.name[-6:])
    shown = capsys.readouterr().out
    assert "val/accuracy over the seeds of each setting, with 95 % intervals for new data and new seeds:" in shown
    assert "The best setting is better than all others (1)." in shown
    assert "Expected of the selected setting on new data and with a new seed" in shown
    assert (sweep.path / "seeds.md").read_text().count("\n") == 4


def test_the_same_input_gives_the_same_bytes(sweep: SweepDir, tmp_path: Path) -> None:
    ask(tmp_path)
    before = contents(sweep.path) | contents(tmp_path / "artifacts")
    ask(tmp_path)
    assert contents(sweep.path) | contents(tmp_path / "artifacts") == before
    assert {"table.csv", "table.md", "table.parquet", "aggregate.json", "seeds.csv", f"{sweep.name}_curves.png"} <= set(
        before
    )


def test_options_choose_what_is_shown_and_the_files_of_the_sweep_hold_everything(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(tmp_path, where=["lr=0.001"], sort="-seed", top=1, columns="run,seed")
    shown = capsys.readouterr().out
    names = [run.name for run in sweep.runs()]
    table = shown.partition("val/accuracy over")[0]
    assert names[2] in table
    assert names[0] not in table
    assert len(sweep.table_file("csv").read_text().splitlines()) == 7
    ask(tmp_path, where=["lr=5"])
    assert f"{sweep.name}: no row matches --where" in capsys.readouterr().out
    with pytest.raises(RunError, match="--sort: there is no column 'rate'; the columns are index, run, state"):
        ask(tmp_path, sort="rate")


def test_another_folder_gets_what_is_shown_and_the_sweep_gets_nothing(sweep: SweepDir, tmp_path: Path) -> None:
    before = contents(sweep.path)
    ask(tmp_path, top=2, columns="run,lr", out=tmp_path / "chosen" / "here")
    assert contents(sweep.path) == before
    assert (tmp_path / "chosen" / "here" / "table.csv").read_text().splitlines()[0] == "run,lr"
    assert len(json.loads((tmp_path / "chosen" / "here" / "aggregate.json").read_text())["rows"]) == 2


def test_json_is_the_whole_answer_on_one_line_and_nothing_is_written(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(sweep.path)
    ask(tmp_path, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert contents(sweep.path) == before
    answer = json.loads(line)
    ask(tmp_path)
    assert answer == json.loads((sweep.path / "aggregate.json").read_text())
    assert answer["schema"] == SCHEMA
    assert answer["select"] == {"name": "accuracy", "direction": "max", "column": "val/accuracy"}
    assert answer["axes"] == ["lr", "seed"]
    assert answer["rows"][0]["run"] == answer["best"]["run"]
    assert [each["n"] for each in answer["seeds"]] == [3, 2]
    found = answer["as_good"]
    assert (found["scope"], found["compared"], found["runs"]) == ("both", 2, [sweep.runs()[0].name])
    assert set(found["winner"]) == {"measured", "expected", "low", "high"}


def test_the_files_of_a_sweep_are_one_line(sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(tmp_path)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("wrote "))
    assert line == f"wrote 8 files to {sweep.path} and 4 files to {tmp_path / 'artifacts'}"
    assert len(list((tmp_path / "artifacts").iterdir())) == 4


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_can_be_vector_graphics_with_the_same_bytes_every_time(
    sweep: SweepDir, tmp_path: Path, suffix: str, start: bytes
) -> None:
    ask(tmp_path, out=tmp_path / "a", suffix=suffix)
    ask(tmp_path, out=tmp_path / "b", suffix=suffix)
    drawn = {name: content for name, content in contents(tmp_path / "a").items() if content.startswith(start)}
    assert {Path(name).stem for name in drawn} == {"curves", "effects", "parallel", "rank_correlation"}
    assert {Path(name).suffix for name in drawn} == {f".{suffix}"}
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    ask(tmp_path, suffix=suffix)
    assert (tmp_path / "artifacts" / f"{sweep.name}_curves.{suffix}").is_file()


def test_who_may_only_read_gets_one_message_and_can_write_elsewhere(
    sweep: SweepDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder's mode does not hold root back, who may run these tests.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or not path.is_relative_to(sweep.path))
    before = contents(sweep.path)
    with pytest.raises(RunError, match=rf"{sweep.name}: you may read but not write there.* --out DIR; .* --json"):
        ask(tmp_path)
    assert contents(sweep.path) == before
    ask(tmp_path, out=tmp_path / "mine")
    ask(tmp_path, as_json=True)
    assert (tmp_path / "mine" / "table.csv").is_file()
    assert contents(sweep.path) == before


def test_json_and_a_folder_exclude_each_other(sweep: SweepDir, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--json writes no file, so it cannot be combined with --out"):
        ask(tmp_path, as_json=True, out=tmp_path / "chosen")
    assert not (tmp_path / "chosen").exists()


def test_the_keys_of_the_answer_are_those_that_its_description_names(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from relay.results import output as module

    ask(tmp_path, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    text = module.__doc__ or ""
    assert {line.split()[0] for line in text.splitlines() if line.startswith("    ") and line[4] != " "} == set(answer)
    assert all(re.search(rf"\b{key}\b", text) for part in ("as_good", "effects") for key in answer[part])


def _edited(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda best, other: best.predictions_file.write_bytes(b"PK"),
        # Whole, but of another run.
        lambda best, other: best.predictions_file.write_bytes(other.predictions_file.read_bytes()),
        lambda best, other: best.result_file.write_bytes(other.result_file.read_bytes()),
        lambda best, other: _edited(best.result_file, b'"accuracy": 0.', b'"accuracy": 0.9'),
        lambda best, other: _edited(best.result_file, b'"loss": ', b'"loss": 1'),
        # A row in the middle that was changed, is no JSON, or is gone.
        lambda best, other: _edited(best.metrics_file, b'"step": 5', b'"step": 7'),
        lambda best, other: _edited(best.metrics_file, b'{"step"', b'{"st\x00ep'),
        lambda best, other: best.metrics_file.write_bytes(best.metrics_file.read_bytes().partition(b"\n")[2]),
    ],
    ids=["torn", "exchanged", "result exchanged", "accuracy", "loss", "row", "no JSON", "row lost"],
)
def test_a_run_whose_files_do_not_belong_together_is_damaged_and_nothing_of_it_is_believed(
    sweep: SweepDir,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[RunDir, RunDir], object],
) -> None:
    best, second, third, other = sweep.runs()[:4]
    damage(best, other)
    ask(tmp_path)
    with sweep.table_file("csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert (rows[best.name]["state"], rows[best.name]["val/accuracy"], rows[best.name]["verdict"]) == (
        "damaged",
        "",
        "",
    )
    assert "restore it" in rows[best.name]["error"]
    assert (rows[second.name]["state"], rows[second.name]["verdict"]) == ("done", "best")
    assert json.loads((sweep.path / "aggregate.json").read_text())["best"]["run"] in (second.name, third.name)
    assert "Traceback" not in capsys.readouterr().err


def test_files_that_a_user_removed_are_no_damage(sweep: SweepDir, tmp_path: Path) -> None:
    for run in sweep.runs()[:2]:
        run.predictions_file.unlink()
        run.metrics_file.unlink()
    ask(tmp_path)
    with sweep.table_file("csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)][:3] == ["done"] * 3
