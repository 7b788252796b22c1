"""Watches a user's command, which knows nothing of Relay: its own checkpoints and metrics say how far it is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from hpc.node.child import Child
from hpc.node.function_watch import shown_values
from hpc.node.watch import Watch
from relay.errors import ConfigError
from relay.files import DiskError, replace_file
from relay.log import log
from relay.program.contract import ORDER_VARIABLE, Order
from relay.program.states import newest_step
from relay.program.trace import Moment, moments
from relay.progress import Reporter, StopCheck
from relay.projects.command import begins_with_python
from relay.projects.parameters import link, users_paths, versions_of
from relay.runs.environment import cpu_model
from relay.runs.lifecycle import AttemptError, Outcome, note_first_step, note_steps, write_provenance
from relay.runs.memory import memory_kills
from relay.runs.program_log import result_of
from relay.runs.rundir import RunDir
from relay.scripts import frozen_site
from relay.scripts.checkpoints import Checkpoint, newest_complete
from relay.scripts.position import Position
from relay.scripts.script_log import ScriptLog
from relay.scripts.template import CHECKPOINT, PARAMS_FILE, RUN_DIR, Template, variables_of

# EX_TEMPFAIL of sysexits.h.
_AGAIN = 75
# The second is what a shell ends with if its command is killed.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_MOST_SAVES = 3
_MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError")


class CommandWatch(Watch):
    """What is known about a command while it runs. `words`: those of the command in this attempt."""

    def __init__(
        self,
        run: RunDir,
        config: Mapping[str, Any],
        order: Order,
        should_stop: StopCheck,
        reporter: Reporter,
        seconds_left: Callable[[], float],
    ) -> None:
        super().__init__(run, should_stop, reporter, seconds_left)
        self._order, self._program, self._params = order, config["program"], config["params"]
        self._stop = self._program["stop"] or {}
        read = self._program["metrics"] or {"read": "auto", "from": "."}
        self._log = ScriptLog(run, read["read"], Path(order.work, read["from"]))
        self._restored = self._newest(said=True)
        state = newest_step(run.checkpoints)
        self._position = Position(
            self._restored, self._log.earlier, run.attempts()[:-1], state, needs_one=bool(self._program["restart"])
        )
        self._log.begin(self._position.restored)
        self.words = self._words()
        if self._stop.get("file"):
            Path(order.work, self._stop["file"]).unlink(missing_ok=True)
        replace_file(run.params_file, yaml.safe_dump(dict(self._params), sort_keys=False, width=10**9))
        has_gpu = any(Path("/dev").glob("nvidia[0-9]*"))
        self._environment = {"cpu": cpu_model(), "device": "cuda" if has_gpu else "cpu"}
        note_steps(run, self._position.first, None, [self._environment])
        write_provenance(
            run,
            self._environment["device"],
            self._environment,
            project=Path(order.folder).name,
            command=self.words,
            versions=self._versions(),
        )
        self._has_begun = False
        self._began_at = time.monotonic()
        self._stop_at, self._kill_at = moments()
        self._is_paused = False
        # The newest checkpoint that was seen since a kill is due, at which step, and how many there were.
        self._seen_newest: Checkpoint | None = None
        self._seen_at = self._saves = 0

    def __enter__(self) -> CommandWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.leave()

    def variables(self, order_file: Path, relay_folder: Path) -> dict[str, str]:
        """The variables of the command besides those of every program. `relay_folder`: in front of its PYTHONPATH."""
        link(relay_folder / "sitecustomize.py", Path(frozen_site.__file__))
        path = [self._program["path"], os.environ.get("PATH", os.defpath)]
        return {
            **variables_of(self._params),
            "PATH": os.pathsep.join(filter(None, path)),
            "RELAY_METRICS": str(self._run.logged_file.absolute()),
            ORDER_VARIABLE: str(order_file),
        }

    def _versions(self) -> Mapping[str, str]:
        """Of all that is installed for the Python of the command; {} if it has none that is known."""
        if not begins_with_python(self._program["command"]):
            return {}
        try:
            return versions_of(self._program["python"], Path(self._order.work))
        except ConfigError as error:
            log.warning(f"{self._run.label}: the versions of its packages are not recorded: {error}")
            return {}

    def _newest(self, *, said: bool = False) -> Checkpoint | None:
        """The newest complete checkpoint, without those that came from Relay's own API."""
        restart = self._program["restart"]
        if not restart:
            return None
        found, passed_over = newest_complete(Path(self._order.work), restart["checkpoint"], restart["complete"])
        for checkpoint, problem in passed_over if said else ():
            name = checkpoint.path.relative_to(self._order.work)
            log.warning(f"{self._run.label}: {name}: is not complete: {problem}; it is passed over")
        if said and found and (later := found.written_before):
            log.warning(
                f"{self._run.label}: {found.path.name} is the newest by the last number in its name, but {later.name} "
                "was written after it; correct program.restart.checkpoint if that is the newest"
            )
        return found

    def _words(self) -> list[str]:
        reserved = {PARAMS_FILE: str(self._run.params_file.absolute()), RUN_DIR: self._order.work}
        words = Template.read(self._program["command"], "program.command").words(self._params, **reserved)
        if begins_with_python(self._program["command"]):
            words[:1] = self._program["python"]
        if self._restored:
            added = Template.read(self._program["restart"]["add"], "program.restart.add")
            words += added.words(self._params, **reserved, **{CHECKPOINT: str(self._restored.path)})
            log.info(f"{self._run.label}: resumes from {self._restored.path.relative_to(self._order.work)}")
        return words

    def _look(self, child: Child) -> None:
        super()._look(child)
        self._follow()

    def _follow(self, *, at_once: bool = False) -> None:
        # The disk may be full for a while; the next look reads all again.
        with contextlib.suppress(DiskError):
            if row := self._log.follow(at_once=at_once):
                self._reporter.advance(row["step"], self._log.total, shown_values(row))
        if self._log.own and not self._has_begun:
            self._has_begun = True
            note_first_step(self._run)

    def _goes_on(self, child: Child) -> bool:
        """Also true if only what stood before the script has died, of a signal to all of the task, while the script
        saves.
        """
        code = child.exit_code
        if code is None:
            return True
        if code == 0 and (left := child.left_behind()):
            log.warning(
                f"{self._run.label}: the command has ended and left {left[0][:200]}, which is ended: let it wait for it"
            )
        if self._killed or 0 <= code <= 128 or child.listener(self._number) is None:
            return False
        return self._was_asked(code)

    @property
    def is_told_by_the_warning(self) -> bool:
        """Whether the signal that tells it to stop is the one with which SLURM warns."""
        return bool(self._stop.get("signal") == "USR2")

    @property
    def _number(self) -> int:
        return signal.Signals[f"SIG{self._stop.get('signal') or 'TERM'}"]

    def _stop_if_asked(self, child: Child, now: float) -> None:
        if self._stop_at != Moment() or self._kill_at != Moment():
            self._interrupt(child, now - self._began_at)
        super()._stop_if_asked(child, now)

    def _interrupt(self, child: Child, seconds: float) -> None:
        """Stop or kill the command where `verify` wants it."""
        self._follow(at_once=True)
        step = max(self._log.own, default=0)
        if self._kill_at.is_over(step, seconds) and self._would_lose(step):
            child.kill()
        elif not self._is_paused and self._stop_at.is_over(step, seconds):
            self._is_paused, self._asked_at = True, time.monotonic()
            self._tell(child)

    def _would_lose(self, step: int) -> bool:
        """Whether a kill now loses steps after a checkpoint, or there are no checkpoints to wait for."""
        if not self._program["restart"]:
            return True
        newest = self._newest()
        if newest and newest.is_newer_than(self._seen_newest):
            self._seen_newest, self._seen_at = newest, step
            self._saves += 1
        # One that saves at every step loses none.
        return newest is not None and (step > self._seen_at or self._saves > _MOST_SAVES)

    def _tell(self, child: Child) -> None:
        if name := self._stop.get("file"):
            file = Path(self._order.work, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        else:
            child.tell(self._number)

    def _resumes_from(self) -> str:
        newest = self._newest()
        if newest:
            return f"it resumes from {newest.path.relative_to(self._order.work)}"
        return "it has no complete checkpoint" if self._program["restart"] else "it resumes as its command does"

    def _close(self, child: Child) -> None:
        # One that was killed may have left a part of a line.
        self._log.follow(at_once=True, is_final=child.code == 0)

    def _outcome(self, child: Child) -> Outcome:
        code = child.code
        position = self._position
        state, log = newest_step(self._run.checkpoints), self._log
        position.end(log.rows(), log.made, self._newest(), state, first_seen=log.first_seen)
        if self._was_asked(code):
            # Of one that was killed, it is not known.
            took = None if self._killed or self._asked_at is None else round(time.monotonic() - self._asked_at, 3)
            return Outcome("stopped", position.first, position.saved, self._log.total, took)
        if code == 0:
            self._finish(position.reached)
            return Outcome("done", position.first, position.reached, position.reached)
        error = self._error(child)
        error.steps = {"first_step": position.first, "last_step": position.saved, "reached_step": position.reached}
        raise error

    def _error(self, child: Child) -> AttemptError:
        """Why it has ended with something else than 0, without being asked to."""
        code, lines = child.code, list(child.last_lines)
        if code == _AGAIN:
            return AttemptError("AGAIN", f"exit code {_AGAIN}: it asks to be executed again")
        if code in _KILLED or memory_kills() > self._memory_kills:
            return self._killed_error()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        is_memory = bool(lines) and any(name in lines[-1] for name in _MEMORY_ERRORS)
        hint = ""
        if lines and lines[-1].startswith("ModuleNotFoundError") and self._program["python"] == [sys.executable]:
            hint = "; python is that of Relay: give yours as program.python"
        said = f": {' / '.join(lines)}{hint}" if lines else "; see its log"
        return AttemptError("OUT_OF_MEMORY" if is_memory else "CRASHED", f"{how}{said}")

    @staticmethod
    def _may_be_of_a_signal(code: int) -> bool:
        # A data loader whose workers got SIGTERM ends its script with 1.
        return code not in (0, _AGAIN)

    def _finish(self, reached: int) -> None:
        run, select = self._run, self._run.config()["metrics"]["select"]
        end = {"step": reached, "total": reached, "time": time.time(), "columns": {}}
        result = result_of(run, end, select["name"], select["direction"])
        # What it has imported is not known, but where else it may have looked.
        run.write_result({**result, "environments": [self._environment], "elsewhere": users_paths()})
