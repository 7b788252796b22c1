"""Parses the output of scontrol, sinfo and sacctmgr into the facts that the checks need. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from hpc.slurm import gpus_of, read_duration

# The output formats that the readers below parse. Each row of an output becomes one dataclass.
NODE_FORMAT = "%R|%G|%D|%t"
QOS_FORMAT = "Name,GraceTime,PreemptMode,MaxSubmitPU,MaxSubmitPA,GrpSubmit,MaxWall"
ASSOCIATION_FORMAT = "DefaultAccount,Account,Partition,QOS,DefaultQOS,MaxSubmit,GrpSubmit,MaxWall"


@dataclass(frozen=True)
class Settings:
    """The cluster-wide settings, from `scontrol show config`. `accounting` and `preempt_type` are "" if off."""

    version: str
    cluster: str
    job_requeue: bool
    kill_wait_s: int
    preempt_type: str
    preempt_mode: str
    preempt_user_signal: bool
    max_array_size: int
    max_job_count: int
    accounting: str
    enforced: frozenset[str]


@dataclass(frozen=True)
class Partition:
    """A partition, from `scontrol show partition`. `max_time` is None if unlimited, `qos` "" if not set."""

    name: str
    is_default: bool
    state: str
    max_time: timedelta | None
    grace_s: int
    preempt_mode: str
    qos: str
    allowed_accounts: frozenset[str]


@dataclass(frozen=True)
class NodeGroup:
    """`nodes` nodes of a partition with the same state and the same GPUs each (type -> count), from sinfo."""

    partition: str
    gpus: Mapping[str, int]
    nodes: int
    state: str

    @property
    def usable(self) -> bool:
        """Whether jobs can start on these nodes, now or after the jobs that run there."""
        # sinfo(1), node state codes: a trailing * means that the node does not respond, a $ that it is in maintenance.
        # Those that are powered down (~), reboot (@, ^) or are planned for another job (-) come back by themselves.
        return not re.match(r"down|drain|drng|err|fail|futr?|inval|maint|unk|no_resp|.*[*$]", self.state)


@dataclass(frozen=True)
class Qos:
    """A quality of service. `max_wall` is None if it has no limit; `preempt_mode` CLUSTER means the cluster's mode."""

    name: str
    grace_s: int
    preempt_mode: str
    submit_limits: Mapping[str, int]
    max_wall: timedelta | None


@dataclass(frozen=True)
class Association:
    """A membership of this user in an account, maybe for one partition only, with its limits."""

    is_default: bool
    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str
    submit_limits: Mapping[str, int]
    max_wall: timedelta | None


@dataclass(frozen=True)
class SiteFacts:
    """All that the site answered. A field is None if its query failed, or if the site has no accounting."""

    settings: Settings
    partitions: Sequence[Partition] | None = None
    node_groups: Sequence[NodeGroup] | None = None
    qos: Sequence[Qos] | None = None
    associations: Sequence[Association] | None = None


def read_settings(text: str) -> Settings:
    """Parse `scontrol show config` of any SLURM version. A key that a version does not print gets SLURM's default."""
    found = {key.lower(): value for key, value in re.findall(r"^\s*([\w\[\]]+)\s*=[ \t]*(.*?)[ \t]*$", text, re.M)}

    def value(key: str, default: str = "") -> str:
        given = found.get(key.lower(), default)
        return "" if given.lower() in ("(null)", "n/a", "none") else given

    def plugin(key: str) -> str:
        name = value(key).rpartition("/")[2]
        return "" if name == "none" else name

    # 22.05 has preempt_send_user_signal in SlurmctldParameters, newer versions send_user_signal in PreemptParameters.
    signals = f"{value('SlurmctldParameters')},{value('PreemptParameters')}".lower().split(",")
    return Settings(
        version=value("SLURM_VERSION", "unknown"),
        cluster=value("ClusterName", "unknown"),
        job_requeue=_number(value("JobRequeue"), 1) != 0,
        kill_wait_s=_number(value("KillWait"), 30),
        preempt_type=plugin("PreemptType"),
        preempt_mode=value("PreemptMode", "OFF").upper(),
        preempt_user_signal="preempt_send_user_signal" in signals or "send_user_signal" in signals,
        max_array_size=_number(value("MaxArraySize"), 1001),
        max_job_count=_number(value("MaxJobCount"), 10_000),
        accounting=plugin("AccountingStorageType"),
        enforced=frozenset(value("AccountingStorageEnforce").lower().split(",")) - {""},
    )


def read_partitions(text: str) -> list[Partition]:
    """Parse `scontrol --oneliner show partition`."""
    partitions = []
    for line in text.splitlines():
        fields = dict(re.findall(r"([A-Za-z]\w*)=(\S*)", line))
        if "PartitionName" in fields:
            accounts = fields.get("AllowAccounts", "ALL")
            partitions.append(
                Partition(
                    name=fields["PartitionName"],
                    is_default=fields.get("Default") == "YES",
                    state=fields.get("State", "UP"),
                    max_time=read_duration(fields.get("MaxTime", "")),
                    grace_s=_number(fields.get("GraceTime", ""), 0),
                    preempt_mode=fields.get("PreemptMode", "").upper(),
                    qos=fields.get("QoS", "N/A").replace("N/A", ""),
                    allowed_accounts=frozenset() if accounts == "ALL" else frozenset(accounts.split(",")),
                )
            )
    return partitions


def read_node_groups(text: str) -> list[NodeGroup]:
    """Parse `sinfo -h -o NODE_FORMAT`. A GPU without a type gets the type ""."""
    rows = [line.split("|") for line in text.splitlines()]
    return [NodeGroup(row[0], gpus_of(row[1]), int(row[2]), row[3].strip()) for row in rows if len(row) == 4]


def read_qos(text: str) -> list[Qos]:
    """Parse `sacctmgr -n -P show qos format=QOS_FORMAT`."""
    rows = [line.split("|") for line in text.splitlines()]
    return [
        Qos(
            name=row[0],
            grace_s=round(grace.total_seconds()) if (grace := read_duration(row[1])) else 0,
            preempt_mode=row[2].upper() or "CLUSTER",
            submit_limits=_limits(MaxSubmitJobsPerUser=row[3], MaxSubmitJobsPerAccount=row[4], GrpSubmitJobs=row[5]),
            max_wall=read_duration(row[6]),
        )
        for row in rows
        if len(row) == 7
    ]


def read_associations(text: str) -> list[Association]:
    """Parse `sacctmgr -n -P show user NAME withassoc format=ASSOCIATION_FORMAT`."""
    rows = [line.split("|") for line in text.splitlines()]
    return [
        Association(
            is_default=row[0] == row[1],
            account=row[1],
            partition=row[2],
            qos=tuple(name for name in row[3].split(",") if name),
            default_qos=row[4],
            submit_limits=_limits(MaxSubmitJobs=row[5], GrpSubmitJobs=row[6]),
            max_wall=read_duration(row[7]),
        )
        for row in rows
        if len(row) == 8
    ]


def _number(text: str, default: int) -> int:
    """The number at the start of a text such as `30 sec`."""
    match = re.match(r"\d+", text)
    return int(match.group()) if match else default


def _limits(**given: str) -> dict[str, int]:
    return {name: int(text) for name, text in given.items() if text.strip().isdigit()}
