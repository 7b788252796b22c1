"""What this user may ask of a site, against what the grid asks: arrays, tasks in the queue, time, accounting. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from hpc.doctor.findings import Line
from hpc.doctor.site_facts import Association, Partition, Qos, Settings, SiteFacts
from hpc.submission.profile import Profile

_ENFORCING = {"limits", "safe", "all"}


def own_partition(site: SiteFacts, profile: Profile) -> Partition | None:
    """The partition that tasks go to; the first one where the profile lists several."""
    name = profile.partition.split(",")[0] if profile.partition else None
    return next((p for p in site.partitions or () if (p.name == name if name else p.is_default)), None)


def own_association(site: SiteFacts, profile: Profile) -> Association | None:
    """This user's association that tasks go by: that of the profile's account, or the default one."""
    fitting = [
        a
        for a in site.associations or ()
        if (a.account == profile.account if profile.account else a.is_default)
        and a.partition in ("", profile.partition or "")
    ]
    # One that is for this partition alone is stronger than one for all.
    return max(fitting, key=lambda a: a.partition != "", default=None)


def own_qos(site: SiteFacts, profile: Profile) -> Qos | None:
    """The QOS that tasks go by."""
    own = own_association(site, profile)
    default = (own.default_qos or (own.qos[0] if len(own.qos) == 1 else "")) if own else ""
    name = profile.qos or default or "normal"
    return next((qos for qos in site.qos or () if qos.name == name), None)


def check_association(site: SiteFacts, profile: Profile) -> list[Line]:
    """Whether this user may use the profile's account and QOS; no line where accounting said nothing of it."""
    if site.associations is None:
        return []
    own = own_association(site, profile)
    if own is None:
        named = f"account {profile.account}" if profile.account else "default account"
        finding = f"accounting knows no {named} of this user"
        known = ", ".join(sorted({a.account for a in site.associations}))
        if not site.settings.enforced:
            return [Line("ok", "account", f"{finding}, and the site asks for none")]
        advice = f"set account in the profile to one of {known}" if known else "ask the site for an account"
        return [Line("problem", "account", finding, advice)]
    if profile.qos and own.qos and profile.qos not in own.qos and site.settings.enforced:
        finding = f"account {own.account} may not use QOS {profile.qos}"
        return [Line("problem", "account", finding, f"set qos in the profile to one of {', '.join(own.qos)}")]
    qos = own_qos(site, profile)
    return [Line("ok", "account", own.account + (f", QOS {qos.name}" if qos else ""))]


def time_limits(site: SiteFacts, profile: Profile) -> dict[str, timedelta | None]:
    """The longest that a task may run, by who sets it; None is without limit."""
    partition, own, qos = own_partition(site, profile), own_association(site, profile), own_qos(site, profile)
    found: dict[str, timedelta | None] = {}
    if partition:
        found[f"partition {partition.name}"] = partition.max_time
    if site.settings.enforced & _ENFORCING:
        found |= {f"account {own.account}": own.max_wall} if own else {}
        found |= {f"QOS {qos.name}": qos.max_wall} if qos else {}
    return found


def check_time_limit(partition: Partition | None, allowed: Mapping[str, timedelta | None], time_min: int) -> list[Line]:
    """The profile's time limit against what is allowed; no line where the partition is not known (which is a line)."""
    if partition is None:
        return []
    finding = f"time_min {time_min} min"
    limits = {name: int(limit.total_seconds() // 60) for name, limit in allowed.items() if limit is not None}
    short = {name: minutes for name, minutes in limits.items() if minutes < time_min}
    shown = ", ".join(f"{name} {minutes} min" for name, minutes in (short or limits).items())
    if short:
        advice = f"set time_min to {min(short.values())} or less; a run goes on in its next job"
        return [Line("problem", "time limit", f"{finding}; allowed: {shown}", advice)]
    return [Line("ok", "time limit", f"{finding}; {f'allowed: {shown}' if limits else 'no limit is set'}")]


def submit_limits(site: SiteFacts, profile: Profile) -> dict[str, int]:
    """How many tasks may be in the queue at a time, by who sets it."""
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
    """In how many arrays the tasks go."""
    size = settings.max_array_size
    if size < 1:
        return Line("problem", "arrays", "MaxArraySize 0: the site takes no arrays", "ask the site to allow them")
    arrays = -(-tasks // size)
    goes = f"{arrays} arrays" if arrays > 1 else "one array" if tasks > 1 else "one job"
    return Line("ok", "arrays", f"MaxArraySize {size}: {_counted(tasks)} in {goes}")


def check_submit_limits(limits: Mapping[str, int], tasks: int) -> Line:
    """Whether the tasks may be in the queue at a time."""
    shown = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    least = min(limits.values())
    if tasks <= least:
        return Line("ok", "submit limits", shown)
    advice = f"set cells_per_job of the profile {-(-tasks // max(least, 1))} times as high, or ask the site for more"
    return Line("problem", "submit limits", f"{shown}; {_counted(tasks)} at once are refused", advice)


def check_accounting(settings: Settings, refused: str | None) -> Line:
    """Whether SLURM remembers how jobs ended; `refused` is what it said where it did not result."""
    without = (
        "runs and status work without it; a task that is killed without a word is KILLED, not OUT_OF_MEMORY or such"
    )
    if not settings.accounting:
        return Line("warning", "accounting", "none (AccountingStorageType)", without)
    if refused is not None:
        return Line("warning", "accounting", f"{settings.accounting} does not answer: {refused}", without)
    enforced = ", ".join(sorted(settings.enforced)) or "nothing"
    return Line("ok", "accounting", f"{settings.accounting} answers; enforced: {enforced}")


def _counted(tasks: int) -> str:
    return f"{tasks} task{'s' if tasks != 1 else ''}"
