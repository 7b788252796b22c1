"""A warm process that forks trainings which die where they are told to: hundreds of deaths a minute.

It has imported everything and computed nothing, so that a fork of it is as good as a new Python. Ways to die:

    instruction=n, within=[...]    SIGKILL at the n-th bytecode instruction in these files of src, or line of functions
    name=x, opening=m, byte=k      the kernel ends it at byte k of what it writes at the m-th opening of a file like x
    seconds=s                      SIGKILL after so long, in Python or in C
    images=folder                  lives, and leaves what a power cut at each moment would have left (power_cut.py)
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from .conftest import ROOT

WARM = "from tests.nursery import serve; serve()"


class Nursery:
    """The test's end: a context manager."""

    def __enter__(self) -> Nursery:
        command = [sys.executable, "-c", WARM]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def train(self, run: Path, **death: Any) -> tuple[int, Any]:
        """Start the training in `run`, and wait for its end: exit code or minus the signal, and report or traceback."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"run": str(run), **death}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["report"]


def serve() -> None:
    """The warm process: a child for each line of stdin."""
    # What a training imports late.
    for late in ("tensorboard.plugins.hparams.summary_v2", "tensorboard.summary.writer.record_writer", "torch._dynamo"):
        importlib.import_module(late)
    importlib.import_module("src.engine")
    from src.provenance import code_version

    code_version()
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _live(request, writing)
        os.close(writing)
        if "seconds" in request:
            time.sleep(request["seconds"])
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(reading) as file:
            report = file.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code, "report": json.loads(report or "null")}), flush=True)


def _live(request: dict[str, Any], writing: int) -> None:
    from src.attempts import attempt
    from src.engine import train
    from src.progress import PlainReporter
    from src.rundir import RunDir

    # What it says would fill pytest's file of it, and the size limit of files would end the process there.
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
    """Arrange for the death that is asked for; returns what says, at the end, what was seen."""
    if "instruction" in request:
        return die_at_instruction(request["instruction"], request["within"])
    if "byte" in request:
        die_at_byte(request["name"], request["opening"], request["byte"])
    if "images" in request:
        from .power_cut import PowerCut

        return PowerCut(Path(request["run"]), Path(request["images"])).events
    return lambda: None


def die_at_instruction(number: int, within: Sequence[str]) -> Callable[[], int]:
    """Count what Python executes, and die at that number. Returns what tells the count.

    `within` holds file names of src, for bytecode instructions, or file:function, for lines.
    """
    files = tuple(str(ROOT / "src" / name.partition(":")[0]) for name in within)
    functions = {name.partition(":")[2] for name in within} - {""}
    kind = "line" if functions else "opcode"
    count = 0

    def local(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == kind:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def called(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(files) or (functions and code.co_name not in functions):
            return None
        frame.f_trace_opcodes = kind == "opcode"
        return local

    sys.settrace(called)
    return lambda: count


def die_at_byte(name: str, opening: int, byte: int) -> None:
    """Die in the midst of a write: the kernel takes `byte` bytes of it, and ends the process at the next one.

    That is the size limit of files with its signal's default action, which no Python code survives or sees. It is
    lifted when another file is opened.
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
