"""Submitting through the real command line; sbatch and squeue are stand-ins that keep a queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import yaml_file
from relay.files import read_lines
from relay.runs.sweeps import sweeps
from tests.conftest import ROOT, fake, site_path
from tests.fork_server import fork_python

PROFILE = {"executor": "slurm", "slice": "1g.12gb", "cpus": 1, "max_parallel": 2}

# Keeps what was submitted as `name count id`; LIMIT is how many tasks one array may have.
SBATCH = """
script="${@: -1}"
echo call >> "$QUEUE.calls"
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
count=$(( ${last:-0} + 1 ))
if [ "$count" -gt "${LIMIT:-1000}" ]; then
    echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
    exit 1
fi
id=$(( 100 + $(cat "$QUEUE.calls" | wc -l) ))
MOMENT
echo "Submitted batch job $id"
"""
SQUEUE = """
[ -f "$QUEUE" ] || exit 0
while read -r name count id; do
    case "$*" in *"$name"*)
        for i in $(seq 0 $((count - 1))); do echo "${id}_$i|$name|PENDING|Resources|1:00:00"; done;;
    esac
done < "$QUEUE"
"""
TAKE = 'echo "$name $count $id" >> "$QUEUE"'


@pytest.fixture
def site(tmp_path: Path, small_file: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`launch(moment, *words)`: `python -m hpc.launch grid`, with what sbatch does at the moment of taking an array.

    `change` is what else is done to the stand-ins before.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "sinfo": "echo gpu:1g.12gb:7",
        "scontrol": "echo 'MaxArraySize            = 1001'",
        "squeue": SQUEUE,
        "sbatch": SBATCH,
        "srun": "exit 1",
    }
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml_file.dump_yaml(PROFILE))
    env = {"PATH": site_path(folder), "QUEUE": str(tmp_path / "queue")}

    def install(moment: str) -> None:
        for name, program in programs.items():
            fake(folder, name, program.replace("MOMENT", moment))

    def launch(
        moment: str = TAKE, *words: str, change: Callable[[Path], None] = lambda folder: None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        install(moment)
        change(folder)
        given = ["grid", "--config", str(small_file), "--cluster", str(profile), *words]
        return fork_python("hpc.launch", *given, env=env | more)

    install(TAKE)
    return launch


def queue_of(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "queue"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_submit_limit_takes_what_fits_and_says_what_is_left(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    first = site(TAKE, LIMIT="3")
    assert first.returncode == 0, first.stderr
    assert [count for _, count, _ in queue_of(tmp_path)] == ["2", "2"]
    assert "0 done, 0 in the queue before, 4 submitted" in first.stdout
    again = site(TAKE, LIMIT="3")
    assert "0 done, 4 in the queue before, 0 submitted" in again.stdout
    full = site(TAKE, "--fresh", LIMIT="0")
    assert full.returncode == 2
    assert "AssocMaxSubmitJobLimit" in full.stderr or "accounting/QOS policy" in full.stderr
    assert len(queue_of(tmp_path)) == 2


def test_the_rest_of_a_limit_is_left_for_the_next_call(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    # After the first array the user's limit is reached.
    once = '[ -s "$QUEUE" ] && { echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }\n' + TAKE
    first = site(once, LIMIT="3")
    assert first.returncode == 0, first.stderr
    assert "2 runs not submitted; to submit the rest later: " in first.stdout
    second = site(TAKE)
    assert "0 done, 2 in the queue before, 2 submitted" in second.stdout
    assert sum(int(count) for _, count, _ in queue_of(tmp_path)) == 4


@pytest.mark.parametrize("taken", [True, False])
def test_a_controller_that_times_out_is_asked_whether_it_took_the_array(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, taken: bool
) -> None:
    busy = 'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1'
    first_time = f'if [ "$id" = 101 ]; then {TAKE if taken else ":"}; {busy}; fi\n{TAKE}'
    done = site(first_time)
    assert done.returncode == 0, done.stderr
    assert "Socket timed out" in done.stderr
    assert [(count, job) for _, count, job in queue_of(tmp_path)] == [("4", "101" if taken else "102")]
    assert "4 submitted" in done.stdout
    again = site()
    assert "0 done, 4 in the queue before, 0 submitted" in again.stdout


@pytest.mark.parametrize("moment", [f"{TAKE}; kill -9 $PPID; sleep 1", "kill -9 $PPID; sleep 1; exit 1"])
def test_a_launcher_killed_around_sbatch_leaves_each_cell_submitted_once(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, moment: str
) -> None:
    killed = site(moment)
    assert killed.returncode == -9
    again = site()
    assert again.returncode == 0, again.stderr
    assert [count for _, count, _ in queue_of(tmp_path)] == ["4"]
    (sweep,) = sweeps(tmp_path / "runs")
    assert "tasks" in read_lines(sweep.submissions_file)[0]


LOADER = "sbatch: error while loading shared libraries: libslurmfull.so: cannot open shared object file"


def without(*names: str) -> Callable[[Path], None]:
    """Take programs of a folder away."""

    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(without("srun"), "srun: no such command, although this machine has others of SLURM", id="srun"),
        pytest.param(
            without("srun", "squeue"), "squeue, srun: no such command, although this machine", id="srun-squeue"
        ),
        pytest.param(without("sinfo"), "sinfo: no such command; are you on a login node", id="sinfo"),
        pytest.param(
            lambda folder: (folder / "sbatch").chmod(0o644), "sbatch: no such command, although", id="sbatch-mode"
        ),
        pytest.param(
            lambda folder: (folder / "sinfo").chmod(0o644), "sinfo: cannot be executed: Permission denied", id="mode"
        ),
        pytest.param(
            lambda folder: (folder / "sbatch").write_bytes(b"\x7fELF of another machine"),
            "sbatch: cannot be executed: Exec format error",
            id="sbatch-format",
        ),
        pytest.param(
            lambda folder: fake(folder, "sbatch", f"echo '{LOADER}' >&2; exit 127"),
            LOADER,
            id="sbatch-loader",
        ),
        pytest.param(
            lambda folder: fake(folder, "sinfo", f"echo '{LOADER}' >&2; exit 127"), f"sinfo: {LOADER}", id="loader"
        ),
        pytest.param(
            lambda folder: fake(folder, "sbatch", "exit 0"), "sbatch printed '', which is no job id", id="silent"
        ),
    ],
)
def test_a_broken_installation_is_one_message_and_submits_nothing(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    """SLURM's programs in part, not executable, of another machine, or without their libraries."""
    done = site(change=change)
    assert done.returncode == 2, done.stderr
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: {said}")
    assert "Traceback" not in done.stderr
    assert queue_of(tmp_path) == []
    again = site()
    assert again.returncode == 0, again.stderr
    assert [count for _, count, _ in queue_of(tmp_path)] == ["4"]


