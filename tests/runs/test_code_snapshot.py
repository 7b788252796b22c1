"""A sweep is executed with the code that it was made with. The tests use a small checkout of their own."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc.submission.launching import launch
from hpc.submission.local_pool import LocalPool
from hpc.submission.prepare import choose_code
from hpc.submission.profile import Profile
from hpc.works import WORKS
from jobs.images import DECIDING
from relay.errors import RunError
from relay.files import read_lines
from relay.progress import PlainReporter
from relay.runs import code_snapshot
from relay.runs.code_snapshot import (
    check_commands,
    code_change,
    code_digest,
    keep_code,
    snapshot_problem,
    sweep_code,
    use_new_code,
)
from relay.runs.lifecycle import Outcome
from relay.runs.provenance import code_diff, code_version
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import ROOT

Git = Callable[..., int]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout that this process takes for its own code."""
    root = tmp_path / "check out"
    layers = (
        "src/__init__.py",
        "src/models/net.py",
        "relay/results/tables/table.py",
        "relay/config/sections.py",
        "relay/program/states.py",
        "src/training/__init__.py",
        "jobs/__init__.py",
        "hpc/slurm.py",
    )
    for name in (*layers, "hpc/node/task.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    monkeypatch.setattr(code_snapshot, "PROJECT_ROOT", root)
    code_snapshot._manifest.cache_clear()
    return root


def edit(checkout: Path, name: str, text: str = "# other\n") -> None:
    (checkout / name).write_text(text)
    code_snapshot._manifest.cache_clear()


@pytest.fixture
def sweep(checkout: Path, small: Callable[..., Config]) -> SweepDir:
    return open_sweep(grid_request(small()))[0]


def test_a_sweep_keeps_the_code_that_it_is_made_with(sweep: SweepDir, checkout: Path) -> None:
    kept = sweep_code(sweep)
    assert kept.name == sweep.meta()["snapshot"] == code_digest()
    assert (kept / "src" / "models" / "net.py").read_text() == "# src/models/net.py\n"
    edit(checkout, "src/models/net.py")
    assert sweep_code(sweep) == kept
    assert code_change(sweep, DECIDING) == "src/models/net.py changed since"
    edit(checkout, "src/models/new_activation.py")
    assert code_change(sweep, DECIDING) == "src/models/net.py, src/models/new_activation.py changed since"
    assert use_new_code(sweep).name == code_digest() != kept.name
    assert code_change(sweep, DECIDING) == ""
    assert kept.is_dir(), "runs that wait have it in their script"


@pytest.mark.parametrize("name", ["relay/program/states.py", "relay/config/sections.py", "src/training/new.py"])
def test_what_saves_states_and_reads_configurations_can_change_a_result(
    sweep: SweepDir, checkout: Path, name: str
) -> None:
    edit(checkout, name)
    # Of src, a program knows nothing.
    works = [work for work in WORKS.values() if name.startswith("relay/") or work.name != "program"]
    assert all(code_change(sweep, work.deciding) == f"{name} changed since" for work in works)


def test_what_only_shows_and_submits_is_no_change_of_a_result(sweep: SweepDir, checkout: Path) -> None:
    edit(checkout, "relay/results/tables/table.py")
    edit(checkout, "hpc/slurm.py")
    assert code_digest() != sweep.meta()["snapshot"]
    assert code_change(sweep, DECIDING) == ""


def take_away(path: Path) -> None:
    path.unlink()


def change(path: Path) -> None:
    path.write_text("# altered\n")


def put_a_package_before(path: Path) -> None:
    """Add a package: Python imports `model/` and not `model.py` beside it."""
    path.with_suffix("").mkdir()
    (path.with_suffix("") / "__init__.py").write_text("raise SystemExit('another model was imported')\n")


def link_a_package_before(path: Path) -> None:
    path.with_suffix("").symlink_to(path.parents[2] / "jobs")


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (take_away, "src/models/net.py", "src/models/net.py is missing"),
        (change, "src/models/net.py", "src/models/net.py was changed"),
        (take_away, "code.sha256", "code.sha256 is missing"),
        (change, "code.sha256", "code.sha256 is not the one"),
        (take_away, "code_version.json", "code_version.json is missing"),
        (put_a_package_before, "src/models/net.py", "src/models/net/__init__.py was added"),
        (link_a_package_before, "src/models/net.py", "src/models/net was added"),
    ],
)
def test_a_damaged_snapshot_is_not_trusted(
    sweep: SweepDir, damage: Callable[[Path], None], file: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sweep_code(sweep)
    damage(kept / file)
    assert said in snapshot_problem(kept)
    with pytest.raises(RunError, match=rf"{said}.*--new-code.*--fresh"):
        sweep_code(sweep)
    done = run_in_bash(kept)
    assert done.returncode == 3
    assert f"error: the code of these runs is gone or was changed: {kept}" in done.stderr
    assert "import" not in done.stdout
    # The checkout still has the same code.
    assert keep_code(sweep.code) == kept
    assert "it is replaced" in capsys.readouterr().err
    assert snapshot_problem(kept) == ""


def test_what_python_and_nfs_leave_in_a_snapshot_is_no_damage(sweep: SweepDir) -> None:
    kept = sweep_code(sweep)
    (kept / "src" / "__pycache__").mkdir()
    (kept / "src" / "__pycache__" / "model.cpython-313.pyc").touch()
    (kept / "src" / ".nfs0001").touch()
    assert snapshot_problem(kept) == ""
    assert run_in_bash(kept).returncode == 0


def test_code_that_is_edited_while_a_command_runs_is_not_kept_as_what_it_was(checkout: Path, tmp_path: Path) -> None:
    code_digest()
    (checkout / "src" / "models" / "net.py").write_text("# edited in between\n")
    with pytest.raises(RunError, match="its code was edited while this command ran; run the same command again"):
        keep_code(tmp_path / "code")
    assert list((tmp_path / "code").iterdir()) == []


def run_in_bash(kept: Path) -> subprocess.CompletedProcess[str]:
    """A task's script, in a folder with another `src`; what it prints begins with `imported`, should it come so far."""
    elsewhere = kept.parents[2] / "elsewhere"
    (elsewhere / "src" / "models").mkdir(parents=True, exist_ok=True)
    (elsewhere / "src" / "__init__.py").touch()
    (elsewhere / "src" / "models" / "net.py").write_text("raise SystemExit('the live checkout was imported')")
    script = "\n".join([*check_commands(kept), 'python3 -c "import src.models.net; print(src.models.net.__file__)"'])
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(elsewhere)}
    return subprocess.run(["bash", "-c", script], cwd=elsewhere, env=env, capture_output=True, text=True, check=False)


