"""What sites say of themselves, in the words of several versions of SLURM, and what comes of it for a profile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from hpc.doctor import limits, site_checks, site_facts
from hpc.doctor.findings import Line
from hpc.doctor.site_facts import Association, NodeGroup, Partition, Qos, Settings, SiteFacts
from hpc.submission.profile import Profile

# Of what 22.05.8 prints for the cluster of `make slurm-up`.
CONFIG_22_05 = """\
Configuration data as of 2026-11-22T14:15:50
AccountingStorageBackupHost = (null)
AccountingStorageEnforce = none
AccountingStorageHost   = 127.0.0.1
AccountingStorageType   = accounting_storage/slurmdbd
BOOT_TIME               = 2026-11-22T14:15:34
ClusterName             = relay
JobRequeue              = 1
KillOnBadExit           = 0
KillWait                = 30 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
PowerPlugin             =\x20
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
PreemptExemptTime       = 00:00:00
SlurmctldHost[0]        = vm(127.0.0.1)
SlurmctldParameters     = preempt_send_user_signal
SLURM_CONF              = /tmp/relay/slurm.conf
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at vm is UP
"""
# As 24.11 has it: the user's signal is a preemption parameter, absent plugins are null.
CONFIG_24_11 = """\
AccountingStorageEnforce = associations,limits,qos,safe
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = hpc
JobRequeue              = 0
KillWait                = 120 sec
MaxArraySize            = 100000
MaxJobCount             = 500000
PreemptMode             = CANCEL
PreemptParameters       = youngest_first,send_user_signal
PreemptType             = preempt/qos
SlurmctldParameters     = enable_configless
SLURM_VERSION           = 24.11.5
"""
CONFIG_BARE = """\
AccountingStorageType   = (null)
KillWait                = 30 sec
PreemptMode             = GANG,SUSPEND
PreemptType             = (null)
SlurmctldParameters     = (null)
SLURM_VERSION           = 23.11.10
"""
PARTITIONS = (
    "PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A"
    " DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=20 Hidden=NO MaxNodes=UNLIMITED"
    " MaxTime=1-00:00:00 MinNodes=0 Nodes=node[1-2] PriorityTier=1 OverTimeLimit=NONE PreemptMode=REQUEUE"
    " State=UP TotalCPUs=16 TotalNodes=2 JobDefaults=(null) TRES=cpu=16,mem=125G,node=2,gres/gpu:1g.12gb=14\n"
    "PartitionName=scavenge AllowGroups=ALL AllowAccounts=lab,vision AllowQos=ALL Default=NO QoS=scav"
    " GraceTime=0 Hidden=NO MaxTime=UNLIMITED Nodes=cn[01-40] PreemptMode=CANCEL State=DRAIN TotalNodes=40\n"
)
NODES = (
    "gpu|gpu:1g.12gb:7(S:0-1)|2|idle\n"
    "gpu|gpu:1g.12gb:7(S:0,1),gpu:h100:2(IDX:0-1)|1|down*\n"
    "cpu|(null)|40|mix\n"
    "old|gpu:4|3|alloc\n"
    "gamer|gpu:4090:2,shard:8|1|idle~\n"
)
SETTINGS = site_facts.read_settings(CONFIG_22_05)
GPU = site_facts.read_partitions(PARTITIONS)[0]
GROUPS = site_facts.read_node_groups(NODES)
PROFILE = Profile(executor="slurm", partition="gpu", slice="1g.12gb", needs_gpu=True, time_min=60, signal_lead_s=90)
QOS = Qos("normal", 0, "CLUSTER", {"MaxSubmitJobsPerUser": 4}, timedelta(minutes=30))
OWN = Association(True, "lab", "", ("normal", "long"), "", {"MaxSubmitJobs": 20}, None)
ENFORCED = replace(SETTINGS, enforced=frozenset({"limits"}))


def changed(**changes: Any) -> Profile:
    return PROFILE.model_copy(update=changes)


def test_settings_of_a_version_as_this_machine_runs_it() -> None:
    assert (
        Settings(
            version="22.05.8",
            cluster="relay",
            job_requeue=True,
            kill_wait_s=30,
            preempt_type="partition_prio",
            preempt_mode="REQUEUE",
            preempt_user_signal=True,
            max_array_size=1001,
            max_job_count=10_000,
            accounting="slurmdbd",
            enforced=frozenset(),
        )
        == SETTINGS
    )


def test_settings_of_newer_versions() -> None:
    newer, bare = site_facts.read_settings(CONFIG_24_11), site_facts.read_settings(CONFIG_BARE)
    assert (newer.job_requeue, newer.kill_wait_s, newer.max_array_size) == (False, 120, 100_000)
    assert (newer.preempt_type, newer.preempt_mode, newer.preempt_user_signal) == ("qos", "CANCEL", True)
    assert newer.enforced == {"associations", "limits", "qos", "safe"}
    assert (bare.accounting, bare.preempt_type, bare.preempt_mode) == ("", "", "GANG,SUSPEND")
    assert (bare.preempt_user_signal, bare.max_array_size, bare.job_requeue) == (False, 1001, True)


def test_partitions() -> None:
    day = timedelta(days=1)
    assert site_facts.read_partitions(PARTITIONS) == [
        Partition("gpu", True, "UP", day, 20, "REQUEUE", "", frozenset()),
        Partition("scavenge", False, "DRAIN", None, 0, "CANCEL", "scav", frozenset({"lab", "vision"})),
    ]


def test_nodes_and_their_gpus() -> None:
    assert [dict(group.gpus) for group in GROUPS] == [
        {"1g.12gb": 7},
        {"1g.12gb": 7, "h100": 2},
        {},
        {"": 4},
        {"4090": 2},
    ]
    assert [group.usable for group in GROUPS] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("states", "usable"),
    [
        ("idle mix mix- alloc alloc+ comp plnd resv block npc pow_dn pow_up idle~ idle# idle! idle% idle@ boot^", True),
        ("inval inval* down down~ drain drain* drng drng@ fail failg maint maint* unk err futr no_resp", False),
        ("idle* alloc* mix* idle$ alloc$", False),
    ],
)
def test_on_which_nodes_jobs_can_start(states: str, usable: bool) -> None:
    groups = [NodeGroup("gpu", {}, 1, state) for state in states.split()]
    assert {group.state for group in groups if group.usable != usable} == set()


def test_what_accounting_says() -> None:
    assert site_facts.read_qos("normal|00:00:30|cluster|4||9|\nlong|00:00:00|requeue||||2-00:00:00\n") == [
        Qos("normal", 30, "CLUSTER", {"MaxSubmitJobsPerUser": 4, "GrpSubmitJobs": 9}, None),
        Qos("long", 0, "REQUEUE", {}, timedelta(days=2)),
    ]
    assert site_facts.read_associations("lab|lab||normal,long|long|5||01:00:00\nlab|vision|gpu|normal|||7|\n") == [
        Association(True, "lab", "", ("normal", "long"), "long", {"MaxSubmitJobs": 5}, timedelta(hours=1)),
        Association(False, "vision", "gpu", ("normal",), "", {"GrpSubmitJobs": 7}, None),
    ]
    assert site_facts.read_associations("") == []


@pytest.mark.parametrize(
    ("profile", "level", "words"),
    [
        (PROFILE, "ok", "gpu: UP, 2 of 3 nodes usable"),
        (changed(partition=None), "ok", "gpu: UP"),
        (changed(partition="gpux"), "problem", "one of gpu, scavenge"),
        (changed(partition="scavenge"), "problem", "DRAIN"),
    ],
)
def test_the_profiles_partition(profile: Profile, level: str, words: str) -> None:
    every, own = site_checks.check_partitions(site_facts.read_partitions(PARTITIONS), GROUPS, profile)
    assert every.finding == "gpu* (3 nodes, 21 x 1g.12gb, 2 x h100), scavenge (0 nodes, no GPU)"
    assert own.level == level
    assert words in own.finding + own.advice


def test_partitions_that_cannot_be_used() -> None:
    def own(partition: Partition, groups: list[NodeGroup] | None, profile: Profile = PROFILE) -> Line:
        return site_checks.check_partitions([partition], groups, profile)[-1]

    for state in ("down*", "idle*", "drng"):
        down = own(GPU, [replace(GROUPS[0], state=state)])
        assert (down.level, down.finding) == ("problem", "gpu: UP, 0 of 2 nodes usable")
    inactive = own(replace(GPU, state="INACTIVE"), GROUPS)
    assert (inactive.level, inactive.finding) == ("problem", "gpu: INACTIVE, 2 of 3 nodes usable")
    closed = own(replace(GPU, allowed_accounts=frozenset({"lab"})), GROUPS, changed(account="vision"))
    assert (closed.level, closed.advice) == ("problem", "allowed: lab")
    # Not asked is not none.
    assert own(GPU, None) == Line("ok", "partition", "gpu: UP")
    nameless = own(replace(GPU, is_default=False), GROUPS, changed(partition=None))
    assert (nameless.level, nameless.advice) == ("problem", "set partition in the profile to one of gpu")


@pytest.mark.parametrize(
    ("gres", "partition", "level", "words"),
    [
        ("gpu:1g.12gb:1", "gpu", "ok", "21 in gpu, 14 on usable nodes"),
        ("gpu:1", "old", "ok", "12 in old"),
        ("gpu:1g.12gb:1", "cpu", "problem", "they are in gpu"),
        ("gpu:h100:1", "gpu", "problem", "down or drained"),
        ("gpu:a100:1", None, "problem", "none of these on this site"),
        ("gpu:1", "gpu", "ok", "23 in gpu, 14 on usable nodes"),
        ("gpu:1", "cpu", "problem", "they are in gamer, gpu, old"),
        (None, "gpu", "problem", "neither slice nor gres"),
    ],
)
def test_slices(gres: str | None, partition: str | None, level: str, words: str) -> None:
    line = site_checks.check_slices(GROUPS, partition, gres, PROFILE)
    assert line.level == level
    assert words in line.finding + line.advice


def test_a_profile_without_a_gpu_needs_no_slice() -> None:
    assert site_checks.check_slices(GROUPS, "cpu", None, changed(needs_gpu=False)).level == "ok"


@pytest.mark.parametrize(
    ("settings", "sbatch", "level", "words"),
    [
        (SETTINGS, {}, "ok", "JobRequeue=1"),
        (replace(SETTINGS, job_requeue=False), {}, "ok", "--requeue"),
        (SETTINGS, {"requeue": False}, "problem", "forbids"),
        (SETTINGS, {"no-requeue": True}, "problem", "forbids"),
    ],
)
def test_requeue(settings: Settings, sbatch: dict[str, bool], level: str, words: str) -> None:
    line = site_checks.check_requeue(settings, changed(sbatch=sbatch))
    assert line.level == level
    assert words in line.finding


def preempted(
    partition: Partition | None = GPU, qos: Qos | None = None, save_s: float | None = None, **changes: Any
) -> dict[str, Line]:
    lines = site_checks.check_preemption(replace(SETTINGS, **changes), partition, qos, save_s)
    return {line.topic: line for line in lines}


def test_preemption_by_its_mode() -> None:
    assert {topic: line.level for topic, line in preempted().items()} == {
        "preemption": "ok",
        "preempt signal": "ok",
        "preempt time": "ok",
    }
    for off in (preempted(preempt_type=""), preempted(replace(GPU, preempt_mode="OFF"))):
        assert [line.finding for line in off.values()] == ["off: a task keeps its slice until its time limit"]
    cancels = preempted(replace(GPU, preempt_mode="CANCEL"))["preemption"]
    assert (cancels.level, "same command again" in cancels.advice) == ("warning", True)
    stops = preempted(replace(GPU, preempt_mode="GANG,SUSPEND"))
    assert (list(stops), stops["preemption"].level) == (["preemption"], "warning")
    assert preempted(replace(GPU, preempt_mode="EVICT"))["preemption"].level == "warning"
    assert "SIGUSR2" in preempted()["preempt signal"].finding
    assert "SIGTERM" in preempted(preempt_user_signal=False)["preempt signal"].finding


def test_preemption_by_qos() -> None:
    own = preempted(qos=replace(QOS, preempt_mode="CANCEL", grace_s=5), preempt_type="qos")
    assert own["preemption"].finding.startswith("CANCEL")
    assert own["preempt time"].finding.startswith("GraceTime 5 s")
    assert preempted(qos=QOS, preempt_type="qos")["preemption"].finding.startswith("REQUEUE")
    unknown = preempted(qos=None, preempt_type="qos")["preempt time"]
    assert (unknown.level, "QOS" in unknown.finding) == ("warning", True)


def test_time_to_save_when_preempted() -> None:
    none = replace(GPU, grace_s=0)
    assert preempted(none)["preempt time"].finding == "GraceTime 0 s, then KillWait 30 s: about 30 s to save"
    short = preempted(none, kill_wait_s=5)["preempt time"]
    assert (short.level, "checkpoint.every_minutes" in short.advice) == ("warning", True)
    assert preempted(none, save_s=31.0)["preempt time"].level == "warning"
    assert preempted(none, save_s=29.0)["preempt time"].level == "ok"
    assert preempted(None)["preempt time"].level == "warning"


@pytest.mark.parametrize(
    ("save_s", "level"),
    [(None, "ok"), (29.0, "ok"), (30.0, "ok"), (31.0, "warning"), (90.0, "warning"), (91.0, "problem")],
)
def test_lead_time(save_s: float | None, level: str) -> None:
    assert site_checks.check_lead(90, save_s).level == level


def test_the_lead_time_that_is_needed_is_named() -> None:
    assert site_checks.check_lead(90, 100.0).advice == "set signal_lead_s to 160 or more"


@pytest.mark.parametrize(
    ("seconds", "save_s", "level"), [(30, None, "ok"), (5, None, "warning"), (5, 2.0, "ok"), (30, 40.0, "warning")]
)
def test_kill_wait(seconds: int, save_s: float | None, level: str) -> None:
    assert site_checks.check_kill_wait(seconds, save_s).level == level


def test_time_limit() -> None:
    known = SiteFacts(SETTINGS, [GPU], GROUPS, [QOS], [OWN])
    hour = limits.check_time_limit(GPU, limits.time_limits(known, PROFILE), 60)
    assert [(line.level, line.finding) for line in hour] == [("ok", "time_min 60 min; allowed: partition gpu 1440 min")]
    (long,) = limits.check_time_limit(GPU, limits.time_limits(known, PROFILE), 2000)
    assert (long.level, long.advice.startswith("set time_min to 1440")) == ("problem", True)
    (held,) = limits.check_time_limit(GPU, limits.time_limits(replace(known, settings=ENFORCED), PROFILE), 60)
    assert (held.level, held.finding) == ("problem", "time_min 60 min; allowed: QOS normal 30 min")
    assert limits.check_time_limit(None, {}, 60) == []


@pytest.mark.parametrize(
    ("size", "tasks", "level", "words"),
    [
        (1001, 48, "ok", "48 tasks in one array"),
        (1001, 1, "ok", "1 task in one job"),
        (5, 48, "ok", "10 arrays"),
        (0, 48, "problem", "no arrays"),
    ],
)
def test_arrays(size: int, tasks: int, level: str, words: str) -> None:
    line = limits.check_array(replace(SETTINGS, max_array_size=size), tasks)
    assert line.level == level
    assert words in line.finding


def test_submit_limits() -> None:
    known = SiteFacts(SETTINGS, [replace(GPU, qos="part")], GROUPS, [QOS, replace(QOS, name="part")], [OWN])
    assert limits.submit_limits(known, PROFILE) == {"MaxJobCount": 10_000}
    found = limits.submit_limits(replace(known, settings=ENFORCED), PROFILE)
    assert found == {
        "MaxJobCount": 10_000,
        "MaxSubmitJobs of account lab": 20,
        "MaxSubmitJobsPerUser of QOS normal": 4,
        "MaxSubmitJobsPerUser of QOS part": 4,
    }
    assert limits.check_submit_limits(found, 4).level == "ok"
    many = limits.check_submit_limits(found, 48)
    assert (many.level, many.advice.startswith("set cells_per_job of the profile 12 times")) == ("problem", True)


def test_accounts() -> None:
    def level(profile: Profile = PROFILE, settings: Settings = ENFORCED, known: list[Association] | None = None) -> str:
        found = SiteFacts(settings, [GPU], GROUPS, [QOS], [OWN] if known is None else known)
        (line,) = limits.check_association(found, profile)
        return f"{line.level}: {line.finding} {line.advice}".strip()

    assert level() == "ok: lab, QOS normal"
    assert level(changed(account="vision")).startswith("problem: accounting has no account vision")
    assert level(changed(account="vision"), SETTINGS).startswith("ok")
    assert level(known=[]) == "problem: accounting has no default account for this user ask the site for an account"
    assert level(changed(qos="urgent")).startswith("problem: account lab may not use QOS urgent")
    assert limits.check_association(SiteFacts(SETTINGS), PROFILE) == []


def test_accounting() -> None:
    assert limits.check_accounting(SETTINGS, None).level == "ok"
    away = limits.check_accounting(SETTINGS, "Connection refused")
    assert (away.level, "Connection refused" in away.finding) == ("warning", True)
    assert limits.check_accounting(replace(SETTINGS, accounting=""), None).level == "warning"
