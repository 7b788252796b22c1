"""The texts that the one-machine cluster is configured with; no SLURM is needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpc.one_machine import machine, settings
from hpc.one_machine.machine import OneMachine, Ports, Proctrack
from relay.errors import ClusterError

MACHINE = OneMachine(
    name="relay",
    folder=Path("/tmp/relay"),
    host="laptop",
    user="ada",
    ports=Ports(mariadb=20001, slurmdbd=20002, slurmctld=20003, slurmd=(20004, 20005)),
    db_password="secret",
    requeue_wait_s=15,
)


def values(text: str) -> dict[str, str]:
    """`Key=value` lines that stand alone (not those of nodes and partitions)."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and " " not in line)


def lines_of(text: str, key: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"{key}=")]


def test_each_daemon_is_given_its_own_port() -> None:
    conf, database = values(settings.slurm_conf_text(MACHINE)), values(settings.slurmdbd_conf_text(MACHINE))
    assert conf["SlurmctldPort"] == "20003"
    assert conf["AccountingStoragePort"] == database["DbdPort"] == "20002"
    assert database["StoragePort"] == "20001"
    assert [" Port=20004 " in line for line in lines_of(settings.slurm_conf_text(MACHINE), "NodeName")] == [True, False]


def test_every_authentication_uses_the_clusters_own_munge() -> None:
    """slurmdbd's connection does not look at AuthInfo: without AccountingStoragePass it would take the system's."""
    conf, database = values(settings.slurm_conf_text(MACHINE)), values(settings.slurmdbd_conf_text(MACHINE))
    assert conf["AuthInfo"] == "socket=/tmp/relay/munge/socket,cred_expire=15"
    assert conf["AccountingStoragePass"] == "/tmp/relay/munge/socket"
    assert database["AuthInfo"] == "socket=/tmp/relay/munge/socket"


def test_nothing_is_written_outside_the_folder() -> None:
    texts = settings.slurm_conf_text(MACHINE) + settings.slurmdbd_conf_text(MACHINE) + settings.gres_conf_text(MACHINE)
    texts += settings.cgroup_conf_text(MACHINE, limits_memory=True)
    paths = {word for line in texts.splitlines() for word in line.split("=") if word.startswith("/")}
    outside = {path for path in paths if not path.startswith("/tmp/relay/")}
    assert outside == {"/bin/true"}
    assert len(paths) > 10


def test_the_nodes_line_up_with_their_slices() -> None:
    nodes = lines_of(settings.slurm_conf_text(MACHINE), "NodeName")
    assert nodes[1] == (
        "NodeName=node2 NodeHostname=laptop NodeAddr=127.0.0.1 Port=20005 Boards=1 SocketsPerBoard=1 CoresPerSocket=8"
        " ThreadsPerCore=1 RealMemory=64000 Gres=gpu:1g.12gb:7 State=UNKNOWN"
    )
    slices = settings.gres_conf_text(MACHINE).splitlines()
    assert len(slices) == 14
    assert slices[13] == "NodeName=node2 Name=gpu Type=1g.12gb File=/tmp/relay/slices/mig6"


def test_urgent_preempts_gpu_after_the_grace_time() -> None:
    partitions = lines_of(settings.slurm_conf_text(MACHINE), "PartitionName")
    assert partitions[1:] == [
        "PartitionName=gpu Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20",
        "PartitionName=urgent PriorityTier=10 PreemptMode=OFF GraceTime=0",
    ]
    assert values(settings.slurm_conf_text(MACHINE))["PreemptType"] == "preempt/partition_prio"


def test_the_signal_at_preemption_can_be_switched_off() -> None:
    without = dataclasses.replace(MACHINE, preempt_user_signal=False)
    assert values(settings.slurm_conf_text(MACHINE))["SlurmctldParameters"] == "preempt_send_user_signal"
    assert "preempt_send_user_signal" not in settings.slurm_conf_text(without)


@pytest.mark.parametrize("name", ["", "Relay", "two words", "../relay", "9", "a" * 21, "relay\n"])
def test_a_name_that_could_not_be_a_file_or_table_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="--name"):
        dataclasses.replace(MACHINE, name=name)


def test_a_path_too_long_for_a_unix_socket_is_refused() -> None:
    longest = "/tmp/" + "a" * 63
    socket = f"{longest}/spool/node99/{machine.LONGEST_STEP_SOCKET}"
    fits = "/tmp/" + "a" * (63 - (len(socket) - machine.UNIX_SOCKET_LIMIT))
    dataclasses.replace(MACHINE, folder=Path(fits))
    with pytest.raises(ClusterError, match="too long by 1 characters"):
        dataclasses.replace(MACHINE, folder=Path(fits + "a"))


@pytest.mark.parametrize("folder", ["relative", "/tmp/with space", "/tmp/with#hash"])
def test_a_folder_that_slurm_conf_could_not_hold_is_refused(folder: str) -> None:
    with pytest.raises(ClusterError, match="--dir"):
        dataclasses.replace(MACHINE, folder=Path(folder))


def test_a_cluster_without_nodes_is_refused() -> None:
    with pytest.raises(ClusterError, match="--nodes 0"):
        dataclasses.replace(MACHINE, ports=dataclasses.replace(MACHINE.ports, slurmd=()))


def test_memory_is_limited_only_where_cgroups_can_be_made() -> None:
    assert values(settings.slurm_conf_text(MACHINE))["TaskPlugin"] == "task/none"
    assert values(settings.slurm_conf_text(MACHINE, limits_memory=True))["TaskPlugin"] == "task/cgroup"
    assert "ConstrainRAMSpace" not in settings.cgroup_conf_text(MACHINE, limits_memory=False)


def test_processes_are_tracked_as_requested() -> None:
    by_group = dataclasses.replace(MACHINE, proctrack=Proctrack.CGROUP)
    assert values(settings.slurm_conf_text(MACHINE))["ProctrackType"] == "proctrack/linuxproc"
    assert values(settings.slurm_conf_text(by_group))["ProctrackType"] == "proctrack/cgroup"


def test_the_password_is_only_where_it_is_needed() -> None:
    assert values(settings.slurmdbd_conf_text(MACHINE))["StoragePass"] == "secret"
    assert "IDENTIFIED BY 'secret'" in settings.database_setup_text(MACHINE)
    assert "secret" not in settings.slurm_conf_text(MACHINE)
