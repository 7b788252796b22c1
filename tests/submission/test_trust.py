"""Commands that continue a sweep execute code in it, so they refuse what belongs to another user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.pipeline.directory import make_pipeline
from hpc.submission.profile import Profile
from relay.config import yaml_file
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import open_sweep, sweeps
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import asked
from tests.fork_server import fork_python

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
ANOTHER = 12345
ONE_CELL = {"hparams__lr": [0.001], "hparams__num_modules": [1], "hparams__epochs": 1}


def give_away(path: Path) -> None:
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        os.chown(each, ANOTHER, ANOTHER, follow_symlinks=False)


@pytest.fixture
def one_cell(small: Callable[..., Config], tmp_path: Path) -> tuple[SweepDir, list[str]]:
    """A grid of one cell, and the options that continue it on this machine."""
    config = small(**ONE_CELL)
    path = tmp_path / "one.yaml"
    path.write_text(yaml_file.dump_yaml(config.to_dict()))
    return open_sweep(grid_request(config))[0], ["--config", str(path)]


@pytest.mark.parametrize("part", [".", "sweep.yaml", "code", "code/*/hpc/node/task.py", "code/*/code.sha256"])
def test_a_sweep_of_another_user_is_not_continued(one_cell: tuple[SweepDir, list[str]], part: str) -> None:
    sweep, given = one_cell
    for path in sweep.path.glob(part) if part != "." else [sweep.path]:
        give_away(path)
    (run,) = sweep.runs()
    before = sweep.meta_file.read_bytes()
    for words in (["grid"], ["retry", sweep.name, "--failed"]):
        refused = fork_python("hpc.launch", *words, *given, "--cluster", "local")
        assert refused.returncode == 2, refused.stdout
        assert f"belongs to user id {ANOTHER}, and this command runs as user root" in refused.stderr
        assert "--trust" in refused.stderr
    assert sweep.meta_file.read_bytes() == before
    assert run.attempts() == ()
    for words in (["status"], ["logs"], ["cancel", "all"]):
        assert "belongs to" not in fork_python("hpc.launch", *words, *given).stderr
    assert fork_python("hpc.aggregate", *given).returncode == 0


def test_trust_is_given_for_one_call(one_cell: tuple[SweepDir, list[str]]) -> None:
    sweep, given = one_cell
    give_away(sweep.path)
    done = fork_python("hpc.launch", "grid", *given, "--cluster", "local", "--trust")
    assert done.returncode == 0, done.stderr
    assert sweep.runs()[0].is_done()
    assert "--trust" not in str(sweep.meta()["call"])


@pytest.mark.parametrize("made", ["file", "link"])
def test_a_profile_of_another_user_is_refused(one_cell: tuple[SweepDir, list[str]], tmp_path: Path, made: str) -> None:
    _, given = one_cell
    profile = tmp_path / "theirs.yaml"
    profile.write_text("executor: local\nsetup: ['touch pwned']\n")
    if made == "link":
        (tmp_path / "mine.yaml").symlink_to(profile)
        give_away(profile)
        profile = tmp_path / "mine.yaml"
    else:
        give_away(profile)
    for words in (["grid"], ["train"], ["doctor", "--no-node"]):
        refused = fork_python("hpc.launch", *words, *given, "--cluster", str(profile))
        assert refused.returncode == 2
        assert f"belongs to user id {ANOTHER}" in refused.stderr


def test_a_pipeline_of_another_user_is_not_continued(small: Callable[..., Config], tmp_path: Path) -> None:
    config = small()
    path = tmp_path / "small.yaml"
    path.write_text(yaml_file.dump_yaml(config.to_dict()))
    pipeline = make_pipeline(asked(config), fresh=False)
    pipeline.use_profile("local", Profile(executor="local"))
    give_away(pipeline.profile_file)
    for words in (["--config", str(path)], ["--advance", str(pipeline.path)]):
        refused = fork_python("hpc.launch", "pipeline", *words)
        assert refused.returncode == 2
        assert f"{pipeline.profile_file}: belongs to" in refused.stderr
    shutil.rmtree(pipeline.path)


def test_a_pipeline_sees_at_its_start_that_a_later_stage_is_of_another_user(
    small: Callable[..., Config], tmp_path: Path
) -> None:
    config = small()
    path = tmp_path / "small.yaml"
    path.write_text(yaml_file.dump_yaml(config.to_dict()))
    give_away(open_sweep(grid_request(config))[0].path)
    refused = fork_python("hpc.launch", "pipeline", "--config", str(path), "--cluster", "local")
    assert refused.returncode == 2
    assert "belongs to user id" in refused.stderr
    assert len(sweeps(tmp_path / "runs")) == 1


def test_a_refused_retry_suggests_itself(one_cell: tuple[SweepDir, list[str]]) -> None:
    sweep, given = one_cell
    give_away(sweep.path)
    refused = fork_python("hpc.launch", "retry", sweep.name, "--failed", *given, "--cluster", "local")
    assert "retry" in refused.stderr.rpartition("if you trust that user: ")[2]
