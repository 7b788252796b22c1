"""`doctor` on a real SLURM: the whole page, with a probe that is submitted like any run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.config import yaml_file
from tests.conftest import ROOT
from tests.slurm.conftest import PROFILE, Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


def page_of(cluster: Cluster, experiment: Path, **changes: Any) -> tuple[int, dict[str, str]]:
    """Exit code, and each topic with its level and finding."""
    profile = experiment.parent / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({**PROFILE, **changes}))
    code = (
        "import sys; from hpc.doctor.page import show_doctor; from hpc.works import usual_request; "
        f"sys.exit(show_doctor(usual_request({str(experiment)!r}, []), {str(profile)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=cluster.env,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    found = re.findall(r"^(ok|warning|problem) +(\S.*?)  +(.*(?:\n {10,}.*)*)", done.stdout, re.M)
    assert found, done.stderr
    return done.returncode, {topic: f"{level}: {' '.join(text.split())}" for level, topic, text in found}


def test_a_site_where_all_is_well(one_machine: Cluster, small_file: Path) -> None:
    code, page = page_of(one_machine, small_file, setup=[f"export TMPDIR={small_file.parent}"])
    # Room, speed and what /tmp is are this machine's, not the product's.
    machines_own = {"runs", "space", "node: files", "task: torch", "task: room"}
    assert {topic: text for topic, text in page.items() if not text.startswith("ok: ")}.keys() <= machines_own
    assert code == 0
    assert page["SLURM"].endswith(f", cluster {one_machine.name}")
    assert page["partitions"] == "ok: gpu* (2 nodes, 14 x 1g.12gb), urgent (2 nodes, 14 x 1g.12gb)"
    assert page["slices"] == "ok: gpu:1g.12gb:1: 14 in gpu"
    assert page["preemption"].startswith("ok: REQUEUE")
    assert "SIGUSR2" in page["preempt signal"]
    assert page["preempt time"].startswith("ok: GraceTime 20 s, then KillWait 30 s")
    assert page["time limit"] == "ok: time_min 10 min; allowed: partition gpu 1440 min"
    assert page["arrays"] == "ok: MaxArraySize 1001: 4 tasks in one array"
    assert page["accounting"].startswith("ok: slurmdbd answers")
    assert re.match(r"ok: node[12]: a task began", page["node"])
    # Only SLURM says which slice it is, and only the profile's own lines where temporary files go.
    assert re.search(r"CUDA_VISIBLE_DEVICES \d,", page["task: device"])
    assert str(small_file.parent) in page["task: room"]
    assert "is refused there, and vice versa" in page["node: locks"]
    assert "node: files" in page
    assert one_machine.run(["squeue", "-h", "-t", "pending,running"]) == ""
    assert list((small_file.parent / "runs").iterdir()) == []


def test_a_site_that_refuses(one_machine: Cluster, small_file: Path) -> None:
    code, page = page_of(one_machine, small_file, partition="nosuch", slice=None)
    assert code == 1
    assert page["partition"].startswith("problem: nosuch: no such partition")
    assert page["sbatch"].startswith("problem: refuses the profile's tasks: sbatch:")
    assert "invalid partition specified: nosuch" in page["sbatch"]
    assert page["node"].startswith("warning: not checked")