def test_a_task_that_slurm_holds_after_a_failed_start_is_released(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    site()
    squeue = SQUEUE.replace("|Resources|", "|$([ $i = 1 ] && echo 'launch failed requeued held' || echo JobHeldUser)|")

    def hold(folder: Path) -> None:
        fake(folder, "squeue", squeue)
        fake(folder, "scontrol", f"echo \"$@\" >> '{tmp_path}/asked'; echo 'MaxArraySize = 1001'")

    again = site(change=hold)
    assert again.returncode == 0, again.stderr
    assert "1 task held by SLURM (requeued held: 101_1): released" in again.stdout
    assert "release 101_1\n" in (tmp_path / "asked").read_text()
    assert "0 done, 4 in the queue before, 0 submitted" in again.stdout


def test_what_a_job_needs_lies_with_its_runs_and_the_log_folder_is_a_view(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert site().returncode == 0
    (sweep,) = sweeps(tmp_path / "runs")
    view = tmp_path / "logs" / sweep.name
    assert sorted(path.name for path in sweep.jobs.iterdir()) == sorted(path.name for path in view.iterdir())
    ((job, _, _),) = queue_of(tmp_path)
    assert json.loads((sweep.jobs / f"{job}.json").read_text()) == [[str(run.path)] for run in sweep.runs()]
    script = (sweep.jobs / f"{job}.sh").read_text()
    assert str(sweep.jobs) in script
    assert str(tmp_path / "logs") not in script
    # A view that cannot be made is said, and no more.
    no_folder = site(TAKE, "--fresh", "--set", "paths.logs_dir=/dev/null/logs")
    assert no_folder.returncode == 0, no_folder.stderr
    assert "cannot be made (Not a directory); the logs are in" in no_folder.stderr
    # After a move of everything, the link still leads there.
    (tmp_path / "there").mkdir()
    for name in ("runs", "logs"):
        (tmp_path / name).rename(tmp_path / "there" / name)
    assert (tmp_path / "there" / "logs" / sweep.name / f"{job}.sh").is_file()


@pytest.mark.parametrize("name", ["100%j", "50% off", "back\\slash", "runs:v2", "2026-11-22T10:15"])
def test_a_path_in_which_tasks_could_not_work_is_refused(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, name: str
) -> None:
    refused = site(TAKE, "--set", f"paths.runs_dir={tmp_path / name}")
    assert refused.returncode == 2, refused.stdout
    (message,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert message.startswith(f"error: paths.runs_dir: {tmp_path / name}: ")
    assert ("PYTHONPATH" if ":" in name else "SLURM would replace") in message
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / name).exists()
    assert queue_of(tmp_path) == []


def test_two_launchers_in_the_same_second_submit_each_cell_once(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, small_file: Path
) -> None:
    fake(tmp_path / "bin", "sbatch", SBATCH.replace("MOMENT", f"sleep 1; {TAKE}"))
    env = os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'bin-tools'}",
        "QUEUE": str(tmp_path / "queue"),
        "PYTHONPATH": str(ROOT),
    }
    words = ["grid", "--config", str(small_file), "--cluster", str(tmp_path / "profile.yaml")]
    command = [sys.executable, "-m", "hpc.launch", *words]
    both = [subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    shown = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert [count for _, count, _ in queue_of(tmp_path)] == ["4"]
    assert sum("4 submitted" in text for text in shown) == 1
    assert sum("4 in the queue before, 0 submitted" in text for text in shown) == 2
    assert len(sweeps(tmp_path / "runs")) == 1


NOTE_DEPENDENCY = (
    """sed -n 's/^#SBATCH --dependency=//p' "$script" | tr '\\n' ' ' >> "$QUEUE.after"; echo >> "$QUEUE.after"; """
)


def test_arrays_of_one_sweep_respect_max_parallel_together(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Each array has a throttle of its own: the second one waits for the first, or gets the places that are left."""
    first = site(NOTE_DEPENDENCY + TAKE, LIMIT="3")
    assert first.returncode == 0, first.stderr
    noted = tmp_path / "queue.after"
    assert [line.strip() for line in noted.read_text().splitlines()] == ["", "afterany:102"]
    assert "it starts when job 102 is over: max_parallel is 2" in first.stdout
    # One task is left of the first array; three runs are missing, then one.
    noted.unlink()
    (sweep,) = sweeps(tmp_path / "runs")
    name = queue_of(tmp_path)[0][0]

    def one_runs(folder: Path) -> None:
        (tmp_path / "queue").write_text("")
        fake(folder, "squeue", f"case $* in *{name}*) echo '102_0|{name}|RUNNING|None|1:00';; esac\n{SQUEUE}")

    beside_one = site(NOTE_DEPENDENCY + TAKE, change=one_runs).stdout
    assert "1 in the queue before, 3 submitted" in beside_one
    for run in sweep.runs()[2:]:
        run.write_result({"steps": 3})
    assert "2 done, 1 in the queue before, 1 submitted" in site(NOTE_DEPENDENCY + TAKE, change=one_runs).stdout
    assert [line.strip() for line in noted.read_text().splitlines()] == ["", ""]
    assert "3 tasks, at most 1 at a time" in beside_one


def test_what_a_dry_run_shows_is_what_is_submitted(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Two arrays of at most three tasks, of which the second one waits for the first."""

    def small_arrays(folder: Path) -> None:
        fake(folder, "scontrol", "echo 'MaxArraySize            = 3'")

    assert site(TAKE, LIMIT="0").returncode == 2  # Makes the sweep, and no job.
    (sweep,) = sweeps(tmp_path / "runs")
    # The script names the command that it was made by.
    shown = site(TAKE, "--dry-run", change=small_arrays).stdout.replace(" --dry-run", "")
    assert "4 to do" in shown
    assert site(TAKE, change=small_arrays).returncode == 0
    submitted = queue_of(tmp_path)
    assert [count for _, count, _ in submitted] == ["3", "1"]
    for name, _, job in submitted:
        shown = shown.replace(f"'afterany:<the id of {name}>'", f"afterany:{job}")
    for name, _, _ in submitted:
        assert (sweep.jobs / f"{name}.sh").read_text() in shown
    later = site(TAKE, "--dry-run").stdout
    assert "0 to do" in later
    assert later.count("  in the queue\n") == 4


def test_a_dependency_of_the_profile_is_kept(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "sbatch": {"dependency": "afterok:7"}}))
    assert site(NOTE_DEPENDENCY + TAKE, LIMIT="3").returncode == 0
    noted = (tmp_path / "queue.after").read_text().splitlines()
    assert [line.strip() for line in noted] == ["afterok:7", "afterok:7,afterany:102"]


