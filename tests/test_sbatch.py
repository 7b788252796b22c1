"""One job for one submission, whatever sbatch prints and whenever the controller answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc import sbatch, slurm
from hpc.slurm_command import BusyError
from relay.errors import ClusterError
from tests.conftest import fake

BUSY = "echo 'error: Socket timed out on send/recv operation' >&2; exit 1"
NAME = "relay-x.1"
ROW = f"echo '70|{NAME}|PENDING|None|1:00'"


def submitted(tmp_path: Path) -> str:
    return sbatch.submit(NAME, tmp_path / "job.sh")


def test_a_job_that_is_taken_late_is_cancelled(commands: Path, tmp_path: Path) -> None:
    """The first sbatch times out and is not in the queue yet when it is looked for; both are in the end."""
    fake(
        commands,
        "sbatch",
        f"echo x >> '{tmp_path}/sent'\n[ $(wc -l < '{tmp_path}/sent') = 2 ] && echo 71 && exit\n{BUSY}",
    )
    fake(
        commands,
        "squeue",
        f"echo x >> '{tmp_path}/asked'\n[ $(wc -l < '{tmp_path}/asked') = 1 ] && exit\n"
        f'for job in 70_0 70_1 71_0; do echo "$job|{NAME}|PENDING|None|1:00"; done',
    )
    fake(commands, "scancel", f"echo $@ > '{tmp_path}/cancelled'")
    assert submitted(tmp_path) == "71"
    assert (tmp_path / "cancelled").read_text() == "--quiet 70\n"


def test_a_controller_that_is_away_between_two_tries_is_asked_again(commands: Path, tmp_path: Path) -> None:
    """sbatch times out, and so does the question whether it took the job: neither a second job nor the end."""
    fake(commands, "sbatch", f"echo x >> '{tmp_path}/sent'; {BUSY}")
    fake(
        commands,
        "squeue",
        f"echo x >> '{tmp_path}/asked'\n[ $(wc -l < '{tmp_path}/asked') -le 2 ] && {{ {BUSY}; }}\n{ROW}",
    )
    assert submitted(tmp_path) == "70"
    assert len((tmp_path / "sent").read_text().splitlines()) == 1
    fake(commands, "squeue", BUSY)
    with pytest.raises(BusyError, match=r"Socket timed out.* did not answer 6 times"):
        submitted(tmp_path)


def test_a_controller_that_goes_away_after_sbatch_gets_no_second_job(commands: Path, tmp_path: Path) -> None:
    fake(commands, "sbatch", f"echo x >> '{tmp_path}/sent'; echo 70")
    fake(commands, "squeue", BUSY)
    with pytest.raises(BusyError, match=f"a job was submitted as {NAME}, and the same command finds it"):
        submitted(tmp_path)
    assert (tmp_path / "sent").read_text() == "x\n"


@pytest.mark.parametrize(
    "printed",
    [
        "59598311",
        "--> Verifying job 1 of 1 ...OK\nSubmitted batch job 59598311",
        "Submitted batch job 59598311 on cluster here",
        "59598311;here",
        "job 7: checked\n12\n59598311\nHave a nice day",
        "Your job was submitted.",
        "",
        "verifying job 69 was fine; job 71 as well",
    ],
)
def test_the_id_is_that_of_the_queue(commands: Path, tmp_path: Path, printed: str) -> None:
    fake(commands, "sbatch", f"cat <<'END'\n{printed}\nEND")
    fake(commands, "squeue", f"echo '59598311_0|{NAME}|PENDING|None|1:00'")
    fake(commands, "scancel", "exit 9")
    assert submitted(tmp_path) == "59598311"


@pytest.mark.parametrize("end", ["exit 1", "echo 'quota file: permission denied' >&2; exit 7", "kill -9 $$"])
def test_a_script_that_fails_after_sbatch_has_submitted_a_job(
    commands: Path, tmp_path: Path, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(commands, "sbatch", f"touch '{tmp_path}/sent'; echo Submitted batch job 70; {end}")
    fake(commands, "squeue", f"[ ! -e '{tmp_path}/sent' ] || {ROW}")
    assert submitted(tmp_path) == "70"
    assert "the queue has the job, though" in capsys.readouterr().err
    fake(commands, "squeue", "exit 1")
    with pytest.raises(ClusterError, match="sbatch: "):
        submitted(tmp_path)


@pytest.mark.parametrize("printed", ["Submitted batch job 777 on cluster other", "777;other", "hello\n777;other\n"])
def test_a_job_on_another_cluster_is_cancelled_there(commands: Path, tmp_path: Path, printed: str) -> None:
    fake(commands, "sbatch", f"echo '{printed}'")
    fake(commands, "squeue", "exit 0")
    fake(commands, "scancel", f"echo $@ > '{tmp_path}/cancelled'")
    with pytest.raises(ClusterError, match=r"job 777 is not in the queue .*; it was cancelled") as caught:
        submitted(tmp_path)
    assert not isinstance(caught.value, sbatch.UnseenError)
    assert (tmp_path / "cancelled").read_text() == f"--clusters=other --name={NAME}\n"
    fake(commands, "scancel", "echo 'scancel: error: No cluster other' >&2; exit 1")
    with pytest.raises(sbatch.UnseenError, match="could not be cancelled there"):
        submitted(tmp_path)


@pytest.mark.parametrize(
    ("printed", "unseen"), [("777", True), ("Submitted batch job 777", True), ("job 1 of 1", False)]
)
def test_a_job_that_the_queue_does_not_show(commands: Path, tmp_path: Path, printed: str, unseen: bool) -> None:
    fake(commands, "sbatch", f"echo '{printed}'")
    fake(commands, "squeue", "exit 0")
    with pytest.raises(ClusterError, match="is not in the queue of" if unseen else "nothing was submitted") as caught:
        submitted(tmp_path)
    assert isinstance(caught.value, sbatch.UnseenError) == unseen


def test_a_requeue_that_ends_the_scontrol_that_asked_for_it(commands: Path, tmp_path: Path) -> None:
    """With proctrack/linuxproc, SLURM ends it with the other processes of the task: it was no refusal."""
    once = f"[ -e '{tmp_path}/asked' ] || {{ touch '{tmp_path}/asked'; kill -TERM $$; }}"
    fake(commands, "scontrol", f"{once}; echo 'Job is pending execution' >&2; exit 1")
    slurm.requeue("70")
    assert (tmp_path / "asked").exists()
    fake(commands, "scontrol", "echo 'Access denied' >&2; exit 1")
    with pytest.raises(ClusterError, match="Access denied"):
        slurm.requeue("70")
