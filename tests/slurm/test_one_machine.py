"""The one-machine cluster behaves as a site's SLURM does, beside others, and goes without a trace."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.one_machine import cgroups
from hpc.processes import start_ticks
from tests.slurm.conftest import REPOSITORY, Cluster, cluster_of_its_own, run_command, wait_for

pytestmark = pytest.mark.slurm


def living_processes_that_mention(text: str) -> list[int]:
    """By command line or environment: found in another way than the product finds them."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(int(folder.name))
    return found


def waits_for_resources(cluster: Cluster, job_id: str) -> bool:
    return cluster.job(job_id)["Reason"] in {"Resources", "Priority"}


def test_both_nodes_are_idle_with_seven_slices_each(one_machine: Cluster) -> None:
    nodes = one_machine.run(["sinfo", "--noheader", "--Node", "--partition=gpu", "--format=%N %T %c %m %G"])
    assert nodes.split("\n")[:-1] == [f"{node} idle 8 64000 gpu:1g.12gb:7" for node in ("node1", "node2")]


def test_an_array_under_a_cap_runs_its_steps_and_completes(one_machine: Cluster, tmp_path: Path) -> None:
    step = f'echo "$SLURM_PROCID:$CUDA_VISIBLE_DEVICES" > {tmp_path}/$SLURM_ARRAY_TASK_ID.step; sleep 1'
    script = f"date +%s%N > {tmp_path}/$SLURM_ARRAY_TASK_ID.began; srun bash -c '{step}'; "
    script += f"date +%s%N > {tmp_path}/$SLURM_ARRAY_TASK_ID.ended"
    options = ["--array=0-4%2", "--gres=gpu:1g.12gb:1", "--cpus-per-task=2", "--mem=8GB"]
    job_id = one_machine.submit(script, *options)

    def states() -> list[str]:
        return one_machine.run(["sacct", "-X", "-n", "-P", "-o", "State", "-j", job_id]).split()

    wait_for("all elements are COMPLETED in sacct", lambda: states() == ["COMPLETED"] * 5, timeout_s=45)
    steps = [(tmp_path / f"{element}.step").read_text().strip() for element in range(5)]
    assert all(text in {f"0:{number}" for number in range(7)} for text in steps), steps
    began = [int((tmp_path / f"{element}.began").read_text()) for element in range(5)]
    ended = [int((tmp_path / f"{element}.ended").read_text()) for element in range(5)]
    together = [sum(b <= moment < e for b, e in zip(began, ended, strict=True)) for moment in began]
    assert max(together) == 2


def test_jobs_pack_by_slices_cpus_and_memory(one_machine: Cluster) -> None:
    by_cpus = ["--gres=gpu:1g.12gb:1", "--cpus-per-task=2", "--mem=1000", "--nodelist=node1"]
    by_slices = ["--gres=gpu:1g.12gb:3", "--cpus-per-task=1", "--mem=1000", "--nodelist=node2"]
    cpu_jobs = [one_machine.submit("sleep 60", *by_cpus) for _ in range(5)]
    slice_jobs = [one_machine.submit("sleep 60", *by_slices) for _ in range(3)]
    try:
        for job_id in (*cpu_jobs[:4], *slice_jobs[:2]):
            one_machine.wait_until(job_id, "RUNNING")
        for job_id in (cpu_jobs[4], slice_jobs[2]):
            wait_for(f"{job_id} waits", functools.partial(waits_for_resources, one_machine, job_id))
    finally:
        one_machine.run(["scancel", *cpu_jobs, *slice_jobs])
    for job_id in (*cpu_jobs, *slice_jobs):
        one_machine.wait_until(job_id, "CANCELLED")