def test_a_launch_after_a_cancel_waits_for_what_is_ending_and_goes_on(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    site()
    ((name, _, job),) = queue_of(tmp_path)
    for run in sweeps(tmp_path / "runs")[0].runs()[:2]:
        run.cancel()
    asked = tmp_path / "asked"

    def ending(folder: Path) -> None:
        lines = "\\n".join(f"{job}_{number}|{name}|COMPLETING|None|1:00" for number in (0, 1))
        first_two = f"[ $(cat '{asked}' | wc -l) -le 2 ] && {{ printf '{lines}\\n'; exit; }}"
        (tmp_path / "queue").write_text("")
        fake(folder, "squeue", f"echo >> '{asked}'; {first_two}\n{SQUEUE}")

    again = site(change=ending)
    assert again.returncode == 0, again.stderr
    assert f"waiting until tasks have saved and ended: {job}_0, {job}_1\n" in again.stdout
    assert "0 done, 0 in the queue before, 4 submitted" in again.stdout
    # Twice while they end, once when they have, and once for the new job.
    assert len(asked.read_text().splitlines()) == 4


OTHER = "echo 'Submitted batch job 777 on cluster other'; exit 0"


@pytest.mark.parametrize(
    ("moment", "scancel", "sent"),
    [
        (OTHER, "echo 'scancel: error: No cluster other known' >&2; exit 1", 1),
        ("echo '777;other'; exit 0", "sleep 0; exit 1", 1),
        ("echo 777; exit 0", "exit 0", 1),
        (OTHER, "exit 0", 3),
    ],
)
def test_a_job_that_cannot_be_seen_is_not_submitted_twice(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, moment: str, scancel: str, sent: int
) -> None:
    """It is cancelled where it went, or nothing is submitted until the user has done that."""

    def change(folder: Path) -> None:
        fake(folder, "scancel", scancel)

    for number in range(3):
        refused = site(moment, change=change)
        assert refused.returncode == 2, refused.stdout
        assert "Traceback" not in refused.stderr
        assert "job 777 is not in the queue of this cluster" in refused.stderr
        waits = "they are not submitted again" in refused.stderr
        assert waits == (sent == 1 and number > 0)
    assert len((tmp_path / "queue.calls").read_text().splitlines()) == sent
    if sent == 1:
        hint = refused.stderr.partition("Once it is cancelled: ")[2]
        assert "cancel" in hint
        (sweep,) = sweeps(tmp_path / "runs")
        words = ["cancel", sweep.name, "--config", str(tmp_path / "small.yaml")]
        env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'bin-tools'}", "QUEUE": str(tmp_path / "queue")}
        assert fork_python("hpc.launch", *words, env=env).returncode == 0
    again = site()
    assert "4 submitted" in again.stdout, again.stderr
    assert [count for _, count, _ in queue_of(tmp_path)] == ["4"]


