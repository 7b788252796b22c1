"""A frozen project: which files belong to it, and that nothing changes it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc.node.supervisor import make_work_folder
from relay.errors import ConfigError, RunError
from relay.files import remove_tree
from relay.runs.project_snapshot import (
    ProjectFiles,
    keep_project,
    project_change,
    project_problem,
    read_project,
)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the project."""

    def file(name: str, text: str = "x = 1\n") -> Path:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    file("train.py")
    return file


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(folder), *words], check=True, capture_output=True
    )


def read(tmp_path: Path, links: tuple[str, ...] = (), writes: tuple[str, ...] = ()) -> ProjectFiles:
    apart = [tmp_path / "mine" / name for name in ("runs", "logs", "artifacts")]
    return read_project(tmp_path / "mine", links, writes, apart)


@pytest.mark.parametrize("with_git", [True, False])
def test_which_files_are_frozen(tmp_path: Path, write: Write, with_git: bool) -> None:
    for name in ("sub/net.py", "notes.txt", ".python-version", "runs/a/train.py", "artifacts/x.txt", "logs/l"):
        write(name)
    for name in (".venv/lib/x.py", "env/pyvenv.cfg", "env/lib/y.py", "__pycache__/z.py", ".git_like/x", "sub/.h/x"):
        write(name)
    (tmp_path / "mine" / "logs" / "broken").symlink_to("/nowhere")
    expected = [".python-version", "notes.txt", "sub/net.py", "train.py"]
    if with_git:
        write(".gitignore", "data/\n*.log\n")
        write("data/large.bin")
        write("a.log")
        git(tmp_path / "mine", "init")
        git(tmp_path / "mine", "add", "train.py")
        git(tmp_path / "mine", "commit", "-m", "m")
        write("gone.py")
        git(tmp_path / "mine", "add", "gone.py")
        (tmp_path / "mine" / "gone.py").unlink()
        expected = [".gitignore", *expected]
    else:
        (tmp_path / "mine" / "picture.bin").write_bytes(b"\0\1")
    assert list(read(tmp_path).digests) == sorted(expected)


def test_a_folder_below_another_project_is_only_itself(tmp_path: Path, write: Write) -> None:
    write("inner/own.py")
    git(tmp_path / "mine", "init")
    assert list(read_project(tmp_path / "mine" / "inner", (), (), ()).digests) == ["own.py"]


def test_what_is_too_large_is_named(tmp_path: Path, write: Write) -> None:
    write("weights.pt", "x" * (3 * 2**20))
    with pytest.raises(ConfigError, match=r"1 file is too large to freeze: weights.pt \(3 MiB\).*project.links"):
        read(tmp_path)
    assert list(read(tmp_path, links=("weights.pt",)).digests) == ["train.py"]
    for number in range(30):
        write(f"part{number}.txt", "x" * (2 * 2**20 - 1))
    with pytest.raises(ConfigError, match="60 MiB in 31 files, and at most 50 MiB are frozen"):
        read(tmp_path, links=("weights.pt",))


def test_links_that_leave_the_project_are_refused(tmp_path: Path, write: Write) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text("")
    (tmp_path / "mine" / "inside.py").symlink_to("train.py")
    (tmp_path / "mine" / "leaves.py").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"leaves.py: is a link that leaves the project, to .*outside.py"):
        read(tmp_path)
    assert list(read(tmp_path, links=("leaves.py",)).digests) == ["inside.py", "train.py"]


@pytest.mark.parametrize("link", ["/etc", "../outside", "missing"])
def test_what_links_may_name(tmp_path: Path, write: Write, link: str) -> None:
    with pytest.raises(ConfigError, match=rf"project.links: {link}: "):
        read(tmp_path, links=(link,))


def test_a_project_that_is_a_link(tmp_path: Path, write: Write) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert list(read_project(tmp_path / "link", (), (), ()).digests) == ["train.py"]


