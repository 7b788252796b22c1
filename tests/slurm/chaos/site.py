"""What the campaign observes of the cluster and the runs, and the tools with which it injects faults."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.processes import descendants, start_ticks
from relay.config import yaml_file
from relay.program.states import list_states
from relay.runs.attempt import last_attempt
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.sweeps import sweeps
from relay.scripts.checkpoints import find_checkpoints
from tests.conftest import ROOT, SMALL
from tests.scripts import RESTART, TRAIN, write_script
from tests.slurm.conftest import PROFILE, Cluster, on_profile

TIME_MIN = int(PROFILE["time_min"])
DISK_MB = 96
# What a round is a grid of: trainings on images, a user's function, the 27 cells of examples/char_lm, or a script that
# knows nothing of Relay.
WORKS = ("images", "program", "example", "command")
# The sections that an experiment on images and one of a program have alike.
_OF_BOTH = ("checkpoint", "paths")


# A line that a full disk has cut off does not spoil the next one.
ROBUST = TRAIN.replace('print(json.dumps({"step"', 'print("\\n" + json.dumps({"step"')


def states_of(run: RunDir) -> list[Path]:
    """What a run can resume from, newest first: its own states, or the checkpoints of its script."""
    scripts = find_checkpoints(run.work, RESTART["checkpoint"]) if run.work.is_dir() else []
    return [*list_states(run.checkpoints), *(each.path for each in scripts)]


@dataclass(frozen=True)
class Row:
    """One task in the queue."""

    job_id: str
    state: str
    reason: str
    node: str
    limit: str


@dataclass(frozen=True)
class Worker:
    """A process that executes a run now, and its task."""

    run: RunDir
    attempt: int
    pid: int
    row: Row
    has_saved: bool


@dataclass
class Site:
    """The cluster, the experiments in its folder, and what the campaign has broken at the moment."""

    cluster: Cluster
    folder: Path
    away: set[str] = field(default_factory=set)
    has_disk: bool = False
    disk_full: bool = False
    work: str = "images"
    burners: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def decoded(self) -> Path:
        """Where the images of all runs are."""
        return self.folder / "data" / "decoded"

    @property
    def disk(self) -> Path:
        """The folder of runs and logs: a small disk of its own if one can be mounted."""
        return self.folder / "disk"

    @property
    def runs_dir(self) -> Path:
        return self.disk / "runs"

    @property
    def filler(self) -> Path:
        return self.disk / "filler"

    def experiment_of(self, work: str) -> Path:
        """The experiment of a work of `WORKS`."""
        return self.folder / work / "relay.yaml"

    @property
    def experiment(self) -> Path:
        """That of the current round."""
        return self.experiment_of(self.work)

    @property
    def profile(self) -> Path:
        return self.folder / "profile.yaml"

    def prepare(self, cells: int, epochs: int) -> None:
        """Write the experiment's files, and mount the small disk if that is allowed."""
        self.disk.mkdir(parents=True)
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "relay-chaos", str(self.disk)]
        self.has_disk = shutil.which("mount") is not None and quiet(mounting) == 0
        content = self._content(cells, epochs)
        images = self.experiment_of("images")
        images.parent.mkdir()
        images.write_text(yaml_file.dump_yaml(content))
        for work in ("program", "example"):
            file = self.experiment_of(work)
            shutil.copytree(ROOT / "examples" / "char_lm", file.parent)
            example = yaml_file.read_mapping(file)
            params = {"steps": 40 * epochs, **({"width": 16} if work == "program" else {})}
            axes = {"seed": list(range(cells))} if work == "program" else example["hparams"]
            own = {"params": params, "hparams": {**axes, "tag": work}}
            file.write_text(yaml_file.dump_yaml({**example, **own, **{key: content[key] for key in _OF_BOTH}}))
        script = {"program": {"command": "python train.py {args}", "restart": RESTART, "name": "command"}}
        axes = {"lr": [round(0.01 * 1.5**number, 6) for number in range(cells)], "tag": "command"}
        params = {"steps": 40 * epochs, "pause": 0.005, "save-every": 40}
        both = {"hparams": axes, "params": params, **{key: content[key] for key in _OF_BOTH}}
        write_script(self.experiment_of("command").parent, ROBUST, **script, **both)
        self.profile.write_text(yaml_file.dump_yaml({**PROFILE, "signal_lead_s": 90, "max_parallel": 2}))

    def _content(self, cells: int, epochs: int) -> dict[str, Any]:
        images = {"root": str(self.folder / "data"), "synthetic_train_per_class": 100}
        rates = [round(0.001 * 1.5**number, 6) for number in range(cells)]
        return {
            **SMALL,
            "dataset": {**SMALL["dataset"], **images},
            "hparams": {"epochs": epochs, "lr": rates, "tag": "images"},
            "checkpoint": {"every_steps": 40},
            "metrics": {"log_every_steps": 10},
            "paths": {
                "runs_dir": str(self.runs_dir),
                "artifacts_dir": str(self.folder / "artifacts"),
                "logs_dir": str(self.disk / "logs"),
            },
        }

    def close(self) -> None:
        self.cool()
        if self.has_disk:
            quiet(["umount", "--lazy", str(self.disk)])

    def sweeps(self) -> list[SweepDir]:
        return sweeps(self.runs_dir)

    def runs(self) -> list[RunDir]:
        """The runs of the newest sweep; empty before the first one exists."""
        made = self.sweeps()
        return made[-1].runs() if made else []

    def ask(self, *command: str) -> str | None:
        """Stdout of a SLURM command; None if it fails, and at once while the controller is stopped."""
        if "slurmctld" in self.away:
            return None
        try:
            ended = subprocess.run(
                command, env=self.cluster.env, capture_output=True, text=True, timeout=90, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        return ended.stdout if ended.returncode == 0 else None

    def queue(self) -> list[Row] | None:
        """The tasks of all runs; None if the controller does not answer."""
        text = self.ask("squeue", "-h", "-r", "-p", "gpu", "-o", "%i|%T|%r|%N|%l")
        return None if text is None else [Row(*line.split("|")) for line in text.splitlines()]

    def resume(self, node: str) -> bool:
        """Resume a node that is down or drained. One whose slurmd has come back is up already. False: try again."""
        state = self.ask("sinfo", "-h", "-N", "-n", node, "-p", "gpu", "-o", "%T")
        if state is None or not ("down" in state or "drain" in state):
            return state is not None
        return self.ask("scontrol", "update", f"nodename={node}", "state=resume") is not None

    def workers(self, rows: Sequence[Row]) -> list[Worker]:
        """The runs that a process of a running task executes now."""
        running = {row.job_id: row for row in rows if row.state == "RUNNING"}
        found = []
        for run in self.runs():
            last = last_attempt(run.attempts())
            row = running.get(last.job) if last else None
            if row and not last.ended and start_ticks(last.pid) is not None:
                states = states_of(run)
                has_saved = bool(states) and states[0].stat().st_mtime > last.start
                found.append(Worker(run, last.number, last.pid, row, has_saved))
        return found

    def raw_id(self, job_id: str) -> str | None:
        """The job id that a node uses for an array element."""
        text = self.ask("scontrol", "--oneliner", "show", "job", job_id) or ""
        return next((word.removeprefix("JobId=") for word in text.split() if word.startswith("JobId=")), None)

    def step_daemons(self, worker: Worker) -> dict[str, int]:
        """Pids of the slurmstepd's of a task: `batch` for the script, `0` for the step that computes."""
        number = self.raw_id(worker.row.job_id)
        names = {f"slurmstepd: [{number}.{step}]": step for step in ("batch", "0")}
        return {names[name]: pid for pid in pids() if (name := command_of(pid)) in names}

    def family(self, worker: Worker) -> list[int]:
        """The pids of the task's slurmstepds and of all their descendants."""
        roots = self.step_daemons(worker).values()
        return [*roots, *descendants(roots)]

    def daemon(self, action: str, label: str, *options: str) -> None:
        """`python -m hpc.one_machine stop|start LABEL`, as an administrator types it."""
        command = ["hpc.one_machine", action, label, "--name", self.cluster.name, *options]
        ended = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
        )
        assert ended.returncode == 0, ended.stderr
        (self.away.add if action == "stop" else self.away.discard)(label)

    @property
    def env(self) -> dict[str, str]:
        """The environment of the user's commands."""
        return {**self.cluster.env, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def launch(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        """`python -m hpc.launch WORDS` in the background; what it prints goes to `log`."""
        given = [*on_profile(self.profile, *words), "--config", str(self.experiment)]
        command = [sys.executable, "-m", "hpc.launch", *given]
        with log.open("wb") as output:
            return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m WORDS`, until it ends."""
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120, check=False)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`python -m WORDS` in the background, until it is killed."""
        nowhere = subprocess.DEVNULL
        return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=self.env, stdout=nowhere, stderr=nowhere)

    def burn(self, count: int) -> bool:
        """Keep the cores busy with `count` processes; False if they are already."""
        if self.burners:
            return False
        self.burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        return True

    def cool(self) -> None:
        """Stop the processes that `burn` started."""
        for burner in self.burners:
            burner.kill()
            burner.wait()
        self.burners.clear()

    def fill_disk(self, left_bytes: int) -> None:
        """Fill the disk until only `left_bytes` are free."""
        with self.filler.open("wb") as file:
            for _ in range(100):
                room = os.statvfs(self.disk)
                # Runs keep writing: space that was free a moment ago may be taken.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_frsize - left_bytes, 1))
                    break
        self.disk_full = True

    def free_disk(self) -> None:
        self.filler.unlink()
        self.disk_full = False


def quiet(command: Sequence[str]) -> int:
    """The exit code of a command whose output does not matter."""
    return subprocess.run(command, capture_output=True, check=False).returncode


def pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def command_of(pid: int) -> str:
    """The command line of a process, or "" if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def send(victims: Sequence[int], number: signal.Signals) -> None:
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(victims: Sequence[int]) -> None:
    """`kill -9`, and wait until they are gone."""
    send(victims, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(start_ticks(pid) is not None for pid in victims) and time.monotonic() < deadline:
        time.sleep(0.02)