def test_a_pipeline_whose_job_cannot_be_seen_stops(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert site("echo 777; exit 0", "--dry-run").returncode == 0  # Installs the stand-ins.
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'bin-tools'}", "QUEUE": str(tmp_path / "queue")}
    words = ["pipeline", "--config", str(tmp_path / "small.yaml"), "--cluster", str(tmp_path / "profile.yaml")]
    for said in ("777 is not in the queue of this cluster", "they are not submitted again"):
        stopped = fork_python("hpc.launch", *words, env=env)
        assert stopped.returncode == 2
        assert said in stopped.stderr
    assert len((tmp_path / "queue.calls").read_text().splitlines()) == 1


def test_the_job_that_continues_a_pipeline_is_not_submitted_twice_either(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    away = 'case "$name" in relay-pipeline*) echo "Submitted batch job 777 on cluster other"; exit 0;; esac'
    site(f"{away}; {TAKE}", "--dry-run", change=lambda folder: fake(folder, "scancel", "exit 1"))
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'bin-tools'}", "QUEUE": str(tmp_path / "queue")}
    words = ["pipeline", "--config", str(tmp_path / "small.yaml"), "--cluster", str(tmp_path / "profile.yaml")]
    for said in ("777 is not in the queue of this cluster", "is not submitted again", "is not submitted again"):
        stopped = fork_python("hpc.launch", *words, env=env)
        assert stopped.returncode == 2
        assert said in stopped.stderr
    # The array of the LR sweep, and the job after it.
    assert len((tmp_path / "queue.calls").read_text().splitlines()) == 2


