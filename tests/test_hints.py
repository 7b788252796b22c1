"""Every command that a message suggests runs when it is pasted, and has the profile of its sweep."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hpc.pipeline.directory import all_pipelines
from relay import hints
from relay.config import yaml_file
from relay.errors import RunError
from relay.files import replace_file
from relay.runs.planning_lock import folder_lock
from relay.runs.sweeps import open_sweep, sweeps
from src.config.schema import Config
from tests.conftest import ROOT, command_environment, fake, site_path
from tests.fork_server import fork_python
from tests.results.tables.test_table import finish
from tests.submission.test_submit import SBATCH, SQUEUE, TAKE

Done = subprocess.CompletedProcess[str]
ONE_CELL = ["--set", "hparams.lr=[0.001]", "--set", "hparams.num_modules=[1]"]
SUBMIT = ("train", "lr-sweep", "grid", "evaluate")


def hints_in(text: str) -> list[str]:
    """The commands in a message. Each ends at the end of its line, or before the next part of the sentence."""
    return re.findall(rf"{re.escape(hints.python('X').split()[0])} -m .*?(?=; |$)", text, re.M)


def paste(hint: str, env: Mapping[str, str] | None = None) -> Done:
    """Run a hint in a shell, as a dry run if it would submit. Its options must all exist."""
    interpreter, minus_m, *words = shlex.split(hint)
    assert (Path(interpreter).name[:6], minus_m) == ("python", "-m")
    dry = ["--dry-run"] if words[0] == "hpc.launch" and words[1] in SUBMIT else []
    done = fork_python(*words, *dry, env=dict(env) if env else None)
    assert "Usage" not in done.stderr, hint
    assert "Traceback" not in done.stderr, hint
    return done


def only(found: list[str], part: str) -> str:
    fitting = [hint for hint in dict.fromkeys(found) if part in hint]
    assert len(fitting) == 1, found
    return fitting[0]


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A site's own profile, in a folder with a space in its name."""
    path = tmp_path / "my sites" / "mysite.yaml"
    path.parent.mkdir()
    path.write_text(yaml_file.dump_yaml({"executor": "local"}))
    return path


def strings_of(path: Path) -> list[tuple[int, str]]:
    """Line and text of the strings in a module, without docstrings."""
    tree = ast.parse(path.read_text())
    with_docs = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, with_docs) and _has_doc(node)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]


def _has_doc(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


def test_no_message_writes_a_command_by_itself() -> None:
    targets = "|".join(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    # A string that is only an option is an argument of a hint. In a sentence, it does not help a user who typed `make`.
    command = re.compile(
        rf"python3? -m |\bmake (-\S+ )*({targets})\b|--(fresh|new-code|unfinished)\b(?!$)|command_line"
    )
    allowed = {"--fresh", "--new-code", "--unfinished"}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for layer in ("relay", "src", "jobs", "hpc")
        for path in sorted((ROOT / layer).rglob("*.py"))
        if path != ROOT / "relay" / "hints.py"
        for line, text in strings_of(path)
        if command.search(text) and text not in allowed
    ]
    assert found == []


def test_a_command_is_given_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [
        "hpc.launch",
        "grid",
        "--config",
        "my runs/a.yaml",
        "--cluster",
        "mysite",
        "--set",
        "hparams.lr=[1e-3, 2e-3]",
    ]
    monkeypatch.setattr(hints, "_words_of_this_process", lambda: [*typed, "--fresh", "--trust"])
    monkeypatch.setattr(hints, "_options", [])
    hints.typed("my runs/a.yaml", ["hparams.lr=[1e-3, 2e-3]"])
    config = ["--config", "my runs/a.yaml", "--set", "hparams.lr=[1e-3, 2e-3]"]
    asked = [*typed[:4], *typed[6:], "--cluster", "mysite"]
    assert shlex.split(hints.again())[2:] == asked
    assert shlex.split(hints.again("--fresh"))[2:] == [*asked, "--fresh"]
    assert shlex.split(hints.again("--cluster", "local"))[2:] == [*typed[:4], *typed[6:], "--cluster", "local"]
    status = shlex.split(hints.command("hpc.launch", "status", "x"))[2:]
    assert status == ["hpc.launch", "status", "x", *config], "it is of no profile"
    retry = shlex.split(hints.command("hpc.launch", "retry", "--failed"))[2:]
    assert retry == ["hpc.launch", "retry", "--failed", *config, "--cluster", "mysite"]
    assert shlex.split(hints.command("src.compare_runs"))[2:] == ["src.compare_runs", *config]
    kept = {"call": hints.to_keep("grid", "another")}
    monkeypatch.setattr(hints, "_words_of_this_process", lambda: ["hpc.launch", "retry", "--failed"])
    of_the_sweep = [*typed[:4], *typed[6:], "--cluster", "another"]
    assert shlex.split(hints.again(saved=kept))[2:] == of_the_sweep
    with hints.acting_for(kept):
        assert shlex.split(hints.again())[2:] == of_the_sweep
    assert shlex.split(hints.again())[2:] == ["hpc.launch", "retry", "--failed"]


@pytest.mark.parametrize(
    "call",
    [
        None,
        [],
        {},
        {"module": "http.server", "arguments": [], "options": [], "cluster": None},
        {"module": "", "arguments": [], "options": [], "cluster": None},
        {"module": "src.train", "arguments": [1], "options": [], "cluster": None},
        {"module": "src.train", "arguments": "--fresh", "options": [], "cluster": None},
        {"module": "src.train", "arguments": [], "options": [], "cluster": ["h100-mig"]},
        {"module": "src.train", "arguments": [], "options": None, "cluster": None},
        {"module": "src.train", "arguments": [], "options": [], "cluster": None, "more": 1},
    ],
)
def test_a_call_that_no_command_saved_is_refused(call: object, small: Callable[..., Config]) -> None:
    from src.requests import grid_request

    sweep = open_sweep(grid_request(small()))[0]
    replace_file(sweep.meta_file, yaml_file.dump_yaml({**sweep.meta(), "call": call}))
    with pytest.raises(RunError, match=r"sweep.yaml: call"):
        sweep.meta()


def test_the_interpreter_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "with space" / "python"))
    assert hints.python("src.train") == "'with space/python' -m src.train"
    monkeypatch.setattr(sys, "executable", "/elsewhere/bin/python3")
    assert hints.python("src.train") == "/elsewhere/bin/python3 -m src.train"
    (tmp_path / "python").symlink_to("/bin/true")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert hints.python("src.train") == "python -m src.train"


