"""`doctor`: the file system of the runs, a node, the questions that fail, and the page."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc.doctor import filesystem, node_report, page, probe, site_query
from hpc.doctor.findings import Line, count_levels, print_page
from hpc.doctor.handshake import Handshake, ProbeResult, open_handshake
from hpc.doctor.node_checks import node_lines
from hpc.submission.profile import Profile
from relay.config import yaml_file
from relay.projects.config import load_program
from relay.projects.request import train_request
from src.config.schema import Config
from src.requests import grid_request
from tests.conftest import fake
from tests.doctor.test_site import CONFIG_22_05, PARTITIONS, PROFILE, changed
from tests.programs import write_project

MOUNTS = """\
/dev/vda1 / ext4 rw,relatime 0 0
mds@tcp:/lustre /lustre lustre rw,flock,lazystatfs 0 0
mds@tcp:/fast /fast lustre rw,localflock 0 0
mds@tcp:/slow /slow lustre rw,lazystatfs 0 0
nas:/home /home nfs4 rw,vers=4.2,local_lock=none 0 0
nas:/old /old nfs rw,vers=3,nolock,local_lock=all 0 0
tmpfs /dev/shm tmpfs rw 0 0
nas:/x /my\\040runs nfs4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "level", "words"),
    [
        ("/var/runs", "ok", "ext4, mounted on /"),
        ("/lustre/runs", "ok", "lustre, mounted on /lustre"),
        ("/lustreous", "ok", "ext4"),
        ("/fast/runs", "problem", "localflock"),
        ("/slow/runs", "problem", "-o flock"),
        ("/home/ada/runs", "ok", "nfs4"),
        ("/old/runs", "problem", "one machine only"),
        ("/dev/shm/runs", "warning", "memory"),
        ("/my runs/a", "ok", "mounted on /my runs"),
    ],
)
def test_file_systems(path: str, level: str, words: str) -> None:
    line = filesystem.check_file_system(Path(path), filesystem.find_mount(MOUNTS, Path(path)))
    assert line.level == level
    assert words in line.finding + line.advice