def test_a_preempted_job_gets_its_signal_then_is_requeued(one_machine: Cluster, tmp_path: Path) -> None:
    """The end of the grace time of 20 s is only looked at every 30 s, so this may take 50 s."""
    notes = tmp_path / "notes"
    step = f'trap "echo USR2 >> {notes}" USR2; echo "began ${{SLURM_RESTART_COUNT:-0}}" >> {notes}; '
    step += "while true; do sleep 0.2; done"
    node = "--nodelist=node1"
    low = one_machine.submit(f"srun bash -c '{step}'", node, "--gres=gpu:1g.12gb:7", "--signal=USR2@60", "--time=30")
    wait_for("the step began", lambda: notes.exists() and notes.read_text() == "began 0\n")
    high = one_machine.submit("true", node, "--gres=gpu:1g.12gb:1", "--partition=urgent")
    try:
        wait_for("the step got SIGUSR2", lambda: notes.read_text() == "began 0\nUSR2\n", timeout_s=15)
        assert one_machine.job(low)["JobState"] == "RUNNING"
        one_machine.wait_until(high, "COMPLETED", timeout_s=65)
        one_machine.wait_until(low, "PENDING")
        assert one_machine.job(low)["Restarts"] == "1"
        assert one_machine.job(low)["Reason"] == "BeginTime"
        one_machine.skip_wait(low)
        wait_for("it runs again", lambda: notes.read_text().endswith("began 1\n"), timeout_s=10)
    finally:
        one_machine.run(["scancel", low, high])
    one_machine.wait_until(low, "CANCELLED")


def test_two_clusters_live_side_by_side(one_machine: Cluster, another_machine: Cluster) -> None:
    before = sorted(living_processes_that_mention(str(one_machine.scratch)))
    job_id = one_machine.submit("sleep 60")
    one_machine.wait_until(job_id, "RUNNING")
    assert another_machine.run(["squeue", "--noheader"]) == ""
    assert another_machine.run(["srun", "printenv", "SLURM_CLUSTER_NAME"]).strip() == another_machine.name
    assert "preempt_send_user_signal" in one_machine.run(["scontrol", "show", "config"])
    assert "preempt_send_user_signal" not in another_machine.run(["scontrol", "show", "config"])

    assert run_command("down", "--name", another_machine.name).returncode == 0

    assert one_machine.job(job_id)["JobState"] == "RUNNING"
    assert one_machine.job(job_id)["Restarts"] == "0"
    one_machine.run(["scancel", job_id])
    one_machine.wait_until(job_id, "CANCELLED")
    wait_for(
        "only the daemons from before run",
        lambda: sorted(living_processes_that_mention(str(one_machine.scratch))) == before,
    )


def test_up_again_only_says_where_the_cluster_is(one_machine: Cluster) -> None:
    before = sorted(living_processes_that_mention(str(one_machine.scratch)))
    ended = run_command("up", "--name", one_machine.name)
    assert (ended.returncode, ended.stdout) == (0, f"export SLURM_CONF={one_machine.conf}\n")
    assert sorted(living_processes_that_mention(str(one_machine.scratch))) == before


def test_down_leaves_nothing_even_of_a_running_job(another_machine: Cluster, tmp_path: Path) -> None:
    step = f"setsid sleep 301 & echo $! > {tmp_path}/detached; exec env -i sleep 302"
    another_machine.submit(
        f"echo $$ > {tmp_path}/batch; srun bash -c '{step}' & env -i sleep 303 & "
        f"echo $! > {tmp_path}/bare; trap '' TERM; wait"
    )
    names = ("batch", "detached", "bare")
    wait_for(
        "the job runs", lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in names)
    )
    pids = [int((tmp_path / name).read_text()) for name in names]
    assert all(start_ticks(pid) is not None for pid in pids)

    ended = run_command("down", "--name", another_machine.name)

    assert ended.returncode == 0, ended.stderr
    assert [pid for pid in pids if start_ticks(pid) is not None] == []
    assert living_processes_that_mention(str(another_machine.scratch)) == []
    assert not another_machine.scratch.exists()
    again = run_command("down", "--name", another_machine.name)
    assert (again.returncode, again.stdout) == (0, "")
    assert "there is no cluster" in again.stderr


def groups_of(cluster: Cluster) -> list[Path]:
    return sorted(cgroups.ROOT.glob(f"*/relay_{os.geteuid()}_{cluster.name}"))


