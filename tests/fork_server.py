"""A fork server for tests: it forks trainings that die at a given point, and commands.

The server has imported everything and computed nothing, so a fork of it behaves like a new Python. Ways to die:

    instruction=n, within=[...]    SIGKILL at the n-th bytecode instruction in these files
name=x, opening=m, byte=k      the kernel kills it at byte k of what it writes after the m-th opening of a file like x
    seconds=s                      SIGKILL after s seconds, in Python or in C
    images=folder                  does not die; saves what a power cut at each moment would leave (power_cut.py)
    lines=[...], copies=folder     does not die; saves what SIGKILL at each line of these functions would leave
"""

from __future__ import annotations

import atexit
import fnmatch
import functools
import importlib
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from tests.conftest import ROOT, command_environment

WARM = "from tests.fork_server import serve; serve()"
# Modules that commands import late, beside those of `import_once`. Not `datasets`, which reads HF_* variables when it
# is imported.
LATE = (
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "pandas", "rich.progress", "rich.table", "scipy.stats"),
    *("typer.core", "src.training.lr_range", "relay.results.tables.table", "relay.figures"),
    *("hpc.submission.launching", "hpc.submission.local_pool"),
)


class ForkServer:
    """The client side: starts the server process and sends requests to it."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", WARM]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """Stop the server."""
        self._process.communicate(timeout=60)

    def train(self, run: Path, **death: Any) -> tuple[int, Any]:
        """Run the training in `run` to its end. Returns the exit code (or minus the signal), and the report or
        traceback.
        """
        self.start(run=str(run), **death)
        return self.wait()

    def python(
        self, words: Sequence[str], environment: Mapping[str, str], timeout_s: int
    ) -> subprocess.CompletedProcess[str]:
        """`python -m words...`, or `python words...` if they begin with -c, in the project, with its output.

        SIGALRM ends it after `timeout_s`.
        """
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("stdout", "stderr")]
            paths = [str(path) for path in files]
            self.start(words=list(words), files=paths, environment=dict(environment), timeout_s=timeout_s)
            code, _ = self.wait()
            stdout, stderr = (path.read_text() if path.exists() else "" for path in files)
        return subprocess.CompletedProcess(list(words), code, stdout, stderr)

    def start(self, **request: Any) -> int:
        """Start the request and return its process id at once. Call `wait` next."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def wait(self) -> tuple[int, Any]:
        """Wait for the end. Returns the exit code (or minus the signal), and the report or traceback."""
        answer = self._answer()
        return answer["code"], answer["report"]

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


@functools.cache
def fork_server() -> ForkServer:
    """The fork server that the tests of this process share."""
    return ForkServer()


def fork_python(
    *words: str, env: dict[str, str] | None = None, timeout_s: int = 240
) -> subprocess.CompletedProcess[str]:
    """Like `run_python`, but faster: in a fork of the server, without a new interpreter."""
    return fork_server().python(words, command_environment(env), timeout_s)


def serve() -> None:
    """The server: forks a child for each line of stdin."""
    for late in LATE:
        importlib.import_module(late)
    from hpc.node.fork import import_once
    from hpc.works import WORKS
    from relay.runs.code_snapshot import code_digest
    from relay.runs.environment import cpu_model, package_versions
    from relay.runs.provenance import code_version

    # What a process finds out once. Kills are spread over what differs from run to run.
    for known in (code_digest, code_version, cpu_model, package_versions):
        known()
    import_once(WORKS["train"])
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            if "words" in request:
                _command(request)
            else:
                _train(request, writing)
        os.close(writing)
        print(pid, flush=True)
        if "seconds" in request:
            time.sleep(request["seconds"])
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading) as file:
            report = file.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code, "report": json.loads(report or "null")}), flush=True)