def test_rename_and_locks_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    assert filesystem.check_rename(tmp_path).level == "ok"
    assert filesystem.check_lock(tmp_path).level == "ok"
    gone = filesystem.check_rename(tmp_path / "gone")
    assert (gone.level, gone.finding) == ("problem", "a file cannot be replaced: No such file or directory")
    # What a mount looks like whose locks hold for nobody else, and one without any.
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    assert "gets 'taken' while" in filesystem.check_lock(tmp_path).finding

    def missing(file: Any, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    line = filesystem.check_lock(tmp_path)
    assert (line.level, line.finding) == ("problem", "flock: Function not implemented")


def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_LEAST_FREE_GIB", 0)
    monkeypatch.setattr(filesystem, "_LEAST_FREE_INODES", 0)
    assert filesystem.check_space(tmp_path).level == "ok"
    monkeypatch.setattr(filesystem, "_LEAST_FREE_GIB", 1e9)
    assert filesystem.check_space(tmp_path).level == "warning"


REPORT: dict[str, Any] = {
    "host": "cn07",
    "python": "3.11.7",
    "files": {"asker_lock": "refused", "own_lock": "taken", "round_trip_s": 0.2, "seen": True},
    "torch": {"version": "2.9.1", "torchvision": "0.24.1", "cuda": "12.8", "import_s": 4.0, "devices": []},
    "slice": {"found": "NVIDIA H100 NVL MIG 1g.12gb, 10.75 GiB, on cn07"},
    "network": {"host": "https://huggingface.co"},
    "space": {"tmp": "/tmp", "tmp_gib": 50.0, "home_gib": None},
}


def levels(node_lock: str = "refused", clock_s: float = 0.1, **changes: Any) -> dict[str, str]:
    lines = node_lines(ProbeResult({**REPORT, **changes}, 3.0, node_lock, clock_s), "3.11.7")
    return {line.topic: line.level for line in lines if line.level != "ok"}


def test_a_node_where_all_is_well() -> None:
    assert levels() == {}
    assert levels(network={"host": "https://huggingface.co", "error": "timed out"}) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"python": "3.12.1"}, {"node: python": "warning"}),
        ({"torch": {"error": "ImportError: libcudart"}, "slice": {}}, {"task: torch": "problem"}),
        ({"torch": {**REPORT["torch"], "import_s": 90.0}}, {"task: torch": "warning"}),
        ({"slice": {"error": "needs_gpu: 0 GPUs are visible"}}, {"task: device": "problem"}),
        ({"files": {**REPORT["files"], "asker_lock": "taken"}}, {"node: locks": "problem"}),
        ({"files": {**REPORT["files"], "own_lock": "No locks available"}}, {"node: locks": "problem"}),
        ({"node_lock": "taken"}, {"node: locks": "problem"}),
        ({"files": {**REPORT["files"], "round_trip_s": None}}, {"node: files": "problem"}),
        ({"files": {**REPORT["files"], "round_trip_s": 15.0}}, {"node: files": "warning"}),
        ({"clock_s": -31.0}, {"node: clock": "warning"}),
        ({"clock_s": 31.0}, {"node: clock": "warning"}),
        ({"space": {"tmp": "/tmp", "error": "No space left on device"}}, {"task: room": "problem"}),
        ({"space": {"tmp": "/tmp", "tmp_gib": 0.2, "home_gib": 3.0}}, {"task: room": "warning"}),
    ],
)
def test_a_node_where_something_is_wrong(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert levels(**changes) == expected


def test_whose_lock_does_not_hold() -> None:
    def finding(asker_lock: str, node_lock: str) -> str:
        files = {**REPORT["files"], "asker_lock": asker_lock}
        lines = node_lines(ProbeResult({**REPORT, "files": files}, 3.0, node_lock, 0.1), "3.11.7")
        return next(line.finding for line in lines if line.topic == "node: locks")

    assert finding("taken", "refused") == "the node gets a lock that is held here"
    assert finding("refused", "taken") == "a lock that the node holds can be taken here"


def test_a_lock_that_the_node_takes_although_it_is_held(tmp_path: Path) -> None:
    handshake = Handshake(tmp_path)
    handshake.ack.write_text('{"seen": true}')
    with open_handshake(tmp_path):
        handshake.ack.write_text('{"seen": true}')
        assert node_report.check_shared_files(handshake)["asker_lock"] == "refused"
    assert node_report.check_shared_files(handshake)["asker_lock"] == "taken"


def test_the_network_and_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", there)
        assert node_report.describe_network() == {"host": there}
        monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
        assert "error" in node_report.describe_network()
        monkeypatch.setenv("http_proxy", there.replace("//", "//ada:secret@"))
        assert node_report.describe_network() == {
            "host": f"http://nowhere.invalid through the proxy {there.removeprefix('http://')}"
        }


def scontrol(tmp_path: Path) -> str:
    """A stand-in that says what real ones said."""
    (tmp_path / "config").write_text(CONFIG_22_05)
    (tmp_path / "partitions").write_text(PARTITIONS)
    return f'case "$*" in *config) cat "{tmp_path}/config";; *partition) cat "{tmp_path}/partitions";; *) exit 1;; esac'


def test_every_question_that_fails_is_a_line(commands: Path, tmp_path: Path) -> None:
    fake(commands, "scontrol", scontrol(tmp_path))
    fake(commands, "sinfo", "echo 'sinfo: error: denied' >&2; exit 1")
    fake(commands, "sacct", "true")
    fake(commands, "sacctmgr", "echo 'sacctmgr: error: denied' >&2; exit 1")
    fake(commands, "sbatch", "true")
    lines, gres, submittable = site_query.site_lines(changed(slice=None, needs_gpu=False), 48, None)
    found = {line.topic: line for line in lines}
    assert {topic for topic, line in found.items() if "denied" in line.finding} == {"nodes", "QOS", "account"}
    assert found["partition"].finding == "gpu: UP"
    assert "none" not in found["submit limits"].finding
    assert (gres, submittable) == (None, True)


def test_a_slice_that_the_site_does_not_name(commands: Path, tmp_path: Path) -> None:
    fake(commands, "scontrol", scontrol(tmp_path))
    fake(commands, "sinfo", 'case "$*" in *"|"*) echo "gpu|gpu:h100:2|1|idle";; *) echo "gpu:h100:2";; esac')
    fake(commands, "sacct", "echo 'sacct: error: Unable to contact slurmdbd' >&2; exit 1")
    lines, gres, submittable = site_query.site_lines(PROFILE, 48, None)
    found = {line.topic: line for line in lines}
    assert (gres, submittable, found["slices"].level) == (None, False, "problem")
    assert "this site offers h100" in found["slices"].finding
    assert (found["accounting"].level, "slurmdbd does not answer" in found["accounting"].finding) == ("warning", True)


@pytest.mark.parametrize(("refuses", "submittable"), [("*", False), ("*array*", True)])
def test_sbatchs_own_word(commands: Path, tmp_path: Path, refuses: str, submittable: bool) -> None:
    fake(commands, "scontrol", scontrol(tmp_path))
    fake(commands, "sinfo", "true")
    fake(commands, "sacct", "true")
    fake(commands, "sacctmgr", "true")
    text = 'case "$(cat "$2")" in ' + refuses + ") echo 'allocation failure: QOSMaxSubmit' >&2; exit 1;; esac"
    fake(commands, "sbatch", text)
    lines, _, may = site_query.site_lines(changed(slice=None, needs_gpu=False), 48, None)
    assert may == submittable
    assert (lines[-1].level, "QOSMaxSubmit" in lines[-1].finding) == ("problem", True)


def test_no_controller_ends_nothing_but_its_own_lines(
    commands: Path, small: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(commands, "scontrol", "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1")
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({"executor": "slurm", "partition": "gpu"}))
    assert page.show_doctor(grid_request(small()), str(profile)) == 1
    shown = capsys.readouterr().out
    assert "problem  SLURM " in shown
    assert "Unable to contact slurm controller" in shown
    assert "\nok       locks " in shown
    assert "\nwarning  node    not checked" in shown
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("lead_s", "level", "advice"),
    [
        (14, "problem ", "set signal_lead_s to 75 or more"),
        (16, "warning ", "less than 60 s"),
        (90, "ok      ", "15.0 s"),
    ],
)
def test_what_a_program_gets_of_the_lead_time(
    commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lead_s: int, level: str, advice: str
) -> None:
    """Its supervisor kills it 15 s before SLURM does."""
    fake(commands, "scontrol", scontrol(tmp_path))
    for command in ("sinfo", "sacct", "sacctmgr", "sbatch"):
        fake(commands, command, "true")
    file = str(write_project(tmp_path / "mine"))
    request = train_request(load_program(file), file)
    profile = tmp_path / "site.yaml"
    profile.write_text(yaml_file.dump_yaml({"executor": "slurm", "partition": "gpu", "signal_lead_s": lead_s}))
    page.show_doctor(request, str(profile), node=False)
    lines = capsys.readouterr().out.splitlines()
    (at,) = (number for number, line in enumerate(lines) if " lead time " in line)
    assert lines[at].startswith(level)
    assert advice in " ".join(" ".join(lines[at : at + 2]).split())


