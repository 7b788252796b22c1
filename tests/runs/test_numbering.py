"""The newest sweep is the one that was made last, whatever the clocks and time zones of the login nodes say."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpc.pipeline.directory import Pipeline, all_pipelines, find_same_pipeline, make_pipeline
from hpc.pipeline.names import find_pipeline, list_other_names
from relay.config import yaml_file
from relay.runs.names import find_named
from relay.runs.numbering import next_number
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import find_sweep, open_sweep, sweeps
from src.config.schema import Config
from src.reporting.finding import Sweeps
from src.requests import grid_request, train_request
from tests.conftest import asked
from tests.results.tables.test_table import finish

EAST, WEST = "Pacific/Kiritimati", "Pacific/Honolulu"


def set_zone(patch: pytest.MonkeyPatch, zone: str) -> None:
    patch.setenv("TZ", zone)
    time.tzset()


@pytest.fixture(autouse=True)
def restore_zone(monkeypatch: pytest.MonkeyPatch) -> object:
    yield
    monkeypatch.undo()
    time.tzset()


def made_by_a_fast_clock(folder: Path, file: str) -> Path:
    """The same sweep or pipeline, made by a machine whose clock is 70 years fast."""
    content = yaml_file.read_mapping(folder / file)
    (folder / file).write_text(yaml_file.dump_yaml({**content, "created": "2096-01-01T00:00:00+00:00"}))
    tag, _, made = folder.name.rpartition("_")
    return folder.rename(folder.with_name(f"{tag}_2096{made[4:]}"))


@pytest.mark.parametrize("zones", [(EAST, WEST), (WEST, EAST), ("UTC", "America/Los_Angeles"), ("Asia/Kolkata", "UTC")])
def test_fresh_in_another_time_zone_is_not_forgotten(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, zones: tuple[str, str]
) -> None:
    request = train_request(small())
    set_zone(monkeypatch, zones[0])
    first, _ = open_sweep(request)
    set_zone(monkeypatch, zones[1])
    fresh, _ = open_sweep(request, fresh=True)
    for zone in zones:
        set_zone(monkeypatch, zone)
        assert open_sweep(request) == (fresh, False)
    assert sweeps(request.runs_dir) == [first, fresh]


def test_whatever_asks_for_the_newest_gets_the_one_that_was_made_last(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    request = grid_request(small())
    first = SweepDir(made_by_a_fast_clock(open_sweep(request)[0].path, "sweep.yaml"))
    fresh, new = open_sweep(request, fresh=True)
    for sweep in (first, fresh):
        finish(sweep.runs()[0], 0.5)
    assert new
    assert open_sweep(request) == (fresh, False)
    assert find_sweep(request.runs_dir, "grid") == fresh
    assert find_named(request.runs_dir, None) == (fresh, None)
    assert Sweeps(small()).all == [fresh, first]
    list_other_names(request.runs_dir, fresh.name)
    assert f"{fresh.name} is the newest of 2; the others: {first.name}" in capsys.readouterr().out


def test_of_pipelines_and_between_them_and_sweeps_too(small: Callable[..., Config]) -> None:
    config, runs_dir = small(), Path(small().paths.runs_dir)
    first = Pipeline(made_by_a_fast_clock(make_pipeline(asked(config), fresh=False).path, "pipeline.yaml"))
    second = make_pipeline(asked(config), fresh=True)
    assert all_pipelines(runs_dir.absolute()) == [first, second]
    assert find_same_pipeline(asked(config)) == second
    assert find_pipeline(runs_dir, None) == second
    open_sweep(train_request(config))
    assert find_pipeline(runs_dir, None) is None, "a sweep is newer"
    third = Pipeline(made_by_a_fast_clock(make_pipeline(asked(config), fresh=True).path, "pipeline.yaml"))
    open_sweep(grid_request(config))
    assert find_pipeline(runs_dir, None) is None, "a clock is fast"
    assert [each.meta()["number"] for each in (first, second, third)] == [1, 2, 4]


def test_planners_at_the_same_moment_take_different_numbers(small: Callable[..., Config]) -> None:
    request = train_request(small())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: open_sweep(request, fresh=True), range(6)))
    assert [sweep.meta()["number"] for sweep in sweeps(request.runs_dir)] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_sweep_keeps_its_number_and_other_programs_have_none(small: Callable[..., Config]) -> None:
    request = train_request(small())
    open_sweep(request)
    newest, _ = open_sweep(request, fresh=True)
    head = newest.meta_file.read_text().partition("config:")[0]
    newest.meta_file.write_text(f"{head}config: [")
    for name, text in (("wandb", "method: random\nnumber: many\n"), ("other", f"number: {'9' * 5000}\n")):
        (request.runs_dir / name).mkdir()
        (request.runs_dir / name / "sweep.yaml").write_text(text)
    (request.runs_dir / "pipeline_x").mkdir()
    (request.runs_dir / "pipeline_x" / "pipeline.yaml").mkdir()
    assert next_number(request.runs_dir) == 3
    assert next_number(request.runs_dir / "gone") == 1


def test_times_on_disk_are_utc(small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    for zone in (EAST, WEST):
        set_zone(monkeypatch, zone)
        sweep, _ = open_sweep(train_request(small()), fresh=True)
        pipeline = make_pipeline(asked(small()), fresh=True)
        for path, meta in ((sweep.path, sweep.meta()), (pipeline.path, pipeline.meta())):
            written = datetime.fromisoformat(meta["created"])
            assert written.utcoffset() == timedelta(0)
            named = datetime.strptime(path.name.split("_")[1][:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
            assert abs(named - datetime.now(UTC)) < timedelta(hours=1)
            assert abs(named - written) < timedelta(hours=1)