def _command(request: dict[str, Any]) -> None:
    """Do what the interpreter does for `python -m` or `python -c`, from its start to its end."""
    signal.alarm(request["timeout_s"])
    for target, path in enumerate((os.devnull, *request["files"])):
        os.dup2(os.open(path, os.O_RDONLY if target == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND), target)
    os.environ.clear()
    os.environ.update(request["environment"])
    first, *others = request["words"]
    code: Any = 0
    try:
        if first == "-c":
            sys.argv = [first, *others[1:]]
            exec(others[0], {"__name__": "__main__"})
        else:
            sys.argv = ["", *others]
            runpy.run_module(first, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train(request: dict[str, Any], writing: int) -> None:
    from relay.progress import PlainReporter
    from relay.runs.lifecycle import attempt
    from relay.runs.rundir import RunDir
    from src.training.trainer import train

    # The output would grow the file in which pytest captures it, and the file size limit would kill the process there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code = 1
    try:
        report = _arrange(request)
        attempt(RunDir(Path(request["run"])), train, lambda: False, PlainReporter())
        sys.settrace(None)
        os.write(writing, json.dumps(report()).encode())
        code = 0
    except BaseException:
        sys.settrace(None)
        os.write(writing, json.dumps(traceback.format_exc()).encode())
    finally:
        os._exit(code)


def _arrange(request: dict[str, Any]) -> Callable[[], Any]:
    """Prepare the requested death. Returns a function that gives the report at the end."""
    if "instruction" in request:
        return die_at_instruction(request["instruction"], request["within"])
    if "byte" in request:
        die_at_byte(request["name"], request["opening"], request["byte"])
    if "lines" in request:
        return copy_at_lines(Path(request["run"]), Path(request["copies"]), request["lines"])
    if "images" in request:
        from tests.power_cut import PowerCut

        return PowerCut(Path(request["run"]), Path(request["images"])).events
    return lambda: None


def die_at_instruction(number: int, within: Sequence[str]) -> Callable[[], int]:
    """Count the bytecode instructions that Python executes in these files, and die at that number.

    Returns a function that gives the count.
    """
    count = 0

    def seen(frame: FrameType) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    trace("opcode", seen, tuple(str(ROOT / name) for name in within), set())
    return lambda: count


def copy_at_lines(run: Path, folder: Path, within: Sequence[str]) -> Callable[[], int]:
    """Copy the run before each line of these functions (file:function), if it differs from the last copy.

    SIGKILL loses what the process has not yet written to the kernel, and nothing else: the copy is what it would leave.
    Returns a function that gives the number of lines.
    """
    lines = 0
    last: list[tuple[str, bytes]] = []

    def seen(frame: FrameType) -> None:
        nonlocal lines, last
        lines += 1
        now = [(str(path), path.read_bytes()) for path in sorted(run.rglob("*")) if path.is_file()]
        if now != last:
            last = now
            shutil.copytree(run, folder / f"{lines:04d}")

    files = {str(ROOT / name.partition(":")[0]) for name in within}
    trace("line", seen, tuple(files), {name.partition(":")[2] for name in within})
    return lambda: lines


def trace(kind: str, seen: Callable[[FrameType], None], files: tuple[str, ...], functions: set[str]) -> None:
    """Call `seen` at each line or opcode of these files and functions; an empty set of functions is all of them."""

    missing = [file for file in files if not Path(file).exists()]
    assert not missing, missing

    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == kind:
            seen(frame)
        return local

    def called(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(files) or (functions and code.co_name not in functions):
            return None
        frame.f_trace_opcodes = kind == "opcode"
        return local

    sys.settrace(called)


def die_at_byte(name: str, opening: int, byte: int) -> None:
    """Die in the middle of a write: the kernel accepts `byte` bytes, and kills the process at the next one.

    This uses RLIMIT_FSIZE with the default action of SIGXFSZ, which Python code can neither survive nor notice. The
    limit is lifted when another file is opened.
    """
    left = opening

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event != "open" or not isinstance(arguments[0], str | os.PathLike):
            return
        path, flags = Path(arguments[0]), arguments[2]
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return
        limit = hard
        if fnmatch.fnmatchcase(path.name, name):
            left -= 1
            if left == 0:
                limit = byte + (path.stat().st_size if path.exists() else 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(watch)
