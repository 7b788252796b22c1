from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc import slurm
from hpc.slurm_command import run_slurm
from hpc.submission.placement import default_name
from hpc.submission.plan import SubmitPlan, Target, job_name, make_plan, options_without_slice, plan_arrays
from hpc.submission.profile import Profile, load_profile
from hpc.submission.site import SiteLimits, choose_gres
from hpc.works import work_of
from relay import hints
from relay.config import yaml_file
from relay.errors import ClusterError, ConfigError, RelayError
from relay.runs.code_snapshot import PROJECT_ROOT
from relay.runs.rundir import SweepDir
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import fake

PROFILE = Profile(
    executor="slurm", partition="gpu", slice="1g.12gb", cpus=2, mem_gb=8, time_min=60, signal_lead_s=90, max_parallel=7
)


def plan_of(
    runs: list[Path], gres: str | None = None, name: str = "grid", logs: str = "/l", each: int = 1
) -> SubmitPlan:
    tasks = [runs[start : start + each] for start in range(0, len(runs), each)]
    return make_plan(
        PROFILE,
        gres,
        job_name(Path("/scratch/runs") / name, 1),
        tasks,
        Path(logs),
        Path("/scratch/the code/0123456789ab"),
    )


def test_the_sbatch_text_of_an_array_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "_words_of_this_process", lambda: ["hpc.launch", "grid"])
    grid = hints.python("hpc.launch", "grid")
    runs = [Path(f"/scratch/runs/grid/k=00{i}") for i in range(3)]
    plan = plan_of(runs, "gpu:1g.12gb:1", logs="/scratch/logs/grid")
    root, python = "'/scratch/the code/0123456789ab'", shlex.quote(sys.executable)
    logs, tasks = "/scratch/logs/grid/%A_%a_0_log", "/scratch/logs/grid/relay-grid-4797.1.json"
    srun = f"srun --unbuffered --export=ALL --output={logs}.out --error={logs}.err"
    assert (
        plan.sbatch_text
        == f"""#!/bin/bash
#SBATCH --array=0-2%3
#SBATCH --cpus-per-task=2
#SBATCH --error=/scratch/logs/grid/%A_%a_0_log.err
#SBATCH --gres=gpu:1g.12gb:1
#SBATCH --job-name=relay-grid-4797.1
#SBATCH --mem=8192MB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/scratch/logs/grid/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=60

cd {root} && [ "$(sha256sum < code.sha256 | cut -c1-12)" = 0123456789ab ] && sha256sum --quiet --check code.sha256 && \
[ $(find . \\( -name __pycache__ -o -name '.?*' \\) -prune -o ! -type d -print | wc -l) -eq \
$(($(wc -l < code.sha256) + 2)) ] \\
    || {{ echo 'error: the code of these runs is gone or was changed: /scratch/the code/0123456789ab; restore it; \
to continue with the changed code: {grid} --new-code; to start over with it: {grid} --fresh' >&2; exit 3; }}
export PYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1
unset PYTHONHOME
export RELAY_SIGNAL_LEAD_S=90 RELAY_KILL_WAIT_S=30
export RELAY_NEEDS_GPU=0
export RELAY_SLICE=gpu:1g.12gb:1
{srun} /bin/bash -c 'trap "" USR2; exec "$0" "$@"' {python} -u -m hpc.node.task {tasks}
"""
    )


def options_in(text: str) -> dict[str, str]:
    """The #SBATCH lines of a script."""
    found = re.findall(r"^#SBATCH --([^=\n]+)=?(.*)$", text, flags=re.MULTILINE)
    return {name: value.strip("'") for name, value in found}