def on_cluster(name: str) -> Callable[[Path], None]:
    settings = f"echo 'ClusterName             = {name}'; echo 'MaxArraySize            = 1001'"
    return lambda folder: fake(folder, "scontrol", settings)


def test_a_second_cluster_with_the_same_folder_does_not_submit_what_the_first_has(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    other = {"QUEUE": str(tmp_path / "other")}
    assert "4 submitted" in site(change=on_cluster("alpha")).stdout
    refused = site(change=on_cluster("beta"), **other)
    assert refused.returncode == 2
    assert "they are not submitted again: it went to the cluster alpha, and this is beta" in refused.stderr
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'bin-tools'}", **other}
    given = ["--config", str(tmp_path / "small.yaml")]
    assert "4 on alpha" in fork_python("hpc.launch", "status", *given, env=env).stdout
    (sweep,) = sweeps(tmp_path / "runs")
    first, second, third, _ = sweep.runs()
    # A task that came to its end there does not come back; one that requeued itself does.
    for run, cause in ((first, "CRASHED"), (second, "TIMEOUT")):
        run.record_attempt(1, start=time.time() + 1, job="101_0", cluster="alpha")
        run.record_attempt(1, end=time.time() + 2, cause=cause, first_step=0, last_step=1)
    retried = fork_python(
        "hpc.launch", "retry", first.label, *given, "--cluster", str(tmp_path / "profile.yaml"), env=env
    )
    assert "1 submitted" in retried.stdout, retried.stderr
    assert site(change=on_cluster("beta"), **other).returncode == 2
    fake(tmp_path / "bin", "scancel", "exit 0")
    assert fork_python("hpc.launch", "cancel", sweep.name, *given, env=env).returncode == 0
    assert "3 submitted" in site(change=on_cluster("beta"), **other).stdout
    assert not third.cancelled()