def test_a_task_checks_its_code_and_takes_it_from_there(sweep: SweepDir) -> None:
    kept = sweep_code(sweep)
    done = run_in_bash(kept)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(kept / "src" / "models" / "net.py")
    kept.rename(kept.with_name("away"))
    gone = run_in_bash(kept)
    assert gone.returncode == 3
    assert f"is gone or was changed: {kept}; restore it; to continue" in gone.stderr


def test_a_local_worker_is_not_started_without_its_code(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sweep_code(sweep)
    change(kept / "src" / "models" / "net.py")
    pool = LocalPool(Profile(executor="local"), tmp_path / "logs", PlainReporter(), kept)
    assert pool.execute(sweep.runs()[:1])
    assert "not started" in capsys.readouterr().err
    assert sweep.runs()[0].attempts() == ()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, small: Callable[..., Config]) -> Callable[..., SweepDir]:
    """`grid --here`, whose runs do nothing."""

    def execute(run: RunDir, *_: Any) -> Outcome:
        run.write_result({"steps": 1})
        return Outcome("done", 0, 1, 1)

    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(WORKS, "grid", replace(WORKS["grid"], execute=execute, show=lambda *_: None))

    def launch_here(**options: bool) -> SweepDir:
        sweep = launch(grid_request(small()), "local", here=True, **options)
        assert sweep
        return sweep

    return launch_here


@pytest.mark.parametrize("changed", ["src/models/net.py", "relay/results/tables/table.py"])
def test_in_this_process_a_sweep_is_not_finished_with_other_code(
    sweep: SweepDir, checkout: Path, in_this_process: Callable[..., SweepDir], changed: str
) -> None:
    edit(checkout, changed)
    with pytest.raises(RunError, match=r"--here executes the current code, and this sweep has other.*--new.*--fresh"):
        in_this_process()
    assert all(run.attempts() == () for run in sweep.runs())
    assert in_this_process(new_code=True) == sweep
    codes = {attempt.code for run in sweep.runs() for attempt in run.attempts()}
    assert codes == {code_digest()} == {sweep.meta()["snapshot"]}
    edit(checkout, changed, "# a third\n")
    assert in_this_process() == sweep, "all of it is done"
    assert in_this_process(fresh=True) != sweep


def test_in_this_process_the_code_of_every_attempt_is_kept(
    sweep: SweepDir, checkout: Path, in_this_process: Callable[..., SweepDir]
) -> None:
    kept = sweep_code(sweep)
    kept.rename(kept.with_name("away"))
    assert in_this_process() == sweep
    assert snapshot_problem(sweep_code(sweep)) == ""