def test_every_option_of_a_profile_goes_to_sbatch() -> None:
    more = {"reservation": "course", "mail_type": "END", "exclusive": True, "gres-flags": "x", "requeue": False}
    fields = {"partition": "gpu", "account": "a1", "qos": "high", "constraint": "h100&nvl", "mem_gb": 1.5}
    profile = Profile(executor="slurm", **fields, time_min=7, signal_lead_s=30, sbatch=more)  # type: ignore[arg-type]
    plan = make_plan(profile, "gpu:1g:1", "name", [[Path("/r/1")]], Path("/l"), Path("/c"))
    given = options_in(plan.sbatch_text)
    expected = {"partition": "gpu", "account": "a1", "qos": "high", "constraint": "h100&nvl", "mem": "1536MB"}
    expected |= {"time": "7", "signal": "USR2@30", "reservation": "course", "mail-type": "END", "exclusive": ""}
    expected |= {"gres": "gpu:1g:1", "gres-flags": "x", "cpus-per-task": "2", "nodes": "1", "ntasks-per-node": "1"}
    assert expected.items() <= given.items()
    assert "requeue" not in given, "it is switched off"
    small = options_without_slice(profile, chdir="/x")
    assert small.pop("requeue") is False
    assert small == {
        **{name: expected[name] for name in ("partition", "account", "qos", "constraint", "reservation", "mail-type")},
        **{"time": 7, "cpus-per-task": 1, "mem": "2G", "chdir": "/x"},
    }
    assert options_without_slice(PROFILE) == {
        **{"partition": "gpu", "time": 20, "cpus-per-task": 1, "mem": "2G", "requeue": True}
    }


def test_a_profile_says_in_sbatch_what_no_field_of_it_says() -> None:
    """As profiles did that were written before fields and `sbatch` were told apart."""
    plan = make_plan(
        Profile(executor="slurm", sbatch={"partition": "old", "cpus-per-task": 5, "gres": "gpu:2"}),
        None,
        "name",
        [[Path("/r/1")]],
        Path("/l"),
        Path("/c"),
    )
    expected = {"partition": "old", "cpus-per-task": "5", "gres": "gpu:2"}
    assert expected.items() <= options_in(plan.sbatch_text).items()


def test_the_cap_of_the_profile_is_the_arrays() -> None:
    runs = [Path(f"/r/{i}") for i in range(48)]
    assert "#SBATCH --array=0-47%7\n" in plan_of(runs).sbatch_text
    assert "--array" not in plan_of(runs[:1]).sbatch_text


@pytest.mark.parametrize(
    ("count", "size", "queued", "expected"),
    [
        (7, 10, 0, [(7, 4, ())]),
        (7, 3, 0, [(3, 4, ()), (3, 4, (5,)), (1, 4, (6,))]),
        (2, 10, 2, [(2, 4, ())]),
        (3, 10, 2, [(3, 2, ())]),
        (3, 10, 3, [(3, 4, ("70",))]),
        (2, 1, 1, [(1, 4, ()), (1, 4, ())]),
        (3, 1, 3, [(1, 4, ()), (1, 4, ("70", 5)), (1, 4, (6,))]),
    ],
)
def test_all_arrays_of_a_launch_keep_to_the_profiles_cap(
    count: int, size: int, queued: int, expected: list[tuple[int, int, tuple[str | int, ...]]]
) -> None:
    """Each array: its tasks, how many at a time, and what it waits for (jobs by id, submissions by number)."""
    sweep = SweepDir(Path("/scratch/runs/grid"))
    profile = PROFILE.model_copy(update={"max_parallel": 4})
    target = Target(sweep, profile, SiteLimits("gpu:1g.12gb:1", size), Path("/scratch/code"))
    runs = [sweep.run(f"k={number}") for number in range(count)]
    plans = plan_arrays(target, runs, 5, queued, ["70"] if queued else [])
    assert [plan.job_name for plan in plans] == [job_name(sweep.path, 5 + number) for number in range(len(plans))]
    assert [path.name for plan in plans for task in plan.tasks for path in task] == [run.name for run in runs]
    assert [
        (
            len(plan.tasks),
            plan.max_parallel,
            tuple(int(job.rpartition(".")[2]) if "." in job else job for job in plan.after),
        )
        for plan in plans
    ] == expected


def test_several_runs_in_a_task_make_fewer_tasks() -> None:
    plan = plan_of([Path(f"/r/{i}") for i in range(7)], each=3)
    assert "#SBATCH --array=0-2%3\n" in plan.sbatch_text
    assert plan.tasks[-1] == (Path("/r/6"),)


