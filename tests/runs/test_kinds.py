"""The two tables of kinds agree, and the keys by which sweeps on disk are found never change."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from jobs.kinds import JOBS
from src.runs.kinds import KINDS, content_key, cost_key, kind_of

from src.config.loading import load_config, make_config
from src.config.schema import Config
from src.errors import ConfigError, RunError
from src.requests import grid_request, lr_sweep_request, train_request
from src.results.table import read_table
from src.runs.sweeps import open_sweep, with_whole_manifests
from tests.conftest import ROOT

WEIGHTS = {"evaluation.checkpoint": "/weights/best.ckpt", "evaluation.sha256": "0" * 64}


@pytest.fixture
def report() -> Config:
    """The report's experiment, with a checkpoint to evaluate."""
    return make_config(load_config(ROOT / "configs" / "config.yaml").to_dict(), "test", WEIGHTS)


@pytest.mark.parametrize(
    ("kind", "key", "cost", "units"),
    [
        ("train", "5579900aabbc61c2", "0560e3a8b195", 40.0),
        ("grid", "5579900aabbc61c2", "0560e3a8b195", 40.0),
        ("lr_sweep", "d37df55c5d1ba790", "dcfc67e2234f", 200.0),
        ("evaluate", "f121f703fd2b78fa", "b2779c20b747", 1.0),
    ],
)
def test_the_keys_of_runs_are_those_of_earlier_versions(
    report: Config, kind: str, key: str, cost: str, units: float
) -> None:
    """Literal keys: a changed key would orphan the checkpoints, sweeps and forecasts on users' disks."""
    assert (content_key(report, kind), cost_key(report, kind), kind_of(kind).units(report)) == (key, cost, units)


def test_the_keys_of_requests_are_those_of_earlier_versions(report: Config) -> None:
    assert grid_request(report).key == "8d4618d95041d459"
    assert grid_request(report).cells[5].key == "431ac558e1745b0b"
    assert train_request(report).key == "3f4e0977b7c8622b"
    assert lr_sweep_request(report).key == "8c83caabe2a81ed6"


def test_a_run_is_one_unit_of_work_where_steps_end_it(small: Callable[..., Config]) -> None:
    assert kind_of("train").units(small(train__max_steps=5)) == 1.0
    assert kind_of("train").units(small()) == 3.0


def test_every_kind_is_planned_and_executed() -> None:
    assert list(JOBS) == list(KINDS)


def test_an_unknown_kind_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        RunError, match=r"kind 'distil' of a sweep is unknown; known: train, lr_sweep, grid, compare, evaluate"
    ):
        kind_of("distil")


def test_a_sweep_of_an_unknown_kind_is_named_and_keeps_no_other_from_its_table(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    known, newer = (open_sweep(request(small()))[0] for request in (grid_request, train_request))
    newer.meta_file.write_text(newer.meta_file.read_text().replace("kind: train", "kind: distil"))
    message = f"kind 'distil' of {newer.path} is unknown; known: train, "
    with pytest.raises(RunError, match=re.escape(message)):
        read_table(newer)
    assert list(with_whole_manifests([newer, known])) == [known]
    assert f"skipped: {message}" in capsys.readouterr().err


def test_a_table_needs_no_more_of_its_sweeps_configuration_than_the_metrics(small: Callable[..., Config]) -> None:
    sweep, _ = open_sweep(train_request(small(**{"metrics.classification": ["macro_f1"]})))
    meta = sweep.meta_file.read_text().replace("stem_channels: 6", "stem_channels: wide")
    sweep.meta_file.write_text(meta)
    assert "val/macro_f1" in read_table(sweep).rows[0]
    sweep.meta_file.write_text(meta.replace("macro_f1", "macro_f2"))
    with pytest.raises(ConfigError, match=r"sweep\.yaml.*\n.*metrics\.classification"):
        read_table(sweep)