def test_a_launch_of_a_sweep_that_is_done_does_not_call_it_another_codes(
    sweep: SweepDir, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in sweep.runs():
        run.write_result({"steps": 1})
    kept = sweep.meta()["snapshot"]
    edit(checkout, "src/models/net.py")
    for new_code in (False, True):
        choose_code(sweep, DECIDING, new_code=new_code)
        said = capsys.readouterr().out
        assert "done before, with other code: src/models/net.py changed since; to run it again from the start: " in said
    assert sweep.meta()["snapshot"] == kept


def test_a_launch_goes_on_with_the_sweeps_code_and_says_so(
    sweep: SweepDir, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = sweep.meta()["snapshot"]
    choose_code(sweep, DECIDING, new_code=False)
    assert capsys.readouterr().out == ""
    edit(checkout, "src/models/net.py")
    choose_code(sweep, DECIDING, new_code=False)
    assert (
        "continues with the code it was made with; src/models/net.py changed since; to continue"
        in capsys.readouterr().out
    )
    assert sweep.meta()["snapshot"] == kept
    choose_code(sweep, DECIDING, new_code=True)
    assert f"with the current code, snapshot {code_digest()}" in capsys.readouterr().out
    assert sweep.meta()["snapshot"] == code_digest() != kept
    assert sweep.meta()["key"] == grid_request_key(sweep)


def test_a_dry_run_shows_the_code_that_would_be_used(
    sweep: SweepDir,
    checkout: Path,
    small: Callable[..., Config],
    commands: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    kept = sweep_code(sweep)
    edit(checkout, "src/models/net.py")
    for new_code, expected in ((False, kept), (True, sweep.code / code_digest())):
        launch(grid_request(small()), "h100-mig", dry_run=True, new_code=new_code)
        assert f"cd {shlex.quote(str(expected))} && " in capsys.readouterr().out
    assert list(sweep.code.iterdir()) == [kept]


def grid_request_key(sweep: SweepDir) -> str:
    from src.config.loading import make_config

    return grid_request(make_config(sweep.meta()["config"], "sweep.yaml")).key


def test_the_diff_against_the_commit_is_kept_once(checkout: Path, tmp_path: Path) -> None:
    commit(checkout)
    clean = keep_code(tmp_path / "code")
    assert not clean.with_suffix(".diff").exists()
    edit(checkout, "src/models/net.py")
    edit(checkout, "src/new.py")
    code_version.cache_clear()
    kept = keep_code(tmp_path / "code")
    diff = kept.with_suffix(".diff").read_text()
    assert "new file: src/new.py\n" in diff
    assert "-# src/models/net.py\n+# other\n" in diff
    assert code_version(kept)["dirty"] is True
    assert code_version(kept)["commit"] == code_version(clean)["commit"]
    assert code_diff(tmp_path) == b""
    # A stage of a pipeline copies the code from the snapshot of its pipeline, where there is no git.
    of_a_stage = keep_code(tmp_path / "stage", kept)
    assert of_a_stage.with_suffix(".diff").read_text() == diff


def commit(checkout: Path) -> Git:
    """Make the checkout a repository with one commit. Returns `git(words...)`, its exit code."""

    def git(*words: str) -> int:
        named = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(named, check=False).returncode

    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        assert git(*words) == 0
    code_version.cache_clear()
    return git


def test_the_kept_diff_gives_the_code_back(checkout: Path, tmp_path: Path) -> None:
    (checkout / "src" / "models" / "net.py").write_bytes(b"first\nsecond\r\n\n\n\n")
    git = commit(checkout)
    git("config", "color.ui", "always")
    git("config", "diff.noprefix", "true")
    edited = "Caf\u00e9\nsecond\r\n\n\n\n"
    (checkout / "src" / "models" / "net.py").write_bytes(edited.encode("latin-1"))
    kept = keep_code(tmp_path / "code")
    assert git("checkout", "-q", ".") == 0
    assert git("apply", str(kept.with_suffix(".diff"))) == 0
    assert (checkout / "src" / "models" / "net.py").read_bytes() == edited.encode("latin-1")


def test_the_commit_is_that_of_the_code_that_is_used(sweep: SweepDir, checkout: Path) -> None:
    commit(checkout)
    assert code_version(checkout)["dirty"] is False
    edit(checkout, "src/new.py")
    code_version.cache_clear()
    kept = use_new_code(sweep)
    assert sweep.meta()["code"] == code_version(kept) == code_version(checkout)
    assert sweep.meta()["code"]["dirty"] is True


def test_provenance_is_kept_for_each_attempt(small: Callable[..., Config]) -> None:
    from relay.runs.lifecycle import attempt
    from src.requests import train_request
    from src.training.trainer import train

    run = open_sweep(train_request(small()))[0].runs()[0]
    steps = iter([False] * 3 + [True] * 9)
    attempt(run, train, lambda: next(steps), PlainReporter())
    attempt(run, train, lambda: False, PlainReporter())
    lines = read_lines(run.provenance_file)
    assert [line["attempt"] for line in lines] == [1, 2]
    assert {line["code_snapshot"] for line in lines} == {code_digest()} == {a.code for a in run.attempts()}
    assert all(line["versions"]["torch"] for line in lines)