@pytest.mark.parametrize(
    ("at_once", "cpus", "expected"), [(1, "6", ":"), (2, "6", "2:3"), (4, "6", "4:1"), (4, "3", "4:1"), (2, "", "2:1")]
)
def test_runs_on_one_slice_share_its_cpus_equally(at_once: int, cpus: str, expected: str) -> None:
    profile = PROFILE.model_copy(update={"cells_per_job": 4, "runs_per_slice": at_once})
    text = make_plan(profile, None, "name", [[Path("/r/1")]], Path("/l"), Path("/c")).sbatch_text
    exports = "\n".join(line for line in text.splitlines() if line.startswith("export RELAY_"))
    script = f'{exports}\necho "$RELAY_RUNS_PER_SLICE:$RELAY_CPUS"'
    environment = {"SLURM_CPUS_PER_TASK": cpus} if cpus else {}
    shown = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == expected, shown.stderr


def test_paths_and_names_cannot_inject_into_the_script(tmp_path: Path) -> None:
    hostile = tmp_path / "a b'$(touch pwned)\"`id`; x"
    plan = plan_of([hostile / "run"], name="x; $(touch pwned) 'y", logs=str(hostile / "logs"))
    checked = subprocess.run(["bash", "-n", "-c", plan.sbatch_text], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    last = plan.sbatch_text.strip().splitlines()[-1]
    assert Path(shlex.split(last)[-1]).parent == hostile / "logs"
    assert re.search(r"#SBATCH --job-name=relay-x----touch-pwned---y-[0-9a-f]{4}\.1\n", plan.sbatch_text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("executor: slurm\npartition: 'a b'\n", "partition: 'a b'"),
        ("executor: slurm\npartition: 'a\\n#SBATCH --uid=0'\n", "partition"),
        ('executor: slurm\nsbatch:\n  comment: "x\\ny"\n', "one line"),
        ("executor: slurm\ntime_min: 1\nsignal_lead_s: 60\n", "signal_lead_s: 60 s leave nothing"),
        ("executor: slurm\npartition: gpu\nsbatch: {partition: cpu}\n", "sbatch: partition (set by partition)"),
        ("executor: slurm\nsbatch: {time: 5, cpus_per_task: 3}\n", "sbatch: time (set by time_min): given twice"),
        ("executor: slurm\ncpus: 1\nsbatch: {cpus_per_task: 3}\n", "sbatch: cpus_per_task (set by cpus)"),
        (
            "executor: slurm\nslice: 1g.12gb\nsbatch: {gres: 'gpu:2', array: 0-9}\n",
            "gres (set by slice): given twice; remove it from sbatch\n  sbatch: array: max_parallel sets it",
        ),
        (
            "executor: slurm\ncells_per_job: 2\nruns_per_slice: 3\n",
            "runs_per_slice: 3 at a time, but a task holds 2; raise cells_per_job to 3 or more",
        ),
        ("executor: local\nsetup: [module load cuda]\n", "setup: only for executor slurm; runs on this machine would"),
        ("executor: local\nsbatch: {exclusive: true}\npartition: gpu\n", "partition, sbatch: only for executor slurm"),
        ("executor: local\nslice: 1g.12gb\n", "slice: only for executor slurm"),
        ("executor: local\nruns_per_slice: 2\n", "runs_per_slice: only a task of SLURM holds several runs"),
        ("executor: slurm\ncells_per_job: 2\nruns_per_slice: 0\n", "runs_per_slice: 0"),
        ("executor: slurm\nsbatch: {clusters: other}\n", "sbatch: clusters: Relay asks the queue of one cluster"),
        ("executor: slurm\nsbatch: {cluster: other}\n", "sbatch: cluster: stands for clusters: Relay asks the"),
        ("executor: slurm\nsbatch: {clust: other}\n", "sbatch: clust: stands for clusters"),
        ("executor: slurm\nsbatch: {M: other}\n", "sbatch: M: give the long name of an option"),
        ("executor: slurm\nsbatch: {-M: other}\n", "sbatch: -M: give the long name of an option"),
        ("executor: slurm\nsbatch: {'clusters=other': true}\n", "give the long name of an option"),
        ("executor: slurm\nsbatch: {cluster-constraint: gpu}\n", "sbatch: cluster-constraint: Relay asks the queue"),
        ("executor: slurm\nsbatch: {parsable: true}\n", "sbatch: parsable: Relay sets it; remove it from sbatch"),
        ("executor: slurm\nsbatch: {test-only: true}\n", "sbatch: test-only: sbatch would submit nothing"),
        ("executor: slurm\nsbatch: {test_only: true}\n", "sbatch: test_only: sbatch would submit nothing"),
        ("executor: slurm\nsbatch: {help: true, version: true}\n", "help: sbatch would submit nothing"),
        ("executor: slurm\nsbatch: {wait: true}\n", "sbatch: wait: a launch would wait until its jobs are over"),
        ("executor: slurm\nsbatch: {wrap: hostname}\n", "sbatch: wrap: Relay sets it"),
        ("executor: slurm\nsbatch: {output: /tmp/x, job_name: x}\n", "sbatch: job_name: Relay sets it"),
        ("executor: slurm\nsbatch: {gpus: 2}\n", "sbatch: gpus: slice or gres of the profile asks for the one GPU"),
        ("executor: slurm\nsbatch: {gpus_per_node: 2}\n", "sbatch: gpus_per_node: slice or gres"),
        ("executor: slurm\ngres: gpu:2\n", "gres: gpu:2: a task computes on one GPU"),
        ("executor: slurm\ngres: 'gpu:1g.12gb:14'\n", "gres: gpu:1g.12gb:14: a task computes on one GPU"),
        ("executor: slurm\nsbatch: {nodes: 2}\n", "sbatch: nodes: a task is one process on one node; leave it at 1"),
        ("executor: slurm\nsbatch: {ntasks: 4}\n", "sbatch: ntasks: a task is one process on one node"),
        ("executor: slurm\nsbatch: {ntasks_per_node: '2'}\n", "sbatch: ntasks_per_node: a task is one process"),
        ("executor: slurm\npartition: gpu\nsbatch: {part: cpu}\n", "sbatch: part: stands for partition"),
        ("executor: slurm\nmem_gb: 1e-9\n", "mem_gb: 1e-09 is not allowed; SLURM reads less than 1 MB as 0, which is"),
        ("executor: slurm\nmem_gb: 0.0004\n", "SLURM reads less than 1 MB as 0"),
        ("executor: slurm\nmem_gb: 0\n", "mem_gb: 0"),
        ("executor: slurm\nmem_gb: .inf\n", "mem_gb: inf is not allowed"),
        ("executor: slurm\nmem_gb: 1e17\n", "must be less than or equal to 1000000"),
        ("executor: slurm\ntime_min: 100000000000000000\n", "must be less than or equal to 527040"),
        ("executor: slurm\ntime_min: 4294967301\n", "time_min: 4294967301 is not allowed"),
        (
            "executor: slurm\ntime_min: 3000\nsignal_lead_s: 70000\n",
            "signal_lead_s: 70000 is not allowed",
        ),
        ("executor: slurm\ncpus: 65538\n", "cpus: 65538 is not allowed"),
        ("executor: slurm\nsbatch: {mem-per-cpu: 4G}\n", "set mem_gb to null beside it"),
        ("executor: slurm\nsbatch: {mem_per_gpu: 4G}\n", "set mem_gb to null beside it"),
        ("executor: cloud\n", "executor: 'cloud'"),
        ("executor: slurm\npartitions: x\n", "did you mean 'partition'"),
    ],
)
def test_a_bad_profile_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path))
    assert expected in str(caught.value)
    assert "{" not in str(caught.value), "the profile is not printed"