def submitted(commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> tuple[Line, str]:
    """The node's line where its job is in this state, and what scancel was given."""
    cancelled = tmp_path / "cancelled"
    fake(commands, "sbatch", "echo 'no module named cuda' > \"$(dirname \"$2\")/7_0_log.err\"; echo '7;cluster'")
    fake(commands, "squeue", f"echo '7|name|{state}|Priority|0:10'")
    fake(commands, "scancel", f'echo "$@" > "{cancelled}"')
    monkeypatch.setattr(probe, "_QUEUE_POLL_S", 0.0)
    monkeypatch.setattr(probe, "_FILES_TIMEOUT_S", -1.0)
    place = tmp_path / ".doctor-x"
    place.mkdir()
    (line,) = page._node_lines(place, PROFILE, "gpu:1g.12gb:1", 0.0)
    return line, cancelled.read_text()


def test_a_full_cluster_is_no_problem_of_the_site(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, cancelled = submitted(commands, tmp_path, monkeypatch, "PENDING")
    assert (line.level, "(reason: Priority)" in line.finding) == ("warning", True)
    assert "--no-node" in line.advice
    assert cancelled == "--quiet 7\n"


def test_a_task_that_ends_without_a_report(commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line, _ = submitted(commands, tmp_path, monkeypatch, "FAILED")
    assert (line.level, line.finding) == ("problem", "job 7 is FAILED without a report: no module named cuda")


def test_without_a_scheduler(small: Callable[..., Config], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert page.show_doctor(grid_request(small()), "local") == 0
    shown = capfd.readouterr().out
    assert "not checked: the profile runs tasks on this machine" in shown
    for topic in ("python", "rename", "locks", "task: device", "task: network"):
        assert f"\nok       {topic} " in shown
    for topic in ("runs", "space", "task: torch", "task: room"):
        assert f"  {topic} " in shown
    assert "node: " not in shown
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_local_task_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_call", lambda folder: ["no_such_module"])
    line = page.examine(tmp_path / "runs", Profile(executor="local"), 1)[-1]
    assert (line.level, line.finding.partition(":")[0]) == ("problem", "the task ended with exit code 1")
    assert "No module named no_such_module" in line.finding


def test_a_runs_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines = page.examine(tmp_path / "file" / "runs", Profile(executor="local"), 1)
    assert (lines[-1].topic, lines[-1].level) == ("runs", "problem")
    assert "Not a directory" in lines[-1].finding


def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60
    lines = [Line("ok", "a", "fine"), Line("warning", "topic", long, long), Line("problem", "b", "bad", "fix it")]
    print_page("title", lines)
    shown = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in shown) <= 120
    assert shown[0] == "title"
    assert shown[1] == "ok       a      fine"
    assert shown[-3:] == ["problem  b      bad", "                -> fix it", "1 ok, 1 warning, 1 problem"]
    assert sum(line.startswith(" " * 16 + "-> ") for line in shown) == 2
    assert count_levels([Line("warning", "a", "b")] * 2) == "0 ok, 2 warnings"
