"""Which sweep feeds a section, when there are several."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request, open_sweep
from src.config.loading import config_of
from src.config.schema import Config
from src.reporting.finding import Sweeps, changed_values
from src.requests import evaluation_request, grid_request, train_request
from tests.results.tables.test_table import finish

Small = Callable[..., Config]


def finished(request: Request, *, only: int | None = None) -> SweepDir:
    """A new sweep with its runs, or `only` the first ones, done."""
    sweep, _ = open_sweep(request, fresh=True)
    for run in sweep.runs()[:only]:
        finish(run, 0.5)
    return sweep


def test_one_of_this_configuration_comes_before_a_newer_one_on_the_same_images(small: Small) -> None:
    own = finished(train_request(small()))
    newer = finished(train_request(small(train__optimizer__lr=0.5)))
    found = Sweeps(small()).training
    assert found
    assert (found.sweep, found.exact) == (own, True)
    other = Sweeps(small(train__optimizer__lr=0.1)).training
    assert other
    assert (other.sweep, other.exact) == (newer, False)
    assert changed_values(small(), config_of(newer.runs()[0])) == {"train.optimizer.lr": (0.002, 0.5)}


def test_a_folder_is_the_same_data_however_it_is_written(small: Small, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.chdir(tmp_path):
        relative = small(dataset__name="./data")
        whole = small(dataset__name=str(tmp_path / "data"), dataset__source="folder")
        assert changed_values(relative, whole) == {}
        assert list(changed_values(relative, small(dataset__name="./other"))) == ["dataset.name"]


def test_the_training_of_the_best_cell_belongs_to_its_configuration(small: Small) -> None:
    finished(grid_request(small()))
    best = finished(train_request(small(train__optimizer__lr=0.001)))
    finished(train_request(small(train__optimizer__lr=0.3)))
    found = Sweeps(small()).training
    assert found
    assert (found.sweep, found.exact) == (best, True)


def test_other_images_never_feed_a_section(small: Small) -> None:
    finished(train_request(small()))
    assert Sweeps(small(dataset__split__seed=1)).training is None
    assert Sweeps(small(dataset__synthetic_train_per_class=12)).training is None


def test_a_complete_sweep_comes_before_a_newer_incomplete_one(small: Small) -> None:
    complete = finished(grid_request(small()))
    finished(grid_request(small()), only=1)
    finished(grid_request(small()), only=0)
    found = Sweeps(small()).grid
    assert found
    assert found.sweep == complete


def test_an_evaluation_is_found_by_the_weights_that_it_measured(small: Small) -> None:
    training = finished(train_request(small())).runs()[0]
    training.checkpoints.mkdir()
    training.best_file.write_bytes(b"weights")
    copy = training.path.parent.parent / "copy.ckpt"
    copy.write_bytes(b"weights")
    other = training.path.parent.parent / "other.ckpt"
    other.write_bytes(b"other weights")
    measured = finished(evaluation_request(small(evaluation__checkpoint=str(copy))))
    finished(evaluation_request(small(evaluation__checkpoint=str(other))))
    finished(evaluation_request(small(evaluation__checkpoint=str(copy), evaluation__split="val")))
    found = Sweeps(small()).evaluation(training)
    assert found
    assert found.sweep == measured
    assert found.sweep.meta()["config"]["evaluation"]["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_a_narrower_grid_around_this_grid_is_the_one(small: Small) -> None:
    finished(grid_request(small()))
    own = finished(grid_request(small(), refined=1))
    finished(grid_request(small(train__optimizer__lr=0.3, hparams={"lr": [0.2, 0.3]}), refined=1))
    found = Sweeps(small()).refined
    assert found
    assert (found.sweep, found.exact) == (own, True)
