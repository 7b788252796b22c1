"""What a site says of itself: the answers of SLURM's commands -> a few facts. Pure, nothing is asked here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from hpc.slurm import read_duration

# The options that make the answers below; each row is one of the dataclasses, in the order of its fields.
NODE_FORMAT = "%R|%G|%D|%t"
QOS_FORMAT = "Name,GraceTime,PreemptMode,MaxSubmitPU,MaxSubmitPA,GrpSubmit,MaxWall"
ASSOCIATION_FORMAT = "DefaultAccount,Account,Partition,QOS,DefaultQOS,MaxSubmit,GrpSubmit,MaxWall"


@dataclass(frozen=True)
class Settings:
    """What matters of `scontrol show config`; `accounting` and `preempt_type` are "" if there is none."""

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
    """What matters of `scontrol show partition`; `max_time` is None if there is no limit, `qos` "" if none."""

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
    """Nodes of a partition that are alike: how many, their state, and what GPUs each has (type -> count)."""

    partition: str
    gpus: Mapping[str, int]
    nodes: int
    state: str

    @property
    def usable(self) -> bool:
        """Whether a job may start there, now or when those before it have ended."""
        return not re.match(r"down|drain|drng|fail|maint|unk|no_resp|.*\*", self.state)


@dataclass(frozen=True)
class Qos:
    """What a quality of service allows; None is without limit, `preempt_mode` "cluster" stands for the site's."""

    name: str
    grace_s: int
    preempt_mode: str
    submit_limits: Mapping[str, int]
    max_wall: timedelta | None


@dataclass(frozen=True)
class Association:
    """A user's place in an account."""

    is_default: bool
    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str
    submit_limits: Mapping[str, int]
    max_wall: timedelta | None


@dataclass(frozen=True)
class SiteFacts:
    """All that was answered; None is what was not, or is not there to be asked (accounting)."""

    settings: Settings
    partitions: Sequence[Partition] | None = None
    node_groups: Sequence[NodeGroup] | None = None
    qos: Sequence[Qos] | None = None
    associations: Sequence[Association] | None = None


def read_settings(text: str) -> Settings:
    """From `scontrol show config` of any version: what a version does not print has SLURM's default."""
    found = {key.lower(): value for key, value in re.findall(r"^\s*([\w\[\]]+)\s*=[ \t]*(.*?)[ \t]*$", text, re.M)}

    def value(key: str, default: str = "") -> str:
        given = found.get(key.lower(), default)
        return "" if given.lower() in ("(null)", "n/a", "none") else given

    def plugin(key: str) -> str:
        name = value(key).rpartition("/")[2]
        return "" if name == "none" else name

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
    """From `scontrol --oneliner show partition`."""
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
    """From `sinfo -h -o NODE_FORMAT`. A GPU without a type has the type ""."""
    rows = [line.split("|") for line in text.splitlines()]
    return [NodeGroup(row[0], _gpus(row[1]), int(row[2]), row[3].strip()) for row in rows if len(row) == 4]


def read_qos(text: str) -> list[Qos]:
    """From `sacctmgr -n -P show qos format=QOS_FORMAT`."""
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
    """From `sacctmgr -n -P show user NAME withassoc format=ASSOCIATION_FORMAT`."""
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
    """The number at the start (`30 sec`)."""
    match = re.match(r"\d+", text)
    return int(match.group()) if match else default


def _limits(**given: str) -> dict[str, int]:
    return {name: int(text) for name, text in given.items() if text.strip().isdigit()}


def _gpus(gres: str) -> dict[str, int]:
    """`gpu:1g.12gb:7(S:0-1),gpu:h100:2` -> type and count; commas in the brackets part nothing."""
    counts: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        match = re.fullmatch(r"gpu(?::([^:]+))?:(\d+)", item)
        if match:
            counts[match.group(1) or ""] = counts.get(match.group(1) or "", 0) + int(match.group(2))
    return counts