@pytest.mark.parametrize(
    ("memory", "expected", "small"),
    [
        ({"mem_gb": None, "sbatch": {"mem-per-cpu": "4G"}}, {"mem-per-cpu": "4G"}, {"mem-per-cpu": "4G"}),
        ({"mem_gb": None, "sbatch": {"mem_per_gpu": "10G"}}, {"mem-per-gpu": "10G"}, {}),
        ({"mem_gb": None}, {}, {}),
        ({"mem_gb": 0.5}, {"mem": "512MB"}, {"mem": "2G"}),
    ],
)
def test_a_site_that_wants_memory_per_cpu_or_gpu(
    memory: dict[str, Any], expected: dict[str, str], small: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml_file.dump_yaml({"executor": "slurm", **memory}))
    _, profile = load_profile(str(path))
    given = options_in(make_plan(profile, None, "n", [[Path("/r/1")]], Path("/l"), Path("/c")).sbatch_text)
    assert {name: value for name, value in given.items() if name.startswith("mem")} == expected
    assert {name: value for name, value in options_without_slice(profile).items() if name.startswith("mem")} == small


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 1, "ntasks": "1", "test-only": False},
        {"hold": True, "dependency": "singleton", "wait-all-nodes": 1, "export": "NONE"},
        {"no-requeue": True, "requeue": False, "time-min": 5, "mem-bind": "local"},
    ],
)
def test_options_that_change_nothing_of_the_plan_are_allowed(options: dict[str, Any]) -> None:
    assert Profile(executor="slurm", sbatch=options).sbatch == options


