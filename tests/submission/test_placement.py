"""Which profile a command submits under, and that what follows a grid goes where the grid went."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hpc.submission.placement import choose_name, place
from hpc.submission.profile import load_profile
from relay import hints
from relay.config import yaml_file
from relay.errors import ConfigError
from relay.files import replace_file
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import open_sweep, sweeps
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import ROOT
from tests.fork_server import fork_python
from tests.results.tables.test_table import finish

VARIANTS = {"lower": {"train.optimizer.lr": 1e-4}, "deeper": {"model.num_modules": 2}}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml_file.dump_yaml({"executor": "local"}))
    return path


def put_on(sweep: SweepDir, cluster: str | None) -> SweepDir:
    meta = sweep.meta()
    replace_file(sweep.meta_file, yaml_file.dump_yaml({**meta, "call": {**meta["call"], "cluster": cluster}}))
    return sweep


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "--dry-run"],
        ["train", "--dry-run"],
        ["train", "--best", "--dry-run"],
        ["lr-sweep", "--dry-run"],
        ["grid", "--refined", "--dry-run"],
        ["grid", "--fresh", "--dry-run"],
        ["plan", "compare"],
        ["doctor", "--no-node"],
    ],
)
def test_what_follows_a_grid_goes_where_the_grid_went(
    small: Callable[..., Config], tmp_path: Path, profile: Path, words: list[str]
) -> None:
    config = small(compare__variants=VARIANTS)
    path = tmp_path / "small.yaml"
    path.write_text(yaml_file.dump_yaml(config.to_dict()))
    grid = put_on(open_sweep(grid_request(config))[0], str(profile))
    for number, run in enumerate(grid.runs()):
        finish(run, 0.1 * number)
    done = fork_python("hpc.launch", *words, "--config", str(path), env={"RELAY_CLUSTER": "demo"})
    assert f"profile {profile} (as {grid.name}, on the same data)" in " ".join(done.stdout.split()), done.stderr


def test_the_order_of_what_names_a_profile(
    small: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = small()

    def choose(cluster: str | None, saved: dict[str, Any] | None = None) -> tuple[str, str]:
        return choose_name(config.paths.runs, cluster, saved, grid_request(config).inputs)

    monkeypatch.setenv("PATH", "/nonexistent")
    assert choose(None) == ("local", "the default of this machine")
    monkeypatch.setenv("RELAY_CLUSTER", "demo")
    assert choose(None) == ("demo", "RELAY_CLUSTER")
    # A sweep of the foreground has no profile, and one on other images is of another experiment.
    open_sweep(grid_request(config))
    put_on(open_sweep(grid_request(small(dataset__synthetic_seed=7)))[0], "h100-mig")
    assert choose(None) == ("demo", "RELAY_CLUSTER")
    older = put_on(open_sweep(grid_request(config), fresh=True)[0], "one-machine")
    newer = put_on(open_sweep(grid_request(small(train__epochs=9)), fresh=True)[0], "local")
    assert choose(None) == ("local", f"as {newer.name}, on the same data")
    assert choose(None, older.meta()) == ("one-machine", "as before")
    assert choose("h100-mig", older.meta()) == ("h100-mig", "")


def test_what_messages_suggest_goes_where_the_grid_went(
    small: Callable[..., Config], small_file: Path, profile: Path
) -> None:
    options = ["--config", str(small_file)]
    with hints.acting_for({"call": asdict(hints.Call("hpc.launch", ["grid", *options], options))}):
        grid = put_on(open_sweep(grid_request(small()))[0], str(profile))
    finish(grid.runs()[0], 0.5)
    refused = fork_python("hpc.launch", "grid", "--refined", "--config", str(small_file))
    assert refused.returncode == 2
    found = re.findall(r"-m hpc.launch .*?(?=; |$)", refused.stderr, re.M)
    assert len(found) == 2
    for hint in found:
        done = fork_python(*shlex.split(hint)[1:], "--dry-run")
        # What is refused for want of results was placed before.
        assert f"profile {profile}" in done.stdout or "done yet" in done.stderr, hint
    report = fork_python("src.report", "--config", str(small_file))
    assert report.returncode == 0, report.stderr
    text = next(small_file.parent.rglob("report.en.md")).read_text()
    assert f"-m hpc.launch grid --config {small_file} --cluster {profile}\n" in text


def test_compare_says_how_many_it_trains_before_it_does(
    small: Callable[..., Config], tmp_path: Path, profile: Path
) -> None:
    config = small(compare__variants=VARIANTS, train__epochs=1)
    path = tmp_path / "small.yaml"
    path.write_text(yaml_file.dump_yaml(config.to_dict()))
    given = ["--config", str(path), "--cluster", str(profile)]
    trained = fork_python("hpc.launch", "train", *given)
    assert trained.returncode == 0, trained.stderr
    compared = fork_python("hpc.launch", "compare", *given)
    assert compared.returncode == 0, compared.stderr
    said = "to execute in full: 2 runs: lower, deeper"
    assert f"new, 1 of 3 runs is done; profile {profile}\n{said}\n" in compared.stdout
    assert len(sweeps(tmp_path / "runs")) == 2
    assert "in full" in fork_python("hpc.launch", "compare", "--help").stdout


@pytest.mark.parametrize("name", ["../elsewhere/mine", "sub/mine", "..", "", "h100"])
def test_a_name_is_one_of_the_folder_of_profiles(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "clusters"
    for each in (folder, folder / "sub", tmp_path / "configs" / "elsewhere"):
        each.mkdir(parents=True, exist_ok=True)
        (each / "mine.yaml").write_text((ROOT / "configs" / "clusters" / "local.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert load_profile("mine")[1].executor == "local"
    with pytest.raises(ConfigError, match="there is no such profile; in configs/clusters there are mine; choose"):
        load_profile(name)


@pytest.mark.parametrize("place", ["site.yaml", "run/site.yaml", "code/abc/configs/clusters/site.yaml", "link"])
@pytest.mark.parametrize("marker", ["sweep.yaml", "pipeline.yaml"])
def test_no_profile_is_taken_from_a_run_directory(tmp_path: Path, place: str, marker: str) -> None:
    sweep = tmp_path / "runs" / "grid_1"
    path = sweep / ("site.yaml" if place == "link" else place)
    path.parent.mkdir(parents=True)
    (sweep / marker).touch()
    path.write_text("executor: local\n")
    if place == "link":
        (tmp_path / "site.yaml").symlink_to(path)
        path = tmp_path / "site.yaml"
    with pytest.raises(ConfigError, match="lies in the run directory"):
        load_profile(str(path))


@pytest.mark.parametrize("name", ["evil/p.yaml", "p.yaml", "a/b/c.yaml"])
def test_no_profile_is_taken_from_the_runs_folder(small: Callable[..., Config], tmp_path: Path, name: str) -> None:
    """A sweep.yaml that came with somebody's runs may name a profile that came with them."""
    config = small()
    sweep = open_sweep(grid_request(config))[0]
    path = tmp_path / "runs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("executor: local\n")
    put_on(sweep, str(path))
    for saved in (None, sweep.meta()):
        with pytest.raises(ConfigError, match="lies in the run directory"):
            place(config.paths.runs, None, saved, grid_request(config).inputs)
