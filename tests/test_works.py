"""The table of works, and what the engine does with a sweep of a work that it does not know."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from hpc.submission.outcome import show_outcome
from hpc.works import WORKS, work_of
from relay.errors import RunError
from relay.results.tables.table import read_table
from relay.runs.sweeps import open_sweep, with_whole_manifests
from src.config.schema import Config
from src.requests import grid_request, train_request


def test_an_unknown_work_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        RunError, match=r"kind 'distil' of a sweep is unknown; known: train, lr_sweep, grid, compare, evaluate"
    ):
        work_of("distil")
    assert all(name == work.name for name, work in WORKS.items())


def test_a_sweep_of_an_unknown_work_has_a_table_and_no_more(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    known, newer = (open_sweep(request(small()))[0] for request in (grid_request, train_request))
    newer.runs()[0].write_result({"steps": 1, "columns": {"val/accuracy": 0.5}})
    newer.meta_file.write_text(newer.meta_file.read_text().replace("kind: train", "kind: distil"))
    assert list(with_whole_manifests([newer, known])) == [newer, known]
    assert read_table(newer).rows[0]["val/accuracy"] == 0.5
    with pytest.raises(RunError, match=re.escape(f"kind 'distil' of {newer.path} is unknown; known: train, ")):
        show_outcome(newer, small().paths)
    assert "0.5" in capsys.readouterr().out


def test_a_table_needs_no_more_of_its_sweeps_configuration_than_the_selecting_metric(
    small: Callable[..., Config],
) -> None:
    sweep, _ = open_sweep(train_request(small()))
    meta = sweep.meta_file.read_text().replace("stem_channels: 6", "stem_channels: wide")
    sweep.meta_file.write_text(meta)
    assert "val/accuracy" in read_table(sweep).rows[0]
    sweep.meta_file.write_text(meta.replace("direction: max", "direction: up"))
    with pytest.raises(RunError, match=r"sweep\.yaml: select\.direction: must be 'max' or 'min'"):
        read_table(sweep)