def test_down_leaves_no_cgroup_even_of_a_suspended_job(tmp_path: Path) -> None:
    if reason := cgroups.why_not("freezer"):
        pytest.skip(reason)
    mounts = Path("/proc/mounts").read_text()
    with cluster_of_its_own(f"frozen_{os.getpid()}", "--proctrack", "cgroup", "--nodes", "1") as cluster:
        job_id = cluster.submit(f"env -i setsid sleep 304 & echo $! > {tmp_path}/detached; wait")
        wait_for("the job runs", lambda: any(tmp_path.iterdir()) and (tmp_path / "detached").read_text() != "")
        pid = int((tmp_path / "detached").read_text())
        cluster.run(["scontrol", "suspend", job_id])
        states = cgroups.ROOT.glob(f"freezer/relay_*_{cluster.name}/**/step_batch/freezer.state")
        state = next(states)
        wait_for("the job is frozen", lambda: state.read_text() == "FROZEN\n")
        assert groups_of(cluster) != []
    assert start_ticks(pid) is None
    assert groups_of(cluster) == []
    assert Path("/proc/mounts").read_text() == mounts


def test_up_without_the_cgroups_it_needs_says_why_and_leaves_nothing(one_machine: Cluster) -> None:
    folder = one_machine.scratch.parent / "no_freezer"
    up = f"{sys.executable} -m hpc.one_machine up --name none_{os.getpid()} --dir {folder} --proctrack cgroup"
    hide = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {cgroups.ROOT} || exit 99; exec {up}"]
    ended = subprocess.run(hide, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode not in (0, 2):
        pytest.skip(f"no mount namespace can be made here: {ended.stderr}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"error: --proctrack cgroup: there is no freezer hierarchy of cgroups version 1 at {cgroups.ROOT}/freezer. "
        "Use --proctrack linuxproc\n"
    )
    assert not folder.exists()
    assert f"none_{os.getpid()}" not in run_command("status").stdout


def test_a_second_clone_sees_whose_cluster_it_is(one_machine: Cluster, tmp_path: Path) -> None:
    for layer in ("relay", "src", "hpc"):
        shutil.copytree(REPOSITORY / layer, tmp_path / layer, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hpc.one_machine"]

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [*command, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    line = f"{one_machine.name}  2 of 2 nodes idle  SLURM_CONF={one_machine.conf}  of {REPOSITORY}\n"
    assert line in call("status").stdout
    assert f"{one_machine.name} of {REPOSITORY}" in call("down").stderr
    assert (
        call("up", "--name", one_machine.name).stderr[len("12:30:59 ") :]
        == f"the cluster {one_machine.name} of {REPOSITORY} is already running\n"
    )
    assert one_machine.run(["squeue", "--noheader"]) == ""


def test_a_job_above_its_memory_is_ended_by_the_kernel(one_machine: Cluster) -> None:
    if not (one_machine.scratch / "cgroup.conf").is_file():
        pytest.skip("no cgroups can be made here")
    eat = f"srun {sys.executable} -c 'bytes(1) * (400 << 20)'"
    job_id = one_machine.submit(eat, "--mem=100M")
    one_machine.wait_until(job_id, "FAILED")

    def step() -> str:
        return one_machine.run(["sacct", "-n", "-P", "-o", "State", "-j", f"{job_id}.0"]).strip()

    wait_for("accounting calls the step OUT_OF_MEMORY", lambda: step() == "OUT_OF_MEMORY")


def test_an_up_that_fails_half_way_says_why_and_leaves_nothing(one_machine: Cluster, tmp_path: Path) -> None:
    broken = tmp_path / "slurmctld"
    broken.write_text("#!/bin/sh\necho no luck today\nexit 3\n")
    broken.chmod(0o755)
    folder = one_machine.scratch.parent / "half"
    name = f"half_{os.getpid()}"
    ended = run_command("up", "--name", name, "--dir", str(folder), env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "slurmctld ended with exit code 3" in ended.stderr
    assert "no luck today" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not folder.exists()
    assert living_processes_that_mention(str(folder)) == []
