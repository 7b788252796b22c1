"""Which files of a checkout are the code: not what editors leave in it, and never one that cannot be copied."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.errors import RunError
from relay.runs import code_snapshot
from relay.runs.code_files import code_files
from relay.runs.code_snapshot import keep_code, snapshot_problem, sweep_code
from relay.runs.sweeps import open_sweep
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import ROOT
from tests.runs.test_code_snapshot import checkout, edit, run_in_bash

__all__ = ["checkout"]

CODE = ["hpc/node/task.py", "hpc/slurm.py", "jobs/__init__.py", "relay/config/sections.py", "relay/program/states.py"]
CODE += ["relay/results/tables/table.py", "src/__init__.py", "src/models/net.py", "src/training/__init__.py"]

LEFTOVERS = [
    # Jupyter, macOS on foreign disks, Emacs, vim, Kate, and a merge.
    *("src/models/.ipynb_checkpoints/net-checkpoint.py", "src/models/._net.py", "src/models/#net.py#"),
    *("src/models/.net.py.swp", "src/models/net.py~", "src/models/net.py.orig", "src/models/net (copy).py"),
    # Python, type checkers, and file systems.
    *("src/__pycache__/net.py", "src/.mypy_cache/net.py", "src/.nfs0000.py", "src/lost+found/net.py"),
    # Names that no import statement can have.
    *("src/models/net-old.py", "src/models/2nets.py", "src/models/a\nb.py", "src/models/my nets/net.py"),
    *("src/models/.#texts.en.yaml", "src/models/texts.en.yaml~", "src/models/texts (copy).en.yaml"),
    os.fsdecode(b"src/models/caf\xe9.py"),
]


@pytest.mark.parametrize("name", LEFTOVERS, ids=ascii)
def test_what_editors_leave_is_not_the_code(checkout: Path, small: Callable[..., Config], name: str) -> None:
    path = checkout / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("left behind\n")
    (path.parent / ".#net.py").symlink_to("somebody@host.123:456")
    assert code_files(checkout) == CODE
    kept = sweep_code(open_sweep(grid_request(small()))[0])
    assert code_files(kept) == CODE
    assert run_in_bash(kept).returncode == 0


def test_links_are_followed_as_python_follows_them(checkout: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "wide.py").write_text("# wide\n")
    (mine / ".wide.py.swp").touch()
    (checkout / "src" / "models" / "linked.py").symlink_to(mine / "wide.py")
    (checkout / "src" / "nets").symlink_to(mine)
    (checkout / "src" / "models" / "itself").symlink_to(checkout / "src" / "models")
    (mine / "back").symlink_to(checkout / "src")
    (mine / "nowhere").symlink_to("gone")
    edit(checkout, "src/models/caf\u00e9.py")
    more = ["src/models/caf\u00e9.py", "src/models/linked.py", "src/nets/wide.py"]
    assert code_files(checkout) == sorted([*CODE, *more])
    kept = keep_code(tmp_path / "code")
    assert (kept / "src" / "nets" / "wide.py").read_text() == "# wide\n"
    assert not any(path.is_symlink() for path in kept.rglob("*"))
    assert snapshot_problem(kept) == ""
    assert run_in_bash(kept).returncode == 0


def leads_nowhere(path: Path) -> None:
    path.symlink_to("/gone/mine.py")


def leads_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def is_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def is_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (leads_nowhere, "is a link that cannot be read: No such file or directory"),
        (leads_to_itself, "is a link that cannot be read: Too many levels of symbolic links"),
        (is_a_pipe, "is not a regular file"),
        (is_a_device, "is not a regular file"),
    ],
)
def test_a_file_that_cannot_be_code_is_named_at_the_launch(
    checkout: Path, small: Callable[..., Config], make: Callable[[Path], None], said: str
) -> None:
    path = checkout / "src" / "training" / "mine.py"
    make(path)
    with pytest.raises(RunError) as refused:
        open_sweep(grid_request(small()))
    assert str(refused.value).startswith(f"{path}: {said}, and every run gets a copy of all code; ")
    assert list(Path(small().paths.runs_dir).glob("[!.]*")) == []


@pytest.mark.parametrize("closed", ["src/models/net.py", "src/models"])
def test_code_that_this_user_cannot_read_is_named(checkout: Path, closed: str) -> None:
    (checkout / closed).chmod(0)
    pid = os.fork()
    if pid == 0:
        # root is refused nothing. Another user can reach only what is below the current folder.
        os.chdir(checkout)
        if os.getuid() == 0:
            os.setresuid(12345, 12345, 12345)
        try:
            code_files(Path())
        except RunError as error:
            os._exit(0 if f"{closed}: cannot be read: Permission denied" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    (checkout / closed).chmod(0o755)


def test_code_that_disappears_while_it_is_copied_was_edited(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = "its code was edited while this command ran; run the same command again"
    manifest = code_snapshot._manifest(checkout)
    for spoil in (Path.unlink, lambda path: path.mkdir(), lambda path: (path.rmdir(), path.symlink_to("gone"))):
        spoil(checkout / "src" / "models" / "net.py")
        with pytest.raises(RunError, match=edited):
            keep_code(tmp_path / "code")
    assert code_snapshot._manifest(checkout) == manifest
    assert list((tmp_path / "code").iterdir()) == []
    # Between the list of the files and the first look at them.
    monkeypatch.setattr(code_snapshot, "code_files", lambda root: ["src/models/net.py"])
    code_snapshot._manifest.cache_clear()
    with pytest.raises(RunError, match=edited):
        keep_code(tmp_path / "code")


def test_a_snapshot_has_the_sentences_that_its_code_prints(tmp_path: Path) -> None:
    """A pipeline collects the results of a stage with the code of its snapshot."""
    for name in code_files(ROOT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    program = "from src.reporting.texts import ReportTexts as Texts\n"
    program += "print(Texts('fr')('best_set_unknown'), Texts('en')('section_5'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Ces runs ne permettent pas")
