"""Compares the facts of a site with a profile: partitions, slices, requeue, preemption, lead time. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hpc.doctor.findings import Line
from hpc.doctor.site_facts import NodeGroup, Partition, Qos, Settings
from hpc.submission.forecast import LEAD_MARGIN_S
from hpc.submission.profile import Profile
from relay.text import shortlist

# The time that a save is assumed to take until one has been measured: little for a busy shared file system.
_SHORT_S = 10
_SHOWN = 6  # partitions named on the page; large sites have dozens


def check_partitions(
    partitions: Sequence[Partition], groups: Sequence[NodeGroup] | None, profile: Profile
) -> list[Line]:
    """One line with all partitions and their GPUs, and one for each partition of the profile: does it take tasks?"""
    shown = [f"{p.name}{'*' if p.is_default else ''}{_offer(p.name, groups)}" for p in partitions]
    lines = [Line("ok", "partitions", shortlist(shown, _SHOWN))] if shown else []
    names = ", ".join(p.name for p in partitions) or "(none: sinfo shows you no partition)"
    if profile.partition is None and not any(p.is_default for p in partitions):
        advice = f"set partition in the profile to one of {names}"
        return [*lines, Line("problem", "partition", "the profile names none, and the site has no default", advice)]
    wanted = profile.partition.split(",") if profile.partition else [p.name for p in partitions if p.is_default]
    for name in wanted:
        partition = next((p for p in partitions if p.name == name), None)
        if partition is None:
            advice = f"set partition in the profile to one of {names}"
            lines.append(Line("problem", "partition", f"{name}: no such partition", advice))
        else:
            lines.append(_check_partition(partition, groups, profile))
    return lines


def _check_partition(partition: Partition, groups: Sequence[NodeGroup] | None, profile: Profile) -> Line:
    own = [group for group in groups or () if group.partition == partition.name]
    usable = sum(group.nodes for group in own if group.usable)
    nodes = "" if groups is None else f", {usable} of {sum(group.nodes for group in own)} nodes usable"
    finding = f"{partition.name}: {partition.state}{nodes}"
    if partition.state != "UP":
        return Line(
            "problem",
            "partition",
            finding,
            "no task starts there: choose another partition, or ask the site when it is up again",
        )
    if groups is not None and not usable:
        return Line(
            "problem", "partition", finding, "tasks wait until a node is back; sinfo -R shows why they are down"
        )
    if profile.account and partition.allowed_accounts and profile.account not in partition.allowed_accounts:
        allowed = ", ".join(sorted(partition.allowed_accounts))
        return Line(
            "problem", "partition", f"{finding}; account {profile.account} may not use it", f"allowed: {allowed}"
        )
    return Line("ok", "partition", finding)


def check_slices(groups: Sequence[NodeGroup], partition: str | None, gres: str | None, profile: Profile) -> Line:
    """Whether the partition has the slice `gres` (`gpu:<type>:1`). `gres` is None if the profile requests no GPU."""
    if gres is None:
        if profile.needs_gpu:
            advice = "set slice (1g.12gb) or gres (gpu:<type>:1) in the profile; sinfo -o %G shows what the site has"
            return Line("problem", "slices", "needs_gpu is true, but neither slice nor gres is set", advice)
        return Line("ok", "slices", "the profile requests no GPU")
    kind = gres.split(":")[1] if gres.count(":") > 1 else ""
    here = [group for group in groups if partition in (None, group.partition)]
    # A gres without a type is met by a GPU of any type.
    counts = [(group, group.nodes * (group.gpus.get(kind, 0) if kind else sum(group.gpus.values()))) for group in here]
    total, count = sum(number for _, number in counts), sum(number for group, number in counts if group.usable)
    where = f"in {partition}" if partition else "on this site"
    if not total:
        elsewhere = sorted({group.partition for group in groups if (kind in group.gpus if kind else group.gpus)})
        advice = f"they are in {', '.join(elsewhere)}" if elsewhere else "sinfo -o '%R %G' shows what the site has"
        return Line(
            "problem", "slices", f"{gres}: none of these {where}", f"{advice}; change partition or slice of the profile"
        )
    if not count:
        return Line(
            "problem", "slices", f"{gres}: {total} {where}, all on nodes that are down or drained", "sinfo -R shows why"
        )
    free = f", {count} on usable nodes" if count != total else ""
    return Line("ok", "slices", f"{gres}: {total} {where}{free}")


def _offer(partition: str, groups: Sequence[NodeGroup] | None) -> str:
    if groups is None:
        return ""
    own = [group for group in groups if group.partition == partition]
    counts: dict[str, int] = {}
    for group in own:
        for kind, count in group.gpus.items():
            counts[kind] = counts.get(kind, 0) + group.nodes * count
    nodes = sum(group.nodes for group in own)
    gpus = ", ".join(f"{count} x {kind or 'gpu'}" for kind, count in sorted(counts.items()))
    return f" ({nodes} node{'s' if nodes != 1 else ''}, {gpus or 'no GPU'})"


def check_requeue(settings: Settings, profile: Profile) -> Line:
    """Whether SLURM may put a task back into the queue."""
    if profile.sbatch.get("requeue") is False or "no-requeue" in profile.sbatch:
        advice = "remove requeue and no-requeue from sbatch in the profile"
        return Line("problem", "requeue", "the profile forbids it: an interrupted task does not come back", advice)
    if settings.job_requeue:
        return Line("ok", "requeue", "JobRequeue=1")
    return Line("ok", "requeue", "JobRequeue=0, but Relay submits with --requeue, which overrides it")


def check_preemption(
    settings: Settings, partition: Partition | None, qos: Qos | None, save_s: float | None
) -> list[Line]:
    """How SLURM preempts a task, which signal it gets, and how long it then has to save.

    `save_s`: the measured time that saving takes, in seconds; None if not measured.
    """
    mode, grace_s = preemption_of(settings, partition, qos)
    if mode in ("", "OFF"):
        return [Line("ok", "preemption", "off: a task keeps its slice until its time limit")]
    lines = [_mode_line(mode)]
    if "SUSPEND" in mode:
        return lines
    first = "SIGUSR2 (the job's --signal)" if settings.preempt_user_signal else "SIGTERM (no preempt_send_user_signal)"
    lines.append(Line("ok", "preempt signal", f"{first} comes first; Relay saves on both"))
    if grace_s is None:
        whose = "QOS" if settings.preempt_type == "qos" else "partition"
        return [*lines, Line("warning", "preempt time", f"not known: the query for the {whose} of the tasks failed")]
    # slurm.conf(5): SIGTERM at the start of GraceTime, a second one at its end, and SIGKILL KillWait seconds later.
    given_s = grace_s + settings.kill_wait_s
    finding = f"GraceTime {grace_s} s, then KillWait {settings.kill_wait_s} s: about {given_s} s to save"
    needed_s = _SHORT_S if save_s is None else save_s
    if given_s < needed_s:
        needs = "" if save_s is None else f"; it takes {save_s:.0f} s"
        advice = "unsaved steps are repeated: lower checkpoint.every_minutes, and ask the site for a GraceTime"
        return [*lines, Line("warning", "preempt time", finding + needs, advice)]
    return [*lines, Line("ok", "preempt time", finding)]


def preemption_of(settings: Settings, partition: Partition | None, qos: Qos | None) -> tuple[str, int | None]:
    """The preemption mode and the grace time in seconds of a job in this partition and QOS.

    The mode is "" if preemption is off. The grace time is None if its partition or QOS is not known.
    """
    if not settings.preempt_type:
        return "", 0
    if settings.preempt_type == "qos" and qos:
        return (settings.preempt_mode if qos.preempt_mode == "CLUSTER" else qos.preempt_mode), qos.grace_s
    if settings.preempt_type != "qos" and partition:
        return partition.preempt_mode or settings.preempt_mode, partition.grace_s
    return settings.preempt_mode, None


def _mode_line(mode: str) -> Line:
    if "REQUEUE" in mode:
        return Line("ok", "preemption", f"{mode}: SLURM puts a preempted task back into the queue")
    if "CANCEL" in mode:
        return Line(
            "warning",
            "preemption",
            f"{mode}: SLURM cancels a preempted task; it comes back only if it saves and requeues itself in time",
            "run the same command again for tasks that do not, or ask the site for PreemptMode=REQUEUE",
        )
    if "SUSPEND" in mode:
        return Line(
            "warning",
            "preemption",
            f"{mode}: SLURM suspends a preempted task, which keeps its GPU memory, and resumes it later",
            "no work is lost; if tasks run out of GPU memory, ask the site for PreemptMode=REQUEUE",
        )
    return Line("warning", "preemption", f"{mode}: Relay does not know this mode", "try a small grid first")


def check_lead(lead_s: int, save_s: float | None) -> Line:
    """Whether the lead time is enough to stop and save. `save_s`: how long that takes, None if not measured."""
    finding = f"signal_lead_s {lead_s} s before the time limit"
    if save_s is None:
        return Line("ok", "lead time", f"{finding}; no save has been measured yet")
    finding += f"; to stop and save takes {f'{save_s:.1f} s' if save_s >= 0.1 else 'less than 0.1 s'}"
    advice = f"set signal_lead_s to {round(save_s) + LEAD_MARGIN_S} or more"
    if lead_s < save_s:
        return Line("problem", "lead time", finding, advice)
    if lead_s < save_s + LEAD_MARGIN_S:
        return Line("warning", "lead time", f"{finding}, which leaves less than {LEAD_MARGIN_S} s", advice)
    return Line("ok", "lead time", finding)


def check_kill_wait(kill_wait_s: int, save_s: float | None) -> Line:
    """Whether the time between SIGTERM and SIGKILL is enough to save. `save_s`: as in `check_lead`."""
    finding = f"{kill_wait_s} s between SIGTERM (cancel, time limit) and SIGKILL"
    if kill_wait_s < (_SHORT_S if save_s is None else save_s):
        advice = "a cancelled task may lose the steps since its last checkpoint: lower checkpoint.every_minutes"
        return Line("warning", "KillWait", finding, advice)
    return Line("ok", "KillWait", finding)
