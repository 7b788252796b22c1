"""Times planning, writing, submitting and status for 10,000 cells; fake SLURM commands count their calls.

    python -m tests.benchmarks.scale [--cells 10000] [--grid product|rates] [--folder DIR]

Prints seconds, CPU seconds of all processes, and the ratio to a yardstick measured in the same run, because the speed
of a shared machine varies. Then it prints how often each SLURM command was called, for a tenth of the cells and for all
of them. `product` spans the report's axes; in `rates` no two cells have the same `train` section.

Exit code 1 if a command fails, if sbatch is called more often than MaxArraySize requires, if another command is called
more often for more cells (squeue: and once for each array), or if status imports torch.

ext4 creates files slowly for minutes after many were deleted; this slows down the yardstick too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.submission.execute import execute
from hpc.submission.profile import load_profile
from hpc.submission.site import ask_site
from relay.config.yaml_file import dump_yaml
from relay.runs.sweeps import open_sweep
from src.config.loading import load_config, make_config
from src.requests import grid_request
from tests.conftest import ROOT, SMALL, fake, site_path

MAX_ARRAY_SIZE = 1001
# Every n-th cell is measured, and the time scaled, if each cell is built separately.
EVERY = 20


class FakeSite:
    """Fake SLURM commands for launch and status. Each call appends a line to a file."""

    def __init__(self, folder: Path, max_array_size: int = MAX_ARRAY_SIZE) -> None:
        self._calls, self.bin, queue = folder / "calls", folder / "bin", folder / "queue"
        for made in (self.bin, queue):
            made.mkdir(parents=True)
        scripts = {
            "sbatch": f"""
                option() {{ sed -n "s/^#SBATCH --$1=//p" "$script"; }}
                script="${{@: -1}}" name=$(script=$script option job-name) last=$(option array)
                last=${{last#0-}} last=${{last%\\%*}} id=$((1000 + $(ls '{queue}' | wc -l)))
                if [ "${{last:-0}}" -ge {max_array_size} ]; then
                    echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2; exit 1
                fi
                seq -f "$id${{last:+_%.0f}}|$name|PENDING|Priority|1:00:00" 0 "${{last:-0}}" > "{queue}/$name"
                echo "Submitted batch job $id" """,
            "squeue": f"""
                while [ $# -gt 0 ]; do [ "$1" = -n ] && names=$2; shift; done
                for name in ${{names//,/ }}; do cat "{queue}/$name"; done""",
            "scontrol": f"echo 'MaxArraySize            = {max_array_size}'",
            "sinfo": "echo gpu:1g.12gb:7",
            **dict.fromkeys(("sacct", "scancel", "srun"), ""),
        }
        for name, script in scripts.items():
            fake(self.bin, name, f"echo {name} >> '{self._calls}'\n{script}")
        self._path = site_path(self.bin)

    def environment(self) -> dict[str, str]:
        """The environment of a process that uses these commands."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        return {**outside, "PATH": self._path}

    def take_calls(self) -> Counter[str]:
        """How often each command was called since the previous call of this method."""
        if not self._calls.exists():
            return Counter()
        calls = Counter(self._calls.read_text().split())
        self._calls.unlink()
        return calls


@dataclass(frozen=True)
class Measured:
    """One measurement: seconds, and CPU seconds of the process and its children."""

    wall_s: float
    cpu_s: float


def measure(work: Callable[[], Any]) -> Measured:
    """Do the work once."""
    wall_s, cpu_s = time.perf_counter(), _cpu_s()
    work()
    return Measured(time.perf_counter() - wall_s, _cpu_s() - cpu_s)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write_grid(folder: Path, cells: int, kind: str) -> Path:
    """Write an experiment with `cells` cells on generated images."""
    if kind == "rates":
        axes: dict[str, list[Any]] = {"lr": [(1 + index) / 1e6 for index in range(cells)]}
    else:
        axes = {
            "lr": [(1 + index) / 1e5 for index in range(cells // 40)],
            "batch_size": [8, 16],
            "weight_decay": [0.0, 1e-6, 1e-5, 1e-4, 1e-3],
            "num_modules": [2, 3],
            "branch_channels": [[3, 4, 5], [4, 4, 4]],
        }
    paths = {f"{name}_dir": str(folder / name) for name in ("runs", "artifacts", "logs")}
    dataset = {**SMALL["dataset"], "root": str(folder / "data")}
    path = folder / f"grid-{cells}.yaml"
    path.write_text(dump_yaml({**SMALL, "dataset": dataset, "paths": paths, "hparams": axes}))
    return path


def run(site: FakeSite, *words: str) -> str:
    """`python words...` on a login node of the site. Exits the benchmark if it fails."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=site.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"python {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout + done.stderr


def launch(site: FakeSite, command: str, path: Path, *words: str) -> str:
    """`python -m hpc.launch command` under the profile that comes with the project."""
    placed = [] if command == "status" else ["--cluster", "h100-mig"]
    return run(site, *words, "-m", "hpc.launch", command, "--config", str(path), *placed)


def write_plainly(folder: Path, target: Path) -> None:
    """The yardstick of writing: create the same folders, and files of the same sizes."""
    for place, _, names in os.walk(folder):
        there = target / Path(place).relative_to(folder)
        there.mkdir()
        for name in names:
            with open(there / name, "wb") as file:  # noqa: PTH123
                file.write(bytes(os.path.getsize(f"{place}/{name}")))  # noqa: PTH202


def look_plainly(folder: Path) -> None:
    """The yardstick of status: open two missing files in each folder, as every status has to."""
    for entry in os.scandir(folder):
        for name in ("result.json", "attempts.jsonl"):
            with contextlib.suppress(OSError):
                os.close(os.open(f"{entry.path}/{name}", os.O_RDONLY))


def phases(site: FakeSite, path: Path, folder: Path) -> Iterator[tuple[str, Measured]]:
    """Time planning, writing and submitting in this process, and building the cells one by one."""
    os.environ["PATH"] = site.environment()["PATH"]
    os.environ.pop("SLURM_CONF", None)
    kept: dict[str, Any] = {}

    def plan() -> None:
        kept["config"] = load_config(path, [f"paths.{name}_dir={folder / name}-again" for name in ("runs", "logs")])
        kept["request"] = grid_request(kept["config"])

    def write() -> None:
        kept["sweep"], _ = open_sweep(kept["request"])

    def submit() -> None:
        name, profile = load_profile("h100-mig")
        with contextlib.redirect_stdout(io.StringIO()):
            execute(kept["sweep"], profile, ask_site(name, profile), kept["config"])

    def one_by_one() -> None:
        base = {**kept["config"].to_dict(), "hparams": {}}
        for cell in kept["request"].cells[::EVERY]:
            dump_yaml(make_config(base, "hparams", cell.overrides).to_dict())

    yield from (("planned", measure(plan)), ("written", measure(write)), ("submitted", measure(submit)))
    some = measure(one_by_one)
    yield "cells checked and turned into text one by one", Measured(EVERY * some.wall_s, EVERY * some.cpu_s)


def imports_torch(output: str) -> bool:
    """Whether the output of `-X importtime` contains torch."""
    return any(line.rpartition("|")[2].strip() == "torch" for line in output.splitlines())


def show(name: str, found: Measured, yardstick: Measured | None = None, what: str = "", wanted: str = "") -> None:
    ratio = f"{found.wall_s / yardstick.wall_s:8.2f} x {what}" if yardstick else ""
    print(f"{name:48}{found.wall_s:8.2f} s{found.cpu_s:8.2f} s CPU  {ratio:42} {wanted}".rstrip(), flush=True)


def benchmark(cells: int, kind: str, folder: Path) -> bool:
    """Measure and print. False if something was called or imported that must not be."""
    site = FakeSite(folder)
    fewer = write_grid(folder, cells // 10, kind)
    launch(site, "grid", fewer)  # Also makes the images.
    calls_of_fewer = site.take_calls()
    path = write_grid(folder, cells, kind)
    grid = measure(lambda: launch(site, "grid", path))
    calls = site.take_calls()
    sweep = max((folder / "runs").glob("grid_search_*"), key=lambda made: len(list(made.iterdir())))
    status = measure(lambda: launch(site, "status", path))
    calls_of_status = site.take_calls()
    again = measure(lambda: launch(site, "grid", path))
    calls_of_again = site.take_calls()
    usage = measure(lambda: run(site, "-m", "hpc.launch", "status", "--help"))
    start = measure(lambda: run(site, "-c", "pass"))
    typer = "import typer; app = typer.Typer(); app.command()(lambda name: None); app()"
    typer_usage = measure(lambda: run(site, "-c", typer, "--help"))
    parts = dict(phases(site, path, folder))
    one_by_one = parts.pop("cells checked and turned into text one by one")
    plain = measure(lambda: write_plainly(sweep, folder / "plain-runs"))
    look = measure(lambda: look_plainly(sweep))

    print(f"{cells:,} cells ({kind}), MaxArraySize {MAX_ARRAY_SIZE}, load {os.getloadavg()[0]:.1f}")
    show("grid: the whole command", grid, plain, "the same files, plainly written", "(wanted: under 10 s)")
    for name, found in parts.items():
        sides = (one_by_one, "the cells one by one") if name == "planned" else (plain, "the same files")
        show(f"  {name}", found, *sides)
    show("grid again: nothing to do", again, grid, "the first time")
    show("status", status, look, "asking for two files of each", "(wanted: under 2 s)")
    show("status --help", usage, typer_usage, "typer's own --help", "(wanted: under 0.5 s)")
    show("yardstick: the same files, plainly written", plain)
    show("yardstick: the cells one by one (scaled)", one_by_one)
    show("yardstick: asking for two files of each", look)
    show("yardstick: typer's own --help", typer_usage)
    show("yardstick: python -c pass", start)
    forced = math.ceil(cells / MAX_ARRAY_SIZE)
    print(f"calls for {cells // 10:,} cells: {dict(calls_of_fewer)}")
    print(f"calls for {cells:,} cells: {dict(calls)}; MaxArraySize forces {forced} of sbatch")
    print(f"calls of the same again: {dict(calls_of_again)}; of status: {dict(calls_of_status)}")
    light = not any(
        imports_torch(output)
        for output in (
            launch(site, "status", path, "-X", "importtime"),
            run(site, "-X", "importtime", "-m", "hpc.launch", "status", "--help"),
        )
    )
    print(f"torch imported by status or its --help: {'no' if light else 'yes'}")
    few = calls["sbatch"] <= forced and not calls_of_again["sbatch"]
    # After each sbatch, squeue is asked for the new job.
    others = {name: calls[name] - (calls["sbatch"] if name == "squeue" else 0) for name in calls if name != "sbatch"}
    return light and few and all(count <= calls_of_fewer[name] for name, count in others.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=10_000, help="a multiple of 400")
    parser.add_argument("--grid", choices=("product", "rates"), default="product")
    parser.add_argument("--folder", type=Path, help="where to write (a folder for it is made there, and removed)")
    asked = parser.parse_args()
    if asked.cells < 400 or asked.cells % 400:
        parser.error(f"--cells {asked.cells}: give a multiple of 400")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        return 0 if benchmark(asked.cells, asked.grid, Path(folder)) else 1


if __name__ == "__main__":
    sys.exit(main())
