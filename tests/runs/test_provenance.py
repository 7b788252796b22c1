"""The commit of a run is that of its code, whatever repository the shell, its folder or its owner point to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.runs.code_snapshot import keep_code
from relay.runs.provenance import code_diff, code_version
from tests.runs.test_code_snapshot import checkout, commit, edit

__all__ = ["checkout"]


@pytest.fixture(autouse=True)
def ask_git_again() -> Iterator[None]:
    """What is known of the code is kept for the life of a process."""
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another repository with a commit of its own."""
    folder = tmp_path / "other"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "theirs.py").write_text("# theirs\n")
    commit(folder)
    (folder / "src" / "theirs.py").write_text("# theirs, changed\n")
    return folder


def head(folder: Path) -> str:
    words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_DIR": "{other}/.git"},
        {"GIT_DIR": "{other}/.git", "GIT_WORK_TREE": "{other}"},
        {"GIT_INDEX_FILE": "{other}/.git/index"},
        {"GIT_OBJECT_DIRECTORY": "{other}/.git/objects"},
        {"GIT_CEILING_DIRECTORIES": "{checkout}/.."},
        {"GIT_COMMON_DIR": "{other}/.git"},
        {"GIT_NAMESPACE": "theirs"},
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.worktree", "GIT_CONFIG_VALUE_0": "{other}"},
        {"GIT_EXTERNAL_DIFF": "false"},
        {"GIT_DIFF_OPTS": "--unified=0"},
        {"GIT_LITERAL_PATHSPECS": "1", "GIT_ICASE_PATHSPECS": "1"},
    ],
    ids=lambda variables: " ".join(variables),
)
def test_variables_of_git_in_the_shell_change_nothing(
    checkout: Path, other: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    commit(checkout)
    edit(checkout, "src/models/net.py")
    known, diff = code_version(checkout), code_diff(checkout)
    assert known == {"commit": head(checkout), "dirty": True}
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(other=other, checkout=checkout))
    code_version.cache_clear()
    assert (code_version(checkout), code_diff(checkout)) == (known, diff)


def own_by_another_user(checkout: Path) -> str:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    commit(checkout)
    for path in (checkout, checkout / ".git"):
        os.chown(path, 12345, 12345)
    return "dubious ownership"


def put_into_another_repository(checkout: Path) -> str:
    """As a home directory whose settings are in git."""
    (checkout.parent / ".bashrc").touch()
    words = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "home"]
    for each in (["init", "-q"], ["add", ".bashrc"], words):
        subprocess.run(["git", "-C", str(checkout.parent), *each], check=True)
    return "git does not track the code"


def be_no_repository(_: Path) -> str:
    return "not a git repository"


def have_no_commit(checkout: Path) -> str:
    subprocess.run(["git", "-C", str(checkout), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(checkout), "add", "."], check=True)
    return "ambiguous argument 'HEAD'"


def damage_the_repository(checkout: Path) -> str:
    commit(checkout)
    shutil.rmtree(checkout / ".git" / "objects")
    return "fatal: "


@pytest.mark.parametrize(
    "change",
    [own_by_another_user, put_into_another_repository, be_no_repository, have_no_commit, damage_the_repository],
)
def test_a_commit_that_is_not_known_is_a_warning_with_gits_reason(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object
) -> None:
    assert callable(change)
    reason = change(checkout)
    kept = keep_code(tmp_path / "code")
    version = code_version(kept)
    assert (version["commit"], version["dirty"]) == (None, None)
    assert reason in version["unknown"]
    assert (
        f"warning: {checkout}: the commit of the code is not recorded: {version['unknown']}" in capsys.readouterr().err
    )
    assert not kept.with_suffix(".diff").exists()


def test_without_git_the_warning_says_so(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(checkout)
    monkeypatch.setenv("PATH", str(tmp_path))
    keep_code(tmp_path / "code")
    assert "the commit of the code is not recorded: git cannot be run: " in capsys.readouterr().err


def test_git_that_fails_after_it_has_given_the_commit_is_a_warning(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(checkout)
    assert code_version(checkout)["commit"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not keep_code(tmp_path / "code").with_suffix(".diff").exists()
    assert "the uncommitted changes of the code are not recorded: git cannot be run: " in capsys.readouterr().err


def test_a_project_that_another_repository_tracks_has_its_commit(checkout: Path) -> None:
    """A folder of a larger repository."""
    commit(checkout.parent)
    assert code_version(checkout) == {"commit": head(checkout.parent), "dirty": False}


def test_new_code_counts_even_if_git_ignores_it(checkout: Path) -> None:
    """The snapshot has it, and `git status` does not."""
    (checkout / ".gitignore").write_text("net_*.py\n*.txt\n")
    commit(checkout)
    (checkout / "src" / "notes.txt").touch()
    assert code_version(checkout)["dirty"] is False
    code_version.cache_clear()
    edit(checkout, "src/models/net_mine.py")
    assert code_version(checkout)["dirty"] is True
    assert code_diff(checkout) == b"new file: src/models/net_mine.py\n"