def test_where_there_is_nothing_yet_the_way_to_it_is_said(small_file: Path) -> None:
    given = ["--config", str(small_file), "--set", "train.epochs=1"]
    for words in (["hpc.launch", "status"], ["src.compare_runs"], ["src.train", "--best"], ["src.evaluate"]):
        refused = fork_python(*words, *given)
        assert refused.returncode == 2
        (hint,) = hints_in(refused.stderr)
        done = paste(hint)
        assert done.returncode == 0, done.stderr
        assert str(small_file.parent) in done.stdout
    # In a real shell, because it interprets the quotes.
    done = subprocess.run(
        ["bash", "-c", f"{hint} --dry-run"],
        cwd=ROOT,
        env=command_environment(None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_sweep_remembers_its_profile_and_every_hint_on_its_way_runs(
    small: Callable[..., Config], small_file: Path, profile: Path, tmp_path: Path
) -> None:
    given = ["--config", str(small_file), "--set", "hparams.epochs=1", *ONE_CELL]
    grid = ["hpc.launch", "grid", *given]
    one = small(hparams__epochs=1, hparams__lr=[0.001], hparams__num_modules=[1])
    # Plan the sweep and damage its only run.
    from src.requests import grid_request

    sweep = open_sweep(grid_request(one))[0]
    run = sweep.runs()[0]
    whole = run.config_file.read_text()
    run.config_file.write_text(whole.replace("lr: 0.001", "lr: -1"))

    crashed = fork_python(*grid, "--cluster", str(profile))
    assert crashed.returncode == 2
    assert sweep.meta()["call"]["cluster"] == str(profile)
    assert "train.optimizer.lr: -1" in paste(only(hints_in(crashed.stderr), "launch logs")).stdout
    retry = only(hints_in(crashed.stderr), "launch retry")
    status = fork_python("hpc.launch", "status", *given)
    assert hints_in(status.stdout) == [retry.partition(" --cluster")[0] + f" --cluster '{profile}'"]

    # Without --cluster, the profile of the sweep is used.
    run.config_file.write_text(whole)
    fixed = fork_python("hpc.launch", "retry", "--failed", *given)
    assert fixed.returncode == 0, fixed.stderr
    assert f"on profile {profile}" in fixed.stdout
    assert run.result() is not None
    nothing = paste(retry)
    assert nothing.returncode == 0
    assert "no failed run; 1 done" in nothing.stdout

    # Done on one profile, requested on another.
    again = fork_python(*grid, "--cluster", "local")
    assert again.returncode == 0, again.stderr
    assert f"done before, on profile {profile}; to run it again from the start on profile local: " in again.stdout
    anew = paste(only(hints_in(again.stdout), "--fresh"))
    assert "1 run of grid" in anew.stdout
    assert "(new); 1 to do" in anew.stdout
    assert "profile local" in anew.stdout
    in_front = fork_python("src.grid_search", *given)
    assert "done before" in in_front.stdout
    assert paste(only(hints_in(in_front.stdout), "--fresh")).returncode == 0
    assert len(sweeps(tmp_path / "runs")) == 2

    # Its code is gone before it is done.
    run.result_file.unlink()
    run.attempts_file.unlink()
    kept = {**sweep.meta(), "snapshot": "0" * 12}
    replace_file(sweep.meta_file, yaml_file.dump_yaml(kept))
    sweeps(tmp_path / "runs")[-1].path.rename(tmp_path / "the other one")
    for words in (grid, ["src.grid_search", *given]):
        refused = fork_python(*words)
        assert refused.returncode == 2
        for option in ("--new-code", "--fresh"):
            hint = only(hints_in(refused.stderr), option)
            # Of the sweep, whoever continues it.
            assert "hpc.launch grid" in hint
            assert "profile" in paste(hint).stdout
    idle = fork_python("hpc.launch", "status", *given)
    assert "1 to do" in paste(only(hints_in(idle.stdout), "launch grid")).stdout
    on_new_code = fork_python("src.grid_search", *given, "--new-code")
    assert on_new_code.returncode == 0, on_new_code.stderr
    assert run.result() is not None
    assert sweep.meta()["call"]["cluster"] == "local"


def test_a_status_that_names_nothing_says_what_it_shows(small: Callable[..., Config], small_file: Path) -> None:
    from src.requests import grid_request, lr_sweep_request

    first = open_sweep(lr_sweep_request(small()))[0]
    second = open_sweep(grid_request(small()))[0]
    done = fork_python("hpc.launch", "status", "--config", str(small_file))
    assert f"{second.name} is the newest of 2; the others: {first.name}" in done.stdout
    other = paste(only(hints_in(done.stdout), f"status {first.name}"))
    assert "1 run: 1 new" in other.stdout
    assert "is the newest" not in other.stdout
    several = fork_python("hpc.launch", "logs", second.name, "--config", str(small_file))
    none_yet = paste(only(hints_in(several.stderr), "launch logs"))
    assert paste(only(hints_in(none_yet.stderr), "launch status")).returncode == 0


def test_a_grid_that_is_not_complete_is_finished_or_taken_as_it_is(
    small: Callable[..., Config], small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from src.requests import grid_request

    given = ["--config", str(small_file)]
    monkeypatch.setattr(hints, "_options", ["--config", str(small_file)])
    sweep = open_sweep(grid_request(small()))[0]
    finish(sweep.runs()[0], 0.5)
    for words in (["hpc.launch", "train", "--best"], ["hpc.launch", "grid", "--refined"]):
        refused = fork_python(*words, *given, "--cluster", "local")
        assert refused.returncode == 2
        finish_it, take_it = hints_in(refused.stderr)
        finished = paste(finish_it)
        assert "4 runs of grid" in finished.stdout
        assert "; 3 to do" in finished.stdout
        assert take_it.endswith("--cluster local --unfinished")
        taken = paste(take_it)
        assert taken.returncode == 0, taken.stderr
        assert f" of {words[1]} in " in taken.stdout
    assert fork_python("hpc.launch", "cancel", sweep.name, *given).returncode == 0
    idle = fork_python("hpc.launch", "status", sweep.name, *given)
    assert "3 cancelled" in idle.stdout
    assert "; 3 to do" in paste(only(hints_in(idle.stdout), "launch grid")).stdout


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """The environment of a site whose sbatch and squeue keep a queue; scancel writes down what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "sinfo": "echo gpu:1g.12gb:7",
        "scontrol": "echo 'MaxArraySize            = 1001'",
        "squeue": SQUEUE,
        "sbatch": SBATCH.replace("MOMENT", TAKE),
        "srun": "exit 1",
        "scancel": f'echo "$@" >> "{tmp_path}/cancelled"',
    }
    for name, program in programs.items():
        fake(folder, name, program)
    return {"PATH": site_path(folder), "QUEUE": str(tmp_path / "queue")}


def test_a_pipeline_is_seen_followed_and_stopped_by_its_name(
    site: dict[str, str], small_file: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "site.yaml"
    more = {"reservation": "course"}
    profile.write_text(yaml_file.dump_yaml({"executor": "slurm", "slice": "1g.12gb", "sbatch": more}))
    given = ["--config", str(small_file)]
    started = fork_python("hpc.launch", "pipeline", *given, "--cluster", str(profile), env=site)
    assert started.returncode == 0, started.stderr
    for hint in hints_in(started.stdout + started.stderr):
        assert paste(hint, site).returncode == 0
    (pipeline,) = all_pipelines(tmp_path / "runs")
    (sweep,) = sweeps(tmp_path / "runs")
    (script,) = pipeline.jobs.glob("*.sh")
    expected = "--requeue --reservation=course --cpus-per-task=1 --mem=2G --time=20 --dependency=afterany:101"
    assert {f"#SBATCH {option}" for option in expected.split()} <= set(script.read_text().splitlines())
    assert "--gres" not in script.read_text()

    status = fork_python("hpc.launch", "status", *given, env=site)
    assert status.returncode == 0, status.stderr
    for shown in (pipeline.name, "lr_sweep", "submitted", sweep.name, "0/1", "101: 1 PENDING", "evaluate", "waits"):
        assert shown in status.stdout
    assert "job 102_0 PENDING Resources continues it" in status.stdout
    runs = paste(only(hints_in(status.stdout), f"{pipeline.name}/lr_sweep"), site)
    assert "1 run: 1 queued" in runs.stdout
    no_log = fork_python("hpc.launch", "logs", f"{pipeline.name}/lr-sweep", *given, env=site)
    assert "no job of it has started yet" in no_log.stderr
    (tmp_path / "logs" / sweep.name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "logs" / sweep.name / "101_0_log.out").write_text("at work\n")
    log = fork_python("hpc.launch", "logs", f"{pipeline.name}/lr_sweep", *given, env=site)
    assert log.stdout.splitlines()[-1] == "at work"
    unknown = fork_python("hpc.launch", "logs", f"{pipeline.name}/tests", *given, env=site)
    assert "its stages: lr_sweep, grid, train, evaluate" in unknown.stderr
    early = fork_python("hpc.launch", "status", f"{pipeline.name}/grid", *given, env=site)
    assert paste(only(hints_in(early.stderr), "status"), site).returncode == 0

    stopped = fork_python("hpc.launch", "cancel", pipeline.name, *given, env=site)
    assert stopped.returncode == 0, stopped.stderr
    assert "cancelled 2 tasks" in stopped.stdout
    assert [line.split()[1:] for line in (tmp_path / "cancelled").read_text().splitlines()] == [["102_0"], ["101_0"]]
    assert all(run.cancelled() for run in sweep.runs())
    assert pipeline.stage_records()["lr_sweep"].state == "cancelled"
    (tmp_path / "queue").write_text("")
    shown = fork_python("hpc.launch", "status", "pipeline", *given, env=site)
    assert "cancelled" in shown.stdout
    # Its own profile, without --cluster.
    again = paste(only(hints_in(shown.stdout), "launch pipeline"), site)
    assert again.returncode == 0, again.stderr
    assert f"profile {profile}" in again.stdout
    assert pipeline.stage_records()["lr_sweep"].state == "submitted"
    assert [line.split()[1] for line in (tmp_path / "queue").read_text().splitlines()] == ["1", "1"]
    unnamed = fork_python("hpc.launch", "pipeline", *given, env=site)
    assert f"profile {profile}" in unnamed.stdout
    retry = fork_python("hpc.launch", "retry", sweep.name, "--failed", *given, env=site)
    assert "no failed run; 1 in the queue" in retry.stdout

    (tmp_path / "queue").write_text("")
    with folder_lock(pipeline.path):
        working = fork_python("hpc.launch", "status", *given, env=site)
    assert "a process is continuing it now" in working.stdout
    (run,) = sweep.runs()
    run.record_attempt(1, start=1.0, job="101", cluster="c")
    run.record_attempt(1, end=2.0, cause="CRASHED", error="no images", first_step=0, last_step=1)
    failed = fork_python("hpc.launch", "pipeline", *given, env=site)
    assert failed.returncode == 2
    assert f"{pipeline.name} stops at lr_sweep: 1 of 1 run failed" in failed.stderr
    seen = fork_python("hpc.launch", "status", *given, env=site)
    assert hints_in(failed.stderr) == hints_in(seen.stdout)[: len(hints_in(failed.stderr))]
    which = fork_python("hpc.launch", "retry", pipeline.name, *given, env=site)
    for hint in (only(hints_in(failed.stderr), "launch retry"), only(hints_in(which.stderr), "--failed")):
        assert shlex.split(hint)[3] == "retry"
    again = paste(hint, site)
    assert again.returncode == 0, again.stderr
    assert f"on profile {profile}" in again.stdout
    assert "1 submitted" in again.stdout


def test_a_damaged_pipeline_is_passed_over(small: Callable[..., Config], small_file: Path, tmp_path: Path) -> None:
    from src.requests import grid_request

    sweep = open_sweep(grid_request(small()))[0]
    for number, text in enumerate(("", "key: [", "key: 1\n")):
        path = tmp_path / "runs" / f"pipeline_{number}" / "pipeline.yaml"
        path.parent.mkdir()
        path.write_text(text)
    done = fork_python("hpc.launch", "status", "--config", str(small_file))
    assert done.returncode == 0, done.stderr
    assert sweep.name in done.stdout
    assert done.stderr.count("skipped: ") >= 3


def test_a_pipeline_may_have_a_limit(
    small: Callable[..., Config], small_file: Path, site: dict[str, str], tmp_path: Path
) -> None:
    from src.requests import grid_request

    sweep = open_sweep(grid_request(small()))[0]
    for run in sweep.runs():
        run.record_attempt(1, start=0.0, total_steps=12)
        run.record_attempt(1, end=3600.0, cause="DONE", first_step=0, last_step=12, save_s=1.0)
        run.write_result({"steps": 12})
    words = ["hpc.launch", "pipeline", "--config", str(small_file), "--cluster", "local", "--fresh"]
    refused = fork_python(*words, "--max-slice-hours", "3", env=site)
    assert refused.returncode == 2
    assert "--max-slice-hours 3: nothing was submitted; forecast: " in refused.stderr
    assert all_pipelines(tmp_path / "runs") == []


@pytest.mark.parametrize("target", ["train", "lr", "grid", "refine", "evaluate", "pipeline"])
def test_make_starts_anew_where_it_is_told_so(target: str) -> None:
    for given, expected in (["FRESH=1"], True), (["FRESH=0"], False), ([], False):
        command = ["make", "-n", target, "CONFIG=configs/demo.yaml", "CLUSTER=one-machine", *given]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        line = next(line for line in done.stdout.splitlines() if "hpc.launch" in line)
        assert (" --fresh" in line, "--cluster one-machine" in line) == (expected, True)


@pytest.mark.parametrize("words", [["hpc.launch", "status"], ["src.train", "--config", "a b.yaml"], ["hpc.aggregate"]])
def test_a_python_without_the_packages_says_what_to_do(words: list[str]) -> None:
    # -S: without site-packages, like a system Python that has none of these packages.
    bare = [sys.executable, "-S", "-m", *words]
    done = subprocess.run(bare, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "lacks the packages of this project" in line
    assert line.endswith(shlex.join(words))


@pytest.mark.parametrize("words", [[], ["--fresh"], ["--cluster", "x"], ["--cluster=x"], ["--cluster"]])
def test_a_command_without_words_has_hints(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program.py", *words])
    assert hints.again("--new-code").endswith(" --new-code")


def test_the_commands_of_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suggested for what was called through it, also by another process, and by one that was called through it."""
    options = ["--config", "relay.yaml"]
    saved = {"call": {"module": "relay", "arguments": ["grid", *options], "options": options, "cluster": "mine"}}
    assert hints.again(saved=saved) == "relay grid --config relay.yaml --cluster mine"
    with hints.acting_for(saved):
        assert hints.command("hpc.launch", "retry", "--failed") == (
            "relay retry --failed --config relay.yaml --cluster mine"
        )
        assert hints.command("hpc.launch", "status") == "relay status --config relay.yaml"
        assert hints.command("hpc.aggregate") == "relay aggregate --config relay.yaml"
        monkeypatch.setenv("RELAY_COMMAND", "/opt/relay/bin/relay")
        monkeypatch.setenv("RELAY_HOME", "/opt/relay")
        assert hints.command("hpc.launch", "status") == "/opt/relay/bin/relay status --config relay.yaml"
        assert hints.command("src.report") == "/opt/relay/bin/relay report --config relay.yaml"
        assert hints.command("src.lr_finder") == "/opt/relay/bin/relay lr-sweep --config relay.yaml"
        demo = hints.command("src.demo")
        assert demo.startswith("env PYTHONPATH=/opt/relay PYTHONSAFEPATH=1 ")
        assert demo.endswith(" -m src.demo --config relay.yaml")
