"""A run is executed as it was planned or not at all: with its configuration, images and manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.pipeline.directory import StageRecord, make_pipeline
from hpc.pipeline.stages import open_stage_sweep
from hpc.submission.forecast import forecast_of
from hpc.submission.launching import launch
from hpc.submission.prepare import prepare_inputs
from hpc.submission.profile import load_profile
from hpc.works import PIPELINE
from relay.errors import DataError, RunError
from relay.progress import PlainReporter
from relay.results.tables.table import read_table
from relay.runs.names import find_named
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import Request, describe_progress, open_sweep
from src.config.schema import Config
from src.data import synthetic
from src.requests import evaluation_request, grid_request, lr_sweep_request, train_request
from src.training.lr_range import sweep_rates
from src.training.trainer import train
from tests.conftest import ROOT, asked, assert_same_run
from tests.results.tables.test_table import finish
from tests.training.test_trainer import NEVER, StopAfter

LOCAL = load_profile(str(ROOT / "configs" / "clusters" / "local.yaml"))[1]


def write_images(folder: Path, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    synthetic.write(folder, classes=4, train_per_class=24, valid_per_class=10, seed=seed)


@pytest.fixture
def on_folder(small: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Small experiments on images in ./images, which tests change."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", seed=0)
    return lambda **changes: small(dataset__name="./images", **changes)


def planned(request: Request) -> SweepDir:
    return open_sweep(prepare_inputs(request))[0]


def execute(run: RunDir, questions: int = NEVER) -> str:
    return train(run, StopAfter(questions), PlainReporter()).status


def test_a_run_does_not_go_on_with_other_images(on_folder: Callable[..., Config], tmp_path: Path) -> None:
    run, straight = (planned(train_request(on_folder(paths__runs_dir=str(tmp_path / n)))).runs()[0] for n in "ab")
    assert execute(straight) == "done"
    assert execute(run, 9) == "stopped"
    shutil.copytree(tmp_path / "images", tmp_path / "before")
    write_images(tmp_path / "images", seed=1)
    with pytest.raises(DataError, match=r"dataset\.name .*/images changed after it was planned .* --fresh"):
        execute(run)
    with pytest.raises(DataError, match="1 of 1 run planned on other content of the data"):
        planned(train_request(on_folder(paths__runs_dir=str(tmp_path / "a"))))
    # The same bytes in newer files are the same images.
    shutil.copytree(tmp_path / "before", tmp_path / "images", dirs_exist_ok=True, copy_function=shutil.copy)
    assert execute(run) == "done"
    assert_same_run(straight, run)


def test_done_cells_on_other_images_are_not_taken_for_these(on_folder: Callable[..., Config], tmp_path: Path) -> None:
    request = grid_request(on_folder())
    made = planned(request)
    for run in made.runs():
        finish(run, 0.5)
    assert planned(request).path == made.path
    write_images(tmp_path / "images", seed=1)
    with pytest.raises(DataError, match=r"4 of 4 runs .*restore it, .*--fresh"):
        planned(request)
    fresh, new = open_sweep(prepare_inputs(request), fresh=True)
    assert new
    assert fresh.cells()[0].data != made.cells()[0].data


def test_each_cell_is_bound_to_its_own_images(small: Callable[..., Config]) -> None:
    cells = planned(grid_request(small(hparams={"dataset.synthetic_seed": [0, 1], "lr": [0.1, 0.2]}))).cells()
    assert len({cell.data for cell in cells}) == 2
    assert cells[0].data == cells[1].data
    assert execute(SweepDir.run(planned(train_request(small())), "train")) == "done"


def test_a_sweep_that_was_planned_without_digests_of_images_is_continued(small: Callable[..., Config]) -> None:
    made, _ = open_sweep(train_request(small()))
    assert made.cells()[0].data is None
    assert planned(train_request(small())).path == made.path
    assert execute(made.runs()[0]) == "done"


@pytest.mark.parametrize("questions", [None, 0, 5])
def test_an_edited_configuration_is_refused_from_the_first_step(
    small: Callable[..., Config], questions: int | None
) -> None:
    run = planned(train_request(small())).runs()[0]
    if questions is not None:
        assert execute(run, questions) == "stopped"
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("lr: 0.002", "lr: 0.9"))
    with pytest.raises(RunError, match=r"config\.yaml: differs from the planned one; remove it"):
        execute(run)
    run.config_file.write_text(text.replace("device: cpu", "device: auto"))
    assert execute(run) == "done"


@pytest.mark.parametrize("questions", [0, 5])
def test_a_rate_sweep_keeps_its_limits(small: Callable[..., Config], questions: int) -> None:
    run = planned(lr_sweep_request(small())).runs()[0]
    assert sweep_rates(run, StopAfter(questions), PlainReporter()).status == "stopped"
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("max_lr: 1.0", "max_lr: 10.0"))
    assert run.config_file.read_text() != text
    with pytest.raises(RunError, match=r"config\.yaml: differs from the planned one"):
        sweep_rates(run, StopAfter(NEVER), PlainReporter())
    run.config_file.write_text(text)
    assert sweep_rates(run, StopAfter(NEVER), PlainReporter()).status == "done"


def test_a_pipeline_stops_where_its_images_change(on_folder: Callable[..., Config], tmp_path: Path) -> None:
    config = on_folder()
    pipeline = make_pipeline(asked(config), fresh=False)
    request = lr_sweep_request(config)
    made = open_stage_sweep(pipeline, "lr_sweep", request)
    assert open_stage_sweep(pipeline, "lr_sweep", request) == made
    write_images(tmp_path / "images", seed=1)
    with pytest.raises(DataError, match="planned on other content"):
        open_stage_sweep(pipeline, "lr_sweep", request)


def test_a_pipeline_whose_training_diverged_says_so(small: Callable[..., Config]) -> None:
    config = small()
    pipeline = make_pipeline(asked(config), fresh=False)
    made = {"lr_sweep": planned(lr_sweep_request(config)), "grid": planned(grid_request(config))}
    made["lr_sweep"].runs()[0].write_result({"suggestion": {"valley": 0.01}})
    for run in made["grid"].runs():
        finish(run, 0.5)
    made["train"] = planned(train_request(config))
    finish(made["train"].runs()[0], None)
    for stage, sweep in made.items():
        pipeline.record_stage(StageRecord(stage, "done", sweep.name))
    with pytest.raises(RunError, match=r"no epoch of .*/train had a finite loss on val; there is nothing to evaluate"):
        pipeline.request("evaluate")


def test_a_pipeline_shows_an_evaluation_without_a_loss(small: Callable[..., Config], tmp_path: Path) -> None:
    weights = tmp_path / "some.ckpt"
    weights.write_bytes(b"weights")
    made = planned(evaluation_request(small(evaluation__checkpoint=str(weights))))
    measured = {"split": "test", "accuracy": 0.25, "loss": None}
    made.runs()[0].write_result({"outcome": "diverged", **measured, "columns": measured})
    assert PIPELINE["evaluate"].found(made) == "test accuracy 0.25, loss not finite"


def cut(lines: list[str]) -> list[str]:
    return lines[:1]


def damage(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2][:40], *lines[3:]]


def double(lines: list[str]) -> list[str]:
    return [*lines[:3], lines[0]]


def add(lines: list[str]) -> list[str]:
    return [*lines, lines[0]]


def swap_names(lines: list[str]) -> list[str]:
    return [*lines[:3], lines[3].replace("k=003_M=2", "k=002_M=1")]


@pytest.fixture(params=[cut, damage, double, add, swap_names])
def damaged(request: pytest.FixtureRequest, small: Callable[..., Config]) -> SweepDir:
    made = open_sweep(grid_request(small()))[0]
    changed = request.param(made.cells_file.read_text().splitlines())
    made.cells_file.write_text("\n".join(changed) + "\n")
    return made


def test_a_manifest_that_does_not_fit_is_an_error(damaged: SweepDir, small: Callable[..., Config]) -> None:
    message = r"cells\.jsonl: (\d complete lines.* but sweep\.yaml says 4|line 3: is not JSON)"
    for use in (
        damaged.cells,
        damaged.runs,
        lambda: read_table(damaged),
        lambda: launch(grid_request(small()), "local"),
    ):
        with pytest.raises(RunError, match=message):
            use()


def test_a_damaged_sweep_stands_in_nobody_elses_way(
    damaged: SweepDir, small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = small()
    other = open_sweep(lr_sweep_request(config))[0]
    with pytest.raises(RunError, match="no sweep and no run has that"):
        find_named(Path(config.paths.runs_dir), "seed=43")
    request = grid_request(config)
    forecast_of(request, request.cells, LOCAL)
    assert capsys.readouterr().err.count(f"skipped: {damaged.cells_file}") == 1
    damaged.meta_file.write_text("")
    assert find_named(Path(config.paths.runs_dir), None)[0] == other
    assert f"skipped: {damaged.meta_file}" in capsys.readouterr().err


def test_progress_is_the_number_of_done_runs_among_all(small: Callable[..., Config]) -> None:
    one, four = open_sweep(train_request(small()))[0], open_sweep(grid_request(small()))[0]
    assert describe_progress(one, new=True) == "new, 1 run"
    assert describe_progress(one, new=False) == "continued, 0 of 1 run is done"
    assert describe_progress(four, new=True) == "new, 4 runs"
    assert describe_progress(four, new=False) == "continued, 0 of 4 runs are done"
    four.runs()[0].write_result({"steps": 3})
    assert describe_progress(four, new=False) == "continued, 1 of 4 runs is done"
    four.runs()[1].write_result({"steps": 3})
    assert describe_progress(four, new=False) == "continued, 2 of 4 runs are done"