def test_the_profiles_that_come_with_it_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    _, mig = load_profile("h100-mig")
    assert (mig.slice, mig.cpus, mig.mem_gb, mig.time_min, mig.signal_lead_s) == ("1g.12gb", 2, 8, 60, 90)
    assert load_profile("local")[1].max_parallel == 1
    assert load_profile("demo")[1].max_parallel == 2
    assert load_profile("one-machine")[1].partition == "gpu"
    with pytest.raises(ConfigError, match="there are demo, h100-mig, local, one-machine; choose"):
        load_profile("h100")


def test_without_a_name_the_profile_is_the_one_for_this_machine(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT_ROOT)
    fake(commands, "sbatch", "exit 0")
    assert default_name() == "h100-mig"
    monkeypatch.setenv("PATH", "/nonexistent")
    assert default_name() == "local"


@pytest.mark.parametrize(
    ("offered", "gres"),
    [
        ("gpu:1g.12gb:7", "gpu:1g.12gb:1"),
        ("gpu:nvidia_h100_nvl_1g.12gb:7(S:0-1),gpu:nvidia_h100_nvl_2g.24gb:1", "gpu:nvidia_h100_nvl_1g.12gb:1"),
        ("(null)\\ngpu:a100:4,gpu:1g.12gb:2", "gpu:1g.12gb:1"),
        ("gpu:1g.12gb:7,gpu:1g.12gb.me:1", "gpu:1g.12gb:1"),
    ],
)
def test_the_slice_is_found_by_the_sites_name_for_it(commands: Path, offered: str, gres: str) -> None:
    fake(commands, "sinfo", f"printf '{offered}\\n'")
    assert choose_gres(PROFILE) == gres


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ("gpu:a100:4", "none of them fits"),
        ("gpu:x_1g.12gb:1,gpu:y_1g.12gb:1", "several of them fit"),
        ("(null)", "no GPU at all"),
        ("gpu:a100:no_consume:4,shard:1g.12gb:8,mps:100", "this site offers a100; none"),
        ("gpu:h100:2(S:0,1),gpu:4(S:0-1)", "offers GPUs without a type, h100; none"),
    ],
)
def test_a_slice_that_is_not_there_is_refused_with_what_is(commands: Path, offered: str, expected: str) -> None:
    fake(commands, "sinfo", f"printf '{offered}\\n'")
    with pytest.raises(ClusterError) as caught:
        choose_gres(PROFILE)
    assert expected in str(caught.value)
    assert "gres: gpu:<type>:1" in str(caught.value)


@pytest.mark.parametrize("offered", ["gpu:4(S:0-1)", "gpu:no_consume:4", "(null)\\ngpu:2(IDX:0-1)"])
def test_a_site_whose_gpus_have_no_type(commands: Path, offered: str) -> None:
    fake(commands, "sinfo", f"printf '{offered}\\n'")
    with pytest.raises(ClusterError, match=r"offers GPUs without a type; none of them fits.* as gres: gpu:1$"):
        choose_gres(PROFILE)


def test_an_exact_gres_is_taken_without_asking() -> None:
    assert choose_gres(Profile(executor="slurm", gres="gpu:h100:1")) == "gpu:h100:1"
    assert choose_gres(Profile(executor="slurm")) is None


