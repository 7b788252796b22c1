"""A one-machine cluster belongs to the clone that made it; no SLURM is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What `up` writes down, without the daemons.
MAKE = """
from hpc.one_machine.build import ClusterSpec, make_machine
from hpc.one_machine.records import Record, own_clone, own_name, write_record
record = Record(make_machine(ClusterSpec(own_name(), None, 1, True, 15)), [], own_clone())
record.machine.folder.mkdir()
write_record(record)
print(record.machine.name)
"""


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Two checkouts of what is needed, and a folder for their clusters with a path that is short enough for sockets."""
    found = [tmp_path / name for name in ("one", "two")]
    for clone in found:
        for layer in ("relay", "src", "hpc"):
            shutil.copytree(ROOT / layer, clone / layer, ignore=shutil.ignore_patterns("__pycache__"))
    with tempfile.TemporaryDirectory(prefix="relay-", dir="/tmp") as short:
        monkeypatch.setenv("TMPDIR", short)
        yield found


def call(clone: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(clone)}
    return subprocess.run(
        [sys.executable, *words], cwd=clone, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_down_in_another_clone_leaves_a_cluster_alone_and_says_whose_it_is(clones: list[Path]) -> None:
    one, two = clones
    made = call(one, "-c", MAKE)
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()
    shown = call(two, "-m", "hpc.one_machine", "status").stdout
    assert shown.startswith(f"{name}  unfinished  SLURM_CONF=")
    assert shown.endswith(f"/slurm.conf  of {one}\n")
    kept = call(two, "-m", "hpc.one_machine", "down")
    assert kept.returncode == 0, kept.stderr
    assert f"; existing clusters: {name} of {one} (choose one with --name, or make NAME=)" in kept.stderr
    assert call(two, "-m", "hpc.one_machine", "status").stdout == shown
    gone = call(one, "-m", "hpc.one_machine", "down")
    assert f"the cluster {name} of {one} is down" in gone.stderr
    assert call(two, "-m", "hpc.one_machine", "status").stdout == ""


def test_a_name_that_is_given_means_that_cluster_from_every_clone(clones: list[Path]) -> None:
    one, two = clones
    name = call(one, "-c", MAKE).stdout.strip()
    gone = call(two, "-m", "hpc.one_machine", "down", "--name", name)
    assert f"the cluster {name} of {one} is down" in gone.stderr