def test_a_snapshot_is_checked_and_made_once(tmp_path: Path, write: Write) -> None:
    write("data/x.txt", "1")
    write("run.sh").chmod(0o755)
    project = read(tmp_path, links=("data",))
    kept = keep_project(tmp_path / "kept", project)
    assert project_problem(kept) == ""
    assert (kept / "data").resolve() == tmp_path / "mine" / "data"
    assert (kept / "run.sh").stat().st_mode & 0o777 == 0o555
    assert kept.stat().st_mode & 0o222 == 0
    assert keep_project(tmp_path / "kept", read(tmp_path, links=("data",))) == kept
    for damage, problem in (
        (lambda: (kept / "train.py").chmod(0o644) or (kept / "train.py").write_text("y"), "train.py was changed"),
        (lambda: (kept / "more.py").write_text("y"), "more.py was added"),
        (lambda: (kept / "run.sh").unlink(), "run.sh is missing"),
        (lambda: (kept / "data").unlink(), "data is missing"),
    ):
        kept.chmod(0o755)
        damage()
        assert project_problem(kept) == problem
        assert project_problem(keep_project(tmp_path / "kept", project)) == ""


def test_edits_after_a_snapshot_are_named(tmp_path: Path, write: Write) -> None:
    write("old.py")
    kept = keep_project(tmp_path / "kept", read(tmp_path))
    assert project_change(kept, read(tmp_path)) == ""
    write("train.py", "x = 2\n")
    write("new.py")
    (tmp_path / "mine" / "old.py").unlink()
    assert project_change(kept, read(tmp_path)) == "new.py, old.py, train.py of the project changed since"
    assert (kept / "train.py").read_text() == "x = 1\n"


def test_a_file_that_is_edited_meanwhile_is_noticed(tmp_path: Path, write: Write) -> None:
    project = read(tmp_path)
    write("train.py", "x = 2\n")
    with pytest.raises(RunError, match="was edited while this command ran"):
        keep_project(tmp_path / "kept", project)
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_work_folder_reads_the_snapshot_and_keeps_what_is_written(tmp_path: Path, write: Write) -> None:
    write("sub/net.py")
    write("outputs/.gitkeep")
    git(tmp_path / "mine", "init")
    first = keep_project(tmp_path / "kept", read(tmp_path))
    work = tmp_path / "work"
    make_work_folder(work, first, ["made/deep"])
    assert (work / "train.py").resolve() == first / "train.py"
    assert (work / "sub" / "net.py").read_text() == "x = 1\n"
    for name in ("outputs/log.txt", "made/deep/x", "own.txt"):
        (work / name).write_text("mine")
    write("train.py", "x = 2\n")
    second = keep_project(tmp_path / "kept", read(tmp_path))
    make_work_folder(work, second, ["made/deep"])
    assert (work / "train.py").read_text() == "x = 2\n"
    assert [(work / name).read_text() for name in ("outputs/log.txt", "made/deep/x", "own.txt")] == ["mine"] * 3
    assert project_problem(first) == project_problem(second) == ""


