"""Queries SLURM and collects the lines about a site. A query that fails becomes a line of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hpc.doctor.findings import Level, Line
from hpc.doctor.limits import (
    check_accounting,
    check_array,
    check_association,
    check_submit_limits,
    check_time_limit,
    own_partition,
    own_qos,
    submit_limits,
    time_limits,
)
from hpc.doctor.site_checks import (
    check_kill_wait,
    check_lead,
    check_partitions,
    check_preemption,
    check_requeue,
    check_slices,
)
from hpc.doctor.site_facts import (
    ASSOCIATION_FORMAT,
    NODE_FORMAT,
    QOS_FORMAT,
    SiteFacts,
    read_associations,
    read_node_groups,
    read_partitions,
    read_qos,
    read_settings,
)
from hpc.slurm_command import run_slurm
from hpc.submission.plan import make_plan
from hpc.submission.profile import Profile
from hpc.submission.site import choose_gres
from relay.errors import ClusterError
from relay.runs.code_snapshot import PROJECT_ROOT
from relay.user import user_name

# One retry for a busy controller, and no more: if it is down, the page should still appear soon.
_WAITS_S = (1.0,)
_Answer = TypeVar("_Answer")


class SiteQuery:
    """Runs SLURM's commands, and collects a line for each command that failed."""

    def __init__(self) -> None:
        self.failed: list[Line] = []

    def query(
        self, topic: str, command: Sequence[str], read: Callable[[str], _Answer], level: Level = "problem"
    ) -> _Answer | None:
        """The parsed output of the command; None if it failed, after adding a line with SLURM's message."""
        try:
            return read(run_slurm(command, _WAITS_S))
        except ClusterError as error:
            self.failed.append(Line(level, topic, f"the query failed: {error}"))
            return None

    def read_site(self) -> SiteFacts | None:
        """Facts from the controller; None if it does not answer. Nothing else is queried then."""
        settings = self.query("SLURM", ["scontrol", "show", "config"], read_settings)
        if settings is None:
            advice = "fix this first, every other check needs the controller; --cluster local works without SLURM"
            self.failed = [replace(line, advice=advice) for line in self.failed]
            return None
        return SiteFacts(
            settings,
            partitions=self.query("partitions", ["scontrol", "--oneliner", "show", "partition"], read_partitions),
            node_groups=self.query("nodes", ["sinfo", "-h", "-o", NODE_FORMAT], read_node_groups),
        )

    def add_accounting(self, site: SiteFacts) -> tuple[SiteFacts, str | None]:
        """The facts, completed from accounting if the site has one; and the reason why it does not answer, or None."""
        if not site.settings.accounting:
            return site, None
        try:
            run_slurm(["sacct", "-n", "-P", "-X", "-S", "now", "-o", "JobID"], _WAITS_S)
        except ClusterError as error:
            # If the error has several lines, the last one is the conclusion.
            return site, str(error).splitlines()[-1]
        show_qos = ["sacctmgr", "-n", "-P", "show", "qos", f"format={QOS_FORMAT}"]
        show_user = ["sacctmgr", "-n", "-P", "show", "user", user_name(), "withassoc"]
        known = replace(
            site,
            qos=self.query("QOS", show_qos, read_qos, "warning"),
            associations=self.query(
                "account", [*show_user, f"format={ASSOCIATION_FORMAT}"], read_associations, "warning"
            ),
        )
        return known, None


def site_lines(profile: Profile, tasks: int, save_s: float | None) -> tuple[list[Line], str | None, bool]:
    """All lines about SLURM for `tasks` tasks, the slice's gres at this site, and whether a task can be submitted."""
    query = SiteQuery()
    site = query.read_site()
    if site is None:
        return query.failed, None, False
    site, refused = query.add_accounting(site)
    settings, partition = site.settings, own_partition(site, profile)
    lines = [Line("ok", "SLURM", f"{settings.version}, cluster {settings.cluster}"), *query.failed]
    if site.partitions is not None:
        lines += check_partitions(site.partitions, site.node_groups, profile)
    gres, line = _check_slice(site, partition.name if partition else None, profile)
    lines += [
        line,
        check_requeue(settings, profile),
        *check_preemption(settings, partition, own_qos(site, profile), save_s),
        *check_time_limit(partition, time_limits(site, profile), profile.time_min),
        check_lead(profile.signal_lead_s, save_s),
        check_kill_wait(settings.kill_wait_s, save_s),
        check_array(settings, tasks),
        check_submit_limits(submit_limits(site, profile), tasks),
        check_accounting(settings, refused),
        *check_association(site, profile),
    ]
    if line.level == "problem":
        return lines, None, False
    submittable, line = _check_submission(profile, gres, max(1, min(tasks, settings.max_array_size)))
    return [*lines, line], gres, submittable


def _check_slice(site: SiteFacts, partition: str | None, profile: Profile) -> tuple[str | None, Line]:
    try:
        gres = choose_gres(profile)
    except ClusterError as error:
        return None, Line("problem", "slices", str(error))
    if site.node_groups is None:
        return gres, Line("warning", "slices", f"{gres}: cannot tell which nodes have it, sinfo failed")
    return gres, check_slices(site.node_groups, partition, gres, profile)


def _check_submission(profile: Profile, gres: str | None, tasks: int) -> tuple[bool, Line]:
    """Ask `sbatch --test-only`, which submits nothing, whether it accepts all tasks, or at least one."""
    refused = _refusal(profile, gres, tasks)
    if refused is None:
        return True, Line("ok", "sbatch", "accepts the profile's tasks (sbatch --test-only)")
    advice = "change what this names in the profile: partition, account, qos, slice, cpus, mem_gb, time_min or sbatch"
    if tasks > 1 and _refusal(profile, gres, 1) is None:
        advice = "raise cells_per_job of the profile, so that fewer tasks are submitted"
        return True, Line("problem", "sbatch", f"accepts one task, but not {tasks}: {refused}", advice)
    return False, Line("problem", "sbatch", f"refuses the profile's tasks: {refused}", advice)


def _refusal(profile: Profile, gres: str | None, tasks: int) -> str | None:
    with tempfile.TemporaryDirectory(prefix="relay-doctor-") as name:
        folder = Path(name)
        plan = make_plan(profile, gres, "relay-doctor", [[folder]] * tasks, folder, PROJECT_ROOT)
        script = folder / "job.sh"
        script.write_text(plan.sbatch_text)
        try:
            run_slurm(["sbatch", "--test-only", str(script)], _WAITS_S)
        except ClusterError as error:
            return str(error)
    return None
