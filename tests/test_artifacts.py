"""artifacts/best.ckpt holds the best weights of one experiment, and other runs never replace it silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc.submission.prepare import prepare_inputs
from relay.config.yaml_file import dump_yaml
from relay.errors import CheckpointError
from relay.progress import PlainReporter
from relay.results.statements import STATEMENTS
from relay.runs.lifecycle import attempt
from relay.runs.planned import check_as_planned, planned_run
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from relay.texts import Texts
from src.artifacts import better_training, better_training_statements, export_best, replace_best_by
from src.config.keys import TRAINING, content_key
from src.config.loading import config_of
from src.config.schema import Config
from src.evaluation.evaluator import evaluate
from src.requests import evaluation_request, grid_request, train_request


@pytest.fixture
def trained(small: Callable[..., Config]) -> Callable[..., RunDir]:
    """A finished training with these values at its best epoch, and its weights, in a sweep of its own."""

    def make(accuracy: float | None, loss: float = 1.0, **changes: Any) -> RunDir:
        run = open_sweep(prepare_inputs(train_request(small(**changes))), fresh=True)[0].runs()[0]
        best = None if accuracy is None else {"accuracy": accuracy, "loss": loss, "epoch": 1.0}
        run.checkpoints.mkdir()
        if best:
            run.best_file.write_text(f"weights of {run.label}")
        run.write_result({"outcome": "completed", "best": best, "steps": 6})
        return run

    return make


def export(run: RunDir, **options: bool) -> str:
    result = run.result()
    assert result
    return export_best(run, result, **options)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "artifacts" / "best.ckpt"


def test_only_better_weights_take_the_place_of_those_that_are_there(
    trained: Callable[..., RunDir], target: Path
) -> None:
    first = trained(0.6)
    assert f"best weights: {target}, {first.label} (val/accuracy 0.6000)" in export(first)
    for worse in (trained(0.5), trained(0.6), trained(0.6, loss=1.5)):
        assert "is not worse than" in export(worse)
        assert str(worse.best_file) in export(worse)
        assert target.read_bytes() == first.best_file.read_bytes()
    for better in (trained(0.6, loss=0.5), trained(0.7)):
        assert "in place of " in export(better)
        assert target.read_bytes() == better.best_file.read_bytes()
        assert json.loads(target.with_suffix(".json").read_text())["run"] == str(better.path)
    assert [path.name for path in target.parent.glob("best-*")] == [], "each run keeps its own"


def test_a_better_training_beside_the_exported_one_is_said(
    trained: Callable[..., RunDir], small: Callable[..., Config], target: Path
) -> None:
    def said(language: str = "en") -> list[str]:
        return better_training_statements(small().paths, small().metrics.select, Texts(language, STATEMENTS))

    assert said() == [], "nothing is exported"
    first = trained(0.6)
    export(first)
    trained(0.6, loss=0.5), trained(0.5), trained(None)
    assert said() == []
    cell = trained(0.7)
    assert said() == [
        f"{target} holds the weights of {first.label} (val/accuracy 0.6000); {cell.label} is better on the same data "
        f"(0.7000), and its weights are {cell.best_file}."
    ]
    assert f"{cell.label} est meilleur sur les mêmes données (0.7000)" in said("fr")[0]
    trained(0.65)
    assert f"{cell.label} is better" in said()[0], "the best one of them"
    for changes in ({"dataset__split": {"val": 12, "test": 20}}, {"dataset__synthetic_seed": 5}):
        trained(0.9, **changes)
        assert f"{cell.label} is better" in said()[0], "other images or another split say nothing"
    export(cell)
    assert said() == []
    # On purpose; the message names what was lost.
    assert f"in place of {cell.label} (val/accuracy 0.7000), which is better" in export(first, replace=True)
    assert "which is better" not in export(cell, replace=True)
    export(first, replace=True)
    cell.best_file.unlink()
    assert "(0.6500)" in said()[0], "weights that were removed help nobody"


def test_a_grid_and_a_diverged_run_beside_the_exported_weights(
    trained: Callable[..., RunDir], small: Callable[..., Config]
) -> None:
    export(trained(0.6))
    cells = open_sweep(prepare_inputs(grid_request(small())))[0].runs()
    for cell, outcome, accuracy in zip(cells, ("diverged", "completed", "completed"), (0.9, 0.5, 0.8), strict=False):
        cell.checkpoints.mkdir()
        cell.best_file.write_text("weights")
        cell.write_result({"outcome": outcome, "best": {"accuracy": accuracy, "loss": 1.0}})
    found = better_training(small().paths, small().metrics.select)
    assert found
    assert (found.run, found.value, found.kept_value) == (cells[2].label, 0.8, 0.6)
    cells[2].result_file.write_text("{}")
    assert better_training(small().paths, small().metrics.select) is None, "a damaged run is passed by"
    by_loss = small(metrics__select={"name": "loss", "direction": "min"})
    cells[1].write_result({"outcome": "completed", "best": {"accuracy": 0.5, "loss": 0.25}})
    found = better_training(by_loss.paths, by_loss.metrics.select)
    assert found
    assert (found.run, found.column, found.value) == (cells[1].label, "val/loss", 0.25)


def test_a_run_may_replace_its_own(trained: Callable[..., RunDir], target: Path) -> None:
    run = trained(0.6)
    export(run)
    run.best_file.write_text("after it went on")
    assert "best weights" in export(run)
    assert target.read_text() == "after it went on"
    assert "is better" not in export_best(run, {"best": {"accuracy": 0.5, "loss": 1.0}})


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__split": {"val": 12, "test": 20}},
        {"dataset__split": {"val": 20, "test": 20, "seed": 7}},
        {"dataset__synthetic_seed": 5},
    ],
)
def test_another_experiments_weights_are_kept(
    trained: Callable[..., RunDir], target: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = trained(0.6), trained(0.9, **changes)
    export(first)
    said = export(other)
    assert f"is kept: it is of {first.path}, on other data or another split" in said
    assert "--replace-best puts them there" in said
    assert target.read_bytes() == first.best_file.read_bytes()
    replace_best_by(other.sweep())
    assert f"in place of {first.label}" in capsys.readouterr().out
    assert target.read_bytes() == other.best_file.read_bytes()


def test_the_configuration_can_ask_for_it(trained: Callable[..., RunDir], target: Path) -> None:
    export(trained(0.6))
    worse = trained(0.1, checkpoint__replace_best=True)
    assert "best weights" in export(worse)
    assert target.read_bytes() == worse.best_file.read_bytes()


def test_it_can_be_asked_of_a_run_that_is_planned_already(
    trained: Callable[..., RunDir], target: Path, small: Callable[..., Config]
) -> None:
    """The run is queued or running when a later command asks for it."""
    export(trained(0.6))
    run = open_sweep(prepare_inputs(train_request(small(train__seed=5))))[0].runs()[0]
    replace_best_by(run.sweep())
    result = {"outcome": "completed", "best": {"accuracy": 0.1, "loss": 2.0}}
    check_as_planned(run, content_key(config_of(run), TRAINING), planned_data(run), "its images")
    run.checkpoints.mkdir()
    run.best_file.write_text("its weights")
    assert "best weights" in export_best(run, result)
    assert target.read_bytes() == run.best_file.read_bytes()


def planned_data(run: RunDir) -> str:
    found = planned_run(run)
    assert found
    assert found.data
    return found.data


def test_weights_measured_on_unknown_images_are_not_compared(
    small: Callable[..., Config], trained: Callable[..., RunDir], target: Path
) -> None:
    """The manifests of earlier versions have no digests of images."""
    runs = [open_sweep(train_request(small(train__seed=seed)))[0].runs()[0] for seed in (1, 2)]
    for run, accuracy in zip(runs, (0.5, 0.9), strict=True):
        run.checkpoints.mkdir()
        run.best_file.write_text(run.label)
        said = export_best(run, {"best": {"accuracy": accuracy, "loss": 1.0}})
    assert "on other data or another split" in said
    assert target.read_bytes() == runs[0].best_file.read_bytes()


def test_weights_that_nobody_knows_are_kept_and_never_lost(trained: Callable[..., RunDir], target: Path) -> None:
    target.parent.mkdir()
    target.write_text("of the report's program")
    run = trained(0.9)
    assert "its origin is unknown" in export(run)
    export(run, replace=True)
    (kept,) = target.parent.glob("best-*.ckpt")
    assert kept.read_text() == "of the report's program"
    # The run that they came from is deleted.
    other = trained(0.95)
    run.best_file.unlink()
    export(other)
    assert len(list(target.parent.glob("best-*.ckpt"))) == 2


def test_a_run_without_a_best_epoch_leaves_it_alone(trained: Callable[..., RunDir], target: Path) -> None:
    export(trained(0.6))
    before = target.read_bytes()
    assert "no best epoch" in export(trained(None))
    assert target.read_bytes() == before


@pytest.fixture
def checkpoint(small: Callable[..., Config], tmp_path: Path) -> Path:
    from src.models.registry import build_model

    path = tmp_path / "some.ckpt"
    torch.save({"model_state_dict": build_model(small().model).state_dict()}, path)
    return path


def planned(config: Config) -> RunDir:
    return open_sweep(prepare_inputs(evaluation_request(config)), fresh=True)[0].runs()[0]


def test_an_evaluation_measures_the_file_that_it_was_planned_for(
    small: Callable[..., Config], checkpoint: Path, tmp_path: Path
) -> None:
    from src.models.registry import build_model

    run = planned(small(evaluation__checkpoint=str(checkpoint)))
    content = checkpoint.read_bytes()
    torch.manual_seed(99)
    torch.save({"model_state_dict": build_model(small().model).state_dict()}, checkpoint)
    with pytest.raises(CheckpointError, match=r"some\.ckpt: was replaced after this evaluation was planned"):
        attempt(run, evaluate, lambda: False, PlainReporter())
    assert run.result() is None
    checkpoint.write_bytes(content)
    attempt(run, evaluate, lambda: False, PlainReporter())
    result = run.result()
    assert result
    assert result["checkpoint_sha256"] == config_of(run).evaluation.sha256


def test_bytes_changed_inside_a_checkpoint_are_seen(small: Callable[..., Config], checkpoint: Path) -> None:
    data = bytearray(checkpoint.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    checkpoint.write_bytes(data)
    run = planned(small(evaluation__checkpoint=str(checkpoint)))
    with pytest.raises(CheckpointError, match=r"some\.ckpt: is damaged: .* differs from what was written"):
        attempt(run, evaluate, lambda: False, PlainReporter())


def test_the_digest_beside_a_checkpoint_is_compared(small: Callable[..., Config], checkpoint: Path) -> None:
    config = small(evaluation__checkpoint=str(checkpoint))
    beside = checkpoint.with_suffix(".json")
    for harmless in ("{}", "[1]", "not json", '{"sha256": 7}'):
        beside.write_text(harmless)
        evaluation_request(config)
    beside.write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"does not match some\.json beside it"):
        evaluation_request(config)
    with pytest.raises(CheckpointError, match=r"evaluation\.sha256: a+, but .*some\.ckpt has"):
        evaluation_request(small(evaluation__checkpoint=str(checkpoint), evaluation__sha256="a" * 64))


def test_the_best_weights_of_other_images_are_measured_only_by_name(small: Callable[..., Config]) -> None:
    config, other = small(), small(dataset__synthetic_seed=7)
    best = Path(config.paths.artifacts_dir) / "best.ckpt"
    best.parent.mkdir()
    best.write_bytes(b"weights")
    best.with_suffix(".yaml").write_text(dump_yaml(config.to_dict()))
    assert evaluation_request(config).config["evaluation"]["checkpoint"] == str(best)
    with pytest.raises(
        CheckpointError, match=r"trained on other data .*synthetic_seed 0; .*synthetic_seed 7\)"
    ) as caught:
        evaluation_request(other)
    assert "training of this configuration" not in str(caught.value)
    own = open_sweep(train_request(other))[0].runs()[0]
    own.checkpoints.mkdir()
    own.best_file.write_bytes(b"its own")
    with pytest.raises(CheckpointError, match=f"the training of this configuration: .*--checkpoint {own.best_file}"):
        evaluation_request(other)
    named = small(dataset__synthetic_seed=7, evaluation__checkpoint=str(best))
    assert evaluation_request(named).config["evaluation"]["checkpoint"] == str(best)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset__split__seed": 7},
        {"dataset__split__test": 24, "dataset__split__val": 16},
        {"dataset__split__val": 12},
        {"dataset__split__train": "valid", "dataset__split__valid": "train"},
        {"dataset__revision": "another"},
    ],
)
def test_the_best_weights_of_another_split_are_measured_only_by_name(
    small: Callable[..., Config], change: dict[str, Any]
) -> None:
    best = Path(small().paths.artifacts_dir) / "best.ckpt"
    best.parent.mkdir()
    best.write_bytes(b"weights")
    best.with_suffix(".yaml").write_text(dump_yaml(small().to_dict()))
    key = next(iter(change)).replace("__", ".")
    with pytest.raises(
        CheckpointError, match=rf"another split \(.*{key} .*; this configuration: .*{key} .*--checkpoint"
    ):
        evaluation_request(small(**change))
    evaluation_request(small(**change, evaluation__checkpoint=str(best)))
    # What changes no image that is measured is no reason to refuse.
    evaluation_request(small(dataset__num_workers=1, dataset__allowed_overlap=0.5, train__seed=3))