def test_a_write_into_the_snapshot_fails(tmp_path: Path, write: Write) -> None:
    write("sub/net.py")
    # Where another user can go: root may write anywhere.
    with tempfile.TemporaryDirectory(prefix="relay-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        kept = keep_project(folder / "kept", read(tmp_path))
        make_work_folder(folder / "work", kept, [])
        (folder / "work").chmod(0o777)
        for target, code in (("own.txt", 0), ("sub/out.txt", 2), ("sub/net.py", 2)):
            user = {"user": 65534} if os.geteuid() == 0 else {}
            command = ["/bin/sh", "-c", f"echo x > {target}"]
            done = subprocess.run(command, cwd=folder / "work", capture_output=True, check=False, **user)
            assert done.returncode == code, (target, done.stderr)
        assert project_problem(kept) == ""
        remove_tree(folder / "kept")


def test_links_and_writes_below_folders(tmp_path: Path, write: Write) -> None:
    write("data/raw/x.txt", "raw")
    write("res/net.py")
    project = read(tmp_path, links=("data/raw/",), writes=("res/out", "res/logs/"))
    assert (project.links, project.writes) == (("data/raw",), ("res/out", "res/logs"))
    kept = keep_project(tmp_path / "kept", project)
    assert project_problem(kept) == ""
    work = tmp_path / "work"
    make_work_folder(work, kept, project.writes)
    assert (work / "data" / "raw" / "x.txt").read_text() == "raw"
    assert (work / "res" / "net.py").read_text() == "x = 1\n"
    for name in ("res/out/a", "res/logs/b", "res/c"):
        (work / name).write_text("mine")
    make_work_folder(work, kept, project.writes)
    assert project_problem(kept) == ""
    assert (work / "res" / "c").read_text() == "mine"


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("links", (".",), "project.links: .: give a path below the project"),
        ("links", ("data", "data/raw"), "project.links: data/raw: lies in data, which is listed, too"),
        ("writes", ("/tmp/x",), "project.writes: /tmp/x: give a path below"),
        ("writes", ("../x",), "project.writes: ../x: give a path below"),
    ],
)
def test_places_lie_below_the_project(
    tmp_path: Path, write: Write, key: str, given: tuple[str, ...], said: str
) -> None:
    write("data/raw/x.txt")
    with pytest.raises(ConfigError, match=re.escape(said)):
        read(tmp_path, **{key: given})


def test_odd_names_and_links_are_frozen_as_they_are(tmp_path: Path, write: Write) -> None:
    mine = tmp_path / "mine"
    write("conf/a.yaml")
    (mine / "current").symlink_to("conf")
    for name in (b"caf\xe9.txt", "a\u2028b.txt".encode(), b"two  blanks.txt"):
        Path(os.fsdecode(os.fsencode(mine) + b"/" + name)).write_text("x")
    kept = keep_project(tmp_path / "kept", read(tmp_path))
    assert project_problem(kept) == ""
    assert (kept / "current").readlink() == Path("conf")
    assert (kept / "current" / "a.yaml").read_text() == "x = 1\n"
    assert (kept / "a\u2028b.txt").read_text() == "x"
    git(mine, "init")
    assert project_problem(keep_project(tmp_path / "again", read(tmp_path))) == ""


def test_a_link_to_itself_or_a_line_break_is_refused(tmp_path: Path, write: Write) -> None:
    (tmp_path / "mine" / "loop").symlink_to("loop")
    git(tmp_path / "mine", "init")
    with pytest.raises(ConfigError, match="loop: cannot be read"):
        read(tmp_path)
    (tmp_path / "mine" / "loop").unlink()
    write("Icon\r")
    with pytest.raises(ConfigError, match="a line break in the name of a file; rename it"):
        read(tmp_path)


def test_what_else_changes_a_project(tmp_path: Path, write: Write) -> None:
    write("tool.sh")
    write("old.txt")
    first = keep_project(tmp_path / "kept", read(tmp_path))
    make_work_folder(tmp_path / "work", first, [])
    write("tool.sh").chmod(0o755)
    (tmp_path / "mine" / "old.txt").unlink()
    assert project_change(first, read(tmp_path)) == "old.txt, tool.sh of the project changed since"
    second = keep_project(tmp_path / "kept", read(tmp_path))
    make_work_folder(tmp_path / "work", second, [])
    assert (tmp_path / "work" / "tool.sh").stat().st_mode & 0o100
    assert not (tmp_path / "work" / "old.txt").is_symlink()


def test_sweeps_among_the_files_are_not_frozen(tmp_path: Path, write: Write) -> None:
    for name in ("sweep.yaml", "cells.jsonl", "run/config.yaml"):
        write(f"grid_1/{name}")
    assert list(read(tmp_path).digests) == ["train.py"]