def test_a_busy_controller_is_waited_for(commands: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    fake(
        commands,
        "squeue",
        f"echo x >> '{count}'\n"
        f"if [ $(wc -l < '{count}') -le 2 ]; then\n"
        "echo 'error: Socket timed out on send/recv operation' >&2; exit 1; fi\n"
        "echo '12_3|relay-x.1|PENDING|Priority|1:00'",
    )
    assert [job.job_id for job in slurm.squeue(["relay-x.1"])] == ["12_3"]
    assert len(count.read_text().splitlines()) == 3


def test_the_users_settings_for_slurms_commands_do_not_change_their_answers(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = "SQUEUE_PARTITION SQUEUE_USERS SACCT_FORMAT SINFO_PARTITION SCONTROL_ALL SCANCEL_STATE SBATCH_HOLD"
    for name in (*settings.split(), "SLURM_TIME_FORMAT", "SLURM_CLUSTERS", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("SLURM_JWT", "token")
    monkeypatch.setenv("MY_SQUEUE_NOTES", "mine")
    for command in ("squeue", "sacct", "sinfo", "scontrol", "scancel"):
        fake(commands, command, "env | grep -E '^(SQUEUE|SACCT|SINFO|SCONTROL|SCANCEL|SBATCH|SLURM|MY)_' | sort")
        assert run_slurm([command]).split() == ["MY_SQUEUE_NOTES=mine", "SLURM_JWT=token"]


@pytest.mark.parametrize("words", ["Socket timed out on send/recv operation", "Invalid user id"])
def test_a_failed_question_is_never_an_empty_answer(commands: Path, words: str) -> None:
    fake(commands, "squeue", f"echo 'error: {words}' >&2; exit 1")
    with pytest.raises(ClusterError, match=words[:10]):
        slurm.squeue(["relay-x.1"])


def test_no_scheduler_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ClusterError, match="no such command"):
        slurm.gres_types()


def test_what_scontrol_says_of_a_job(commands: Path) -> None:
    times = "StartTime=2026-11-22T12:00:00 EndTime=2026-11-22T12:01:00 PreemptTime=None"
    line = f"JobId=7 ArrayJobId=5 JobState=RUNNING Restarts=3 TimeLimit=1-02:00:30 {times}"
    fake(commands, "scontrol", f"echo '{line}'")
    facts = slurm.show_job("5_1")
    assert (facts.state, facts.preempted, facts.restarts) == ("RUNNING", None, 3)
    assert facts.limit is not None
    assert facts.limit.total_seconds() == 26 * 3600 + 30
    assert facts.end is not None
    assert facts.end.minute == 1


def test_grid_of_the_small_experiment_is_one_array(small: Callable[..., Config]) -> None:
    """Everything from a configuration to the text, without touching a disk."""
    request = grid_request(small())
    runs = [request.runs_dir / "new" / cell.name for cell in request.cells]
    text = plan_of(runs).sbatch_text
    assert "--array=0-3%4" in text
    assert not request.runs_dir.exists()
    with pytest.raises(RelayError, match="unknown"):
        work_of("nonsense")


def test_a_task_that_slurm_has_put_back_itself_is_not_asked_for_twice(commands: Path) -> None:
    fake(commands, "scontrol", "echo 'Job is pending execution for job 5_1' >&2; exit 1")
    slurm.requeue("5_1")
    fake(commands, "scontrol", "echo 'Invalid job id specified' >&2; exit 1")
    with pytest.raises(ClusterError, match="Invalid job id"):
        slurm.requeue("5_1")


def test_how_the_last_execution_ended_is_asked_of_accounting(commands: Path) -> None:
    rows = [
        "5_1|c|PREEMPTED|2026-11-22T12:30:00|2026-11-22T13:00:00",
        "5_1|c|REQUEUED|2026-11-22T12:00:00|2026-11-22T12:10:00",
        "5_1|c|PENDING|Unknown|Unknown",
    ]
    fake(commands, "sacct", "cat <<END\n" + "\n".join(rows) + "\nEND")
    assert [(end.state, end.end is None) for end in slurm.job_history(["5_1"])] == [
        ("REQUEUED", False),
        ("PREEMPTED", False),
        ("PENDING", True),
    ]
    fake(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(ClusterError, match="disabled"):
        slurm.job_history(["5_1"])
    assert slurm.job_history([]) == []


def test_a_grid_larger_than_the_sites_arrays_is_split(
    commands: Path, small: Callable[..., Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc.submission.launching import launch

    monkeypatch.chdir(PROJECT_ROOT)
    fake(commands, "sinfo", "echo gpu:1g.12gb:7")
    fake(commands, "scontrol", "echo 'MaxArraySize            = 3'")
    launch(grid_request(small()), "h100-mig", dry_run=True, fresh=False)
    shown = capsys.readouterr().out
    assert "--array=0-2%3" in shown
    assert shown.count("#SBATCH --job-name=") == 2
    assert "one job; sbatch gets" in shown
    assert "dependency" not in shown, "all four may run at once"
    profile = commands / "narrow.yaml"
    profile.write_text("{executor: slurm, slice: 1g.12gb, max_parallel: 2}")
    launch(grid_request(small()), str(profile), dry_run=True, fresh=False)
    first, second = capsys.readouterr().out.split("sbatch gets:")[1:]
    assert "dependency" not in first
    assert "#SBATCH --dependency='afterany:<the id of relay-" in second


def test_a_dry_run_away_from_the_cluster_says_what_it_could_not_ask(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc.submission.launching import launch

    monkeypatch.chdir(PROJECT_ROOT)
    monkeypatch.setenv("PATH", "/nonexistent")
    config = small()
    launch(grid_request(config), "h100-mig", dry_run=True, fresh=False)
    shown = capsys.readouterr()
    assert "SLURM did not answer" in shown.err
    assert "--gres=gpu:1g.12gb:1" in shown.out
    assert not Path(config.paths.runs_dir).exists()


def test_a_dry_run_says_what_is_decoded_first(
    small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc.submission.launching import launch

    monkeypatch.chdir(PROJECT_ROOT)
    root = tmp_path / "data"
    large = {"preprocess__resize": [400, 500], "model__input_shape": [3, 400, 500], "augment__random_crop": None}
    config = small(dataset__root=str(root), dataset__synthetic_train_per_class=20, **large)
    launch(grid_request(config), "local", dry_run=True, fresh=False)
    images = config.model.classes * (20 + config.dataset.synthetic_valid_per_class)
    size = images * (3 * 400 * 500 + 16) / 1e9
    assert f"\nsynthetic: {size:.2f} GB will be decoded into {root / 'decoded'}\n" in capsys.readouterr().out
    assert not root.exists()
    grid_request(config).prepare(False)
    launch(grid_request(config), "local", dry_run=True, fresh=False)
    assert "will be decoded" not in capsys.readouterr().out


def test_a_cluster_that_is_gone_is_said_at_once(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(commands, "squeue", "sleep 60")
    monkeypatch.setenv("SLURM_CONF", str(commands / "gone.conf"))
    with pytest.raises(ClusterError, match=r"SLURM_CONF: .*gone\.conf is not there; unset it"):
        slurm.squeue(["relay-x.1"])


def test_a_machine_without_a_cluster_is_said_as_such(commands: Path) -> None:
    fake(commands, "sinfo", "echo 'sinfo: fatal: Could not establish a configuration source' >&2; exit 1")
    with pytest.raises(ClusterError, match="no cluster is known on this machine"):
        slurm.gres_types()


@pytest.mark.parametrize("name", ["sinfo", "squeue", "sacct", "scontrol", "scancel", "sbatch"])
def test_every_answer_may_have_bytes_that_are_not_utf_8(commands: Path, name: str) -> None:
    """The name of a place, a user or a file in another encoding, in the answer and in an error."""
    answers = {
        "sinfo": r"gpu:1g.12gb:7,Universit\xe4t:2",
        "squeue": r"70_0|relay-x.1|PENDING|Gr\xfcnde \xff|1:00",
        "sacct": r"5_1|Universit\xe4t|FAILED|2026-11-22T12:30:00|2026-11-22T13:00:00|0:0",
        "scontrol": r"JobState=RUNNING Restarts=3 Comment=\xfe\xff Command=/home/andr\xe9/x",
    }
    asked: dict[str, Callable[[], object]] = {
        "sinfo": slurm.gres_types,
        "squeue": lambda: [job.reason for job in slurm.squeue(["relay-x.1"])],
        "sacct": lambda: [end.cluster for end in slurm.job_history(["5_1"])],
        "scontrol": lambda: slurm.show_job("5_1").restarts,
        "scancel": lambda: slurm.cancel(["70"]),
        "sbatch": lambda: run_slurm(["sbatch"]),
    }
    expected = {"sinfo": ["1g.12gb"], "squeue": ["Gr\\xfcnde \\xff"], "sacct": ["Universit\\xe4t"], "scontrol": 3}
    fake(commands, name, f"printf '{answers.get(name, 'x')}\\n'")
    found = asked[name]()
    assert name not in expected or found == expected[name]
    fake(commands, name, r"printf 'error: ung\xfcltig\n' >&2; exit 1")
    with pytest.raises(ClusterError, match=r"ung\\xfcltig"):
        asked[name]()
