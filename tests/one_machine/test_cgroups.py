"""The cluster's cgroups: why they cannot be made, and that they go with everything in them. No SLURM is needed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc.one_machine import build, cgroups
from hpc.one_machine.build import ClusterSpec
from hpc.one_machine.cgroups import Controller
from hpc.one_machine.machine import OneMachine, Ports, Proctrack
from hpc.one_machine.records import Record, read_record, record_path, write_record
from relay.errors import ClusterError


@pytest.fixture
def machine() -> Iterator[OneMachine]:
    """Its folder has a short path, as those of real clusters."""
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        yield OneMachine(f"unit_{os.getpid()}", Path(folder), "laptop", "ada", Ports(1, 2, 3, (4,)), "secret")


@pytest.fixture
def frozen(machine: OneMachine) -> Iterator[tuple[OneMachine, subprocess.Popen[bytes]]]:
    """A cluster with a process in a frozen group of it."""
    if reason := cgroups.make_group(machine, "freezer"):
        pytest.skip(reason)
    group = machine.cgroup / "freezer" / "slurm_node1" / "job_1"
    group.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "60"], start_new_session=True, env={})
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / "freezer.state").write_text("FROZEN")
        yield machine, process
    finally:
        with contextlib.suppress(OSError):
            (group / "freezer.state").write_text("THAWED")
        process.kill()
        process.wait()
        cgroups.remove_groups(machine)


@pytest.mark.parametrize("controller", ["memory", "freezer"])
def test_the_reason_is_given_where_no_group_can_be_made(
    controller: Controller, machine: OneMachine, tmp_path: Path
) -> None:
    (tmp_path / "plain" / controller).mkdir(parents=True)
    (tmp_path / "version2").mkdir()
    (tmp_path / "version2" / "cgroup.controllers").touch()
    reasons = {
        "nowhere": f"there is no {controller} hierarchy of cgroups version 1 at {tmp_path}/nowhere/{controller}",
        "version2": "the cgroups of this machine are of version 2",
        "plain": f"{tmp_path}/plain/{controller} is not a {controller} hierarchy of cgroups version 1",
    }
    before = sorted(tmp_path.rglob("*"))
    for root, reason in reasons.items():
        assert reason in cgroups.why_not(controller, tmp_path / root)
        assert reason in cgroups.make_group(machine, controller, tmp_path / root)
    assert sorted(tmp_path.rglob("*")) == before
    assert list(machine.cgroup.iterdir()) == []
    cgroups.remove_groups(machine)


def test_the_reason_names_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "freezer").mkdir()

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cgroups.why_not("freezer", tmp_path) == f"cannot create a cgroup in {tmp_path}/freezer: Permission denied"


def test_a_cluster_that_needs_cgroups_is_refused_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "why_not", lambda _controller: "no freezer")
    spec = ClusterSpec("relay", None, 1, True, 15, Proctrack.CGROUP)
    with pytest.raises(ClusterError, match=r"--proctrack cgroup: no freezer\. Use --proctrack linuxproc"):
        build.make_machine(spec)


def test_nothing_is_left_of_a_trial() -> None:
    if reason := cgroups.why_not("freezer"):
        pytest.skip(reason)
    assert list((cgroups.ROOT / "freezer").glob(f"relay_*_probe_{os.getpid()}")) == []


def test_a_frozen_process_without_session_and_environment_is_found_and_can_be_ended(
    frozen: tuple[OneMachine, subprocess.Popen[bytes]],
) -> None:
    machine, process = frozen
    group = (machine.cgroup / "freezer").readlink()
    assert cgroups.members(machine) == {process.pid}
    process.kill()
    with pytest.raises(subprocess.TimeoutExpired):  # SIGKILL waits for the group
        process.wait(0.3)
    cgroups.thaw(machine)
    process.wait(5)
    cgroups.remove_groups(machine)
    assert not group.exists()
    assert cgroups.members(machine) == set()


def test_a_record_keeps_the_way_of_tracking_and_may_be_older(
    machine: OneMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    by_group = dataclasses.replace(machine, proctrack=Proctrack.CGROUP)
    write_record(Record(by_group, []))
    read = read_record(machine.name)
    assert read is not None
    assert read.machine == by_group
    path = record_path(machine.name)
    content = json.loads(path.read_text())
    del content["machine"]["proctrack"]
    path.write_text(json.dumps(content))
    read = read_record(machine.name)
    assert read is not None
    assert read.machine == machine
