"""Compares the limits of a site and of this user with what the grid needs: arrays, queue, time, accounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from hpc.doctor.findings import Line
from hpc.doctor.site_facts import Association, Partition, Qos, Settings, SiteFacts
from hpc.submission.profile import Profile

# slurm.conf(5), AccountingStorageEnforce: limits of accounts and QOS hold only with one of these.
_ENFORCING = {"limits", "safe", "all"}


def own_partition(site: SiteFacts, profile: Profile) -> Partition | None:
    """The partition of the tasks: the first one of the profile, or the default partition. None if it is not known."""
    name = profile.partition.split(",")[0] if profile.partition else None
    return next((p for p in site.partitions or () if (p.name == name if name else p.is_default)), None)


def own_association(site: SiteFacts, profile: Profile) -> Association | None:
    """The association of this user that applies to the tasks: for the profile's account, or for the default account."""
    fitting = [
        a
        for a in site.associations or ()
        if (a.account == profile.account if profile.account else a.is_default)
        and a.partition in ("", profile.partition or "")
    ]
    # An association for one partition takes precedence over one for all partitions.
    return max(fitting, key=lambda a: a.partition != "", default=None)


def own_qos(site: SiteFacts, profile: Profile) -> Qos | None:
    """The QOS that applies to the tasks: the profile's, the association's default, or `normal`. None if not known."""
    own = own_association(site, profile)
    default = (own.default_qos or (own.qos[0] if len(own.qos) == 1 else "")) if own else ""
    name = profile.qos or default or "normal"
    return next((qos for qos in site.qos or () if qos.name == name), None)


def check_association(site: SiteFacts, profile: Profile) -> list[Line]:
    """Whether this user may use the profile's account and QOS. No line if accounting did not answer."""
    if site.associations is None:
        return []
    own = own_association(site, profile)
    if own is None:
        named = f"account {profile.account}" if profile.account else "default account"
        finding = f"accounting has no {named} for this user"
        known = ", ".join(sorted({a.account for a in site.associations}))
        if not site.settings.enforced:
            return [Line("ok", "account", f"{finding}, and the site does not require one")]
        advice = f"set account in the profile to one of {known}" if known else "ask the site for an account"
        return [Line("problem", "account", finding, advice)]
    if profile.qos and own.qos and profile.qos not in own.qos and site.settings.enforced:
        finding = f"account {own.account} may not use QOS {profile.qos}"
        return [Line("problem", "account", finding, f"set qos in the profile to one of {', '.join(own.qos)}")]
    qos = own_qos(site, profile)
    return [Line("ok", "account", own.account + (f", QOS {qos.name}" if qos else ""))]


def time_limits(site: SiteFacts, profile: Profile) -> dict[str, timedelta | None]:
    """The longest run time of a task, by what sets it; None means no limit."""
    partition, own, qos = own_partition(site, profile), own_association(site, profile), own_qos(site, profile)
    found: dict[str, timedelta | None] = {}
    if partition:
        found[f"partition {partition.name}"] = partition.max_time
    if site.settings.enforced & _ENFORCING:
        found |= {f"account {own.account}": own.max_wall} if own else {}
        found |= {f"QOS {qos.name}": qos.max_wall} if qos else {}
    return found


def check_time_limit(partition: Partition | None, allowed: Mapping[str, timedelta | None], time_min: int) -> list[Line]:
    """Whether the profile's time limit is allowed. No line if the partition is not known, which is a line already."""
    if partition is None:
        return []
    finding = f"time_min {time_min} min"
    limits = {name: int(limit.total_seconds() // 60) for name, limit in allowed.items() if limit is not None}
    short = {name: minutes for name, minutes in limits.items() if minutes < time_min}
    shown = ", ".join(f"{name} {minutes} min" for name, minutes in (short or limits).items())
    if short:
        advice = f"set time_min to {min(short.values())} or less; a run continues in its next job"
        return [Line("problem", "time limit", f"{finding}; allowed: {shown}", advice)]
    return [Line("ok", "time limit", f"{finding}; {f'allowed: {shown}' if limits else 'no limit is set'}")]


def submit_limits(site: SiteFacts, profile: Profile) -> dict[str, int]:
    """How many tasks may be in the queue at a time, by what sets the limit."""
    found = {"MaxJobCount": site.settings.max_job_count}
    if not site.settings.enforced & _ENFORCING:
        return found
    partition, own, qos = own_partition(site, profile), own_association(site, profile), own_qos(site, profile)
    of_partition = next((q for q in site.qos or () if partition and q.name == partition.qos), None)
    for owner, limits in (
        (f"account {own.account}" if own else "", own.submit_limits if own else {}),
        (f"QOS {qos.name}" if qos else "", qos.submit_limits if qos else {}),
        (f"QOS {of_partition.name}" if of_partition else "", of_partition.submit_limits if of_partition else {}),
    ):
        found |= {f"{name} of {owner}": limit for name, limit in limits.items()}
    return found


def check_array(settings: Settings, tasks: int) -> Line:
    """How many arrays the tasks need."""
    size = settings.max_array_size
    if size < 1:
        return Line("problem", "arrays", "MaxArraySize 0: the site allows no arrays", "ask the site to allow them")
    # Array indices run from 0 to MaxArraySize - 1, so one array holds at most `size` tasks.
    arrays = -(-tasks // size)
    goes = f"{arrays} arrays" if arrays > 1 else "one array" if tasks > 1 else "one job"
    return Line("ok", "arrays", f"MaxArraySize {size}: {_counted(tasks)} in {goes}")


def check_submit_limits(limits: Mapping[str, int], tasks: int) -> Line:
    """Whether all tasks may be in the queue at the same time."""
    shown = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    least = min(limits.values())
    if tasks <= least:
        return Line("ok", "submit limits", shown)
    advice = f"set cells_per_job of the profile {-(-tasks // max(least, 1))} times as high, or ask the site for more"
    return Line("problem", "submit limits", f"{shown}; SLURM refuses {_counted(tasks)} at once", advice)


def check_accounting(settings: Settings, refused: str | None) -> Line:
    """Whether sacct can tell how jobs ended. `refused`: the error of sacct, None if it answered."""
    without = (
        "runs and status work without it, but a killed task is shown as KILLED instead of OUT_OF_MEMORY or NODE_FAIL"
    )
    if not settings.accounting:
        return Line("warning", "accounting", "off (AccountingStorageType)", without)
    if refused is not None:
        return Line("warning", "accounting", f"{settings.accounting} does not answer: {refused}", without)
    enforced = ", ".join(sorted(settings.enforced)) or "nothing"
    return Line("ok", "accounting", f"{settings.accounting} answers; enforced: {enforced}")


def _counted(tasks: int) -> str:
    return f"{tasks} task{'s' if tasks != 1 else ''}"