def test_a_cancelled_run_of_a_task_that_goes_on_is_asked_for_again(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "profile.yaml").write_text(yaml_file.dump_yaml({**PROFILE, "cells_per_job": 2}))
    assert "4 submitted" in site().stdout
    (sweep,) = sweeps(tmp_path / "runs")
    first, *_ = sweep.runs()
    first.cancel()
    env = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{tmp_path / 'bin-tools'}", "QUEUE": str(tmp_path / "queue")}
    shown = fork_python("hpc.launch", "status", "--config", str(tmp_path / "small.yaml"), env=env)
    assert "4 runs: 1 cancelled, 3 queued" in shown.stdout
    again = site()
    assert "cancelled earlier and requested again: 1 run of tasks in the queue" in again.stdout
    assert not first.cancelled()


def test_a_job_that_is_seen_late_is_taken_over(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """squeue did not show it when it was submitted, and shows it when the command is given again."""
    first = site(TAKE, change=lambda folder: fake(folder, "squeue", "exit 0"))
    assert first.returncode == 2
    assert "is not in the queue of this cluster" in first.stderr
    assert "4 in the queue before, 0 submitted" in site().stdout
    assert [count for _, count, _ in queue_of(tmp_path)] == ["4"]


@pytest.mark.parametrize(
    "answer", ["echo 59598311; exit", "echo '--> Verifying job 1 of 1 ...OK'", "echo 12; echo 'Have a nice day'; exit"]
)
def test_a_job_is_known_by_its_name_whatever_sbatch_prints(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, answer: str
) -> None:
    done = site(f"{TAKE}; {answer}")
    assert done.returncode == 0, done.stderr
    (sweep,) = sweeps(tmp_path / "runs")
    assert [line.get("job_id") for line in read_lines(sweep.submissions_file)] == [None, "101"]
    assert "job 101" in done.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SBATCH_PARTITION": "urgent"}, "SBATCH_PARTITION=urgent (in the profile: partition)"),
        (
            {"SLURM_CLUSTERS": "other", "SBATCH_TIMELIMIT": "5"},
            "SBATCH_TIMELIMIT=5 (in the profile: time_min); SLURM_CLUSTERS=other (Relay asks the queue of one cluster",
        ),
        ({"SBATCH_RESERVATION": "class"}, "SBATCH_RESERVATION=class (in the profile: sbatch: {reservation: ...})"),
        ({"SBATCH_MEM_PER_CPU": "4G"}, "(in the profile: sbatch: {mem-per-cpu: ...})"),
        ({"SBATCH_WAIT": "1"}, "SBATCH_WAIT=1 (a launch would wait until its jobs are over)"),
    ],
)
def test_variables_that_sbatch_does_not_get_are_named(
    site: Callable[..., subprocess.CompletedProcess[str]], variables: dict[str, str], said: str
) -> None:
    done = site(TAKE, "--dry-run", **variables)
    (line,) = [line for line in done.stderr.splitlines() if "ignored, since the profile alone decides" in line]
    assert said in line
    assert "ignored" not in site(TAKE, "--dry-run", SLURM_JOB_ID="7", MY_SBATCH_NOTES="x").stderr


LATIN = r"printf 'Universit\xe4t, \xabfile\xbb \xff\n'"


@pytest.mark.parametrize("name", ["sinfo", "scontrol", "squeue", "sbatch", "scancel"])
@pytest.mark.parametrize("fails", [True, False])
def test_an_answer_in_another_encoding_is_no_traceback(
    site: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, name: str, fails: bool
) -> None:
    """Latin-1 in what a command says of its failure, or beside its answer."""

    def change(folder: Path) -> None:
        before = (folder / name).read_text().partition("\n")[2] if (folder / name).exists() else ""
        fake(folder, name, f"{LATIN} >&2; exit 1" if fails else f"{LATIN}\n{before}")

    # The second of two jobs of one name is cancelled.
    twice = 'echo "$name 1 99" >> "$QUEUE";' if name == "scancel" else ""
    done = site(f"{twice}{TAKE}", change=change)
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if fails else 0), done.stderr
    if fails:
        assert "Universit\\xe4t" in done.stderr
    else:
        assert "4 submitted" in done.stdout
