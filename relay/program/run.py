"""The run as a program sees it: `relay.Run`.

Between two steps it saves what the program keeps, writes the rows that it logs, and ends the loop when the run is asked
to stop. A step that was not saved is repeated by the next attempt, from the same state, so the result is the same.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from relay.errors import CheckpointError, RelayError
from relay.program.contract import Order
from relay.program.environment import compute_deterministically, imported_from_elsewhere
from relay.program.generators import named_states
from relay.program.kept import Kept, forgotten
from relay.program.logbook import MOST_STEPS, Logbook
from relay.program.order import BatchOrder, loader_from
from relay.program.saver import Saver
from relay.program.trace import Trace, until
from relay.program.values import columns_of


class Stopped(BaseException):
    """Ends the loop of a program that was asked to stop; the state is saved.

    Not an Exception, so that `except Exception` lets it pass. `finally` and `with` work as ever.
    """


class Run:
    """One attempt at a run, in the process of its program.

    A loop that may be interrupted at any step needs two lines:

        run.keep(model=model, optimizer=optimizer)
        for step in run.steps(1000):
            ...
            run.log({"train/loss": loss})
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._kept: Kept | None = None
        self._stop_asked = self._stopped = self._begun = self._told = False
        self._in_step = self._in_steps = self._by_hand = False
        # Of a program that passes over data: how many steps an epoch has.
        self._per_epoch: int | None = None
        self._longest_step_s = 0.0
        self._trace, self._until = Trace(), until()
        # How often a loop of the program's own has asked whether to stop.
        self._asked = 0
        self._saver = Saver(order, self._warn)
        self._first_step = self._completed = self._saver.step
        self._total = 0
        order.check_owner()
        self._log = Logbook(order, self._saver.seen, self._first_step, self._saver.best)

    # What a program reads.

    @property
    def dir(self) -> Path:
        """The run's own folder, which is also the current folder at the start. It survives attempts."""
        return Path(self._order.work)

    @property
    def device(self) -> str:
        """`cuda` if torch finds a GPU, else `cpu`."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def step(self) -> int:
        """The number of completed steps."""
        return self._completed

    @property
    def epoch(self) -> float:
        """The number of completed passes over the data; 0 if the program counts only steps."""
        return self._completed / self._per_epoch if self._per_epoch else 0.0

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._order.attempt

    # What a program calls.

    def keep(self, **objects: Any) -> None:
        """What a checkpoint holds, by name: objects with `state_dict` and `load_state_dict`, dicts of plain values and
        tensors, and random generators of Python, numpy and torch. The global generators are always kept.

        Call it once, after all of them are built: it restores them at once, if this attempt resumes. Raises RelayError
        for an object without a state, and in a second call; CheckpointError if the checkpoint holds other objects.
        """
        if self._kept is not None:
            raise RelayError("run.keep: was called before; give all objects in one call")
        kept = Kept(objects)
        if self._saver.saved is not None:
            try:
                kept.restore(self._saver.saved["objects"])
            except CheckpointError:
                raise
            except Exception as error:
                reason = " ".join(str(error).split())[:300]
                raise CheckpointError(
                    f"run.keep: the checkpoint of step {self._completed} does not fit the program: {reason}; start "
                    "over with --fresh"
                ) from error
        self._kept = kept

    def steps(self, total: int) -> Iterator[int]:
        """The indices of the steps that are left, up to `total`. Restores the random generators before the first one.

        Between two steps it saves a state when one is due. If the run is asked to stop, it saves and raises `Stopped`.
        """
        if isinstance(total, bool) or not isinstance(total, int) or total < 0:
            raise RelayError(f"run.steps({total!r}): give a whole number of steps, 0 or more")
        self._name_forgotten(sys._getframe(1))
        return self._steps(total)

    def batches(
        self,
        dataset: Any,
        size: int,
        *,
        epochs: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        workers: int = 0,
        collate: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """`steps` over the batches of a data set that has a length and an index, as torch's DataLoader collates them.

        The order of an epoch is drawn from (`seed`, epoch), and each sample is made under generators seeded by (`seed`,
        epoch, index): a step is reached without replay, and the number of `workers` changes nothing. Raises RelayError
        if the data set makes no batch of `size`.
        """
        order = BatchOrder(len(dataset), size, epochs=epochs, seed=seed, shuffle=shuffle, drop_last=drop_last)
        self._name_forgotten(sys._getframe(1))
        self._per_epoch = order.per_epoch
        loader = loader_from(dataset, order, self._completed, seed=seed, workers=workers, collate=collate)
        return self._batches(loader, order.total)

    def _batches(self, loader: Iterable[Any], total: int) -> Iterator[Any]:
        batches: Iterator[Any] | None = None
        for _ in self._steps(total):
            # Only now: making the first ones starts the workers, and the generators are restored.
            batches = batches or iter(loader)
            yield next(batches)

    def _name_forgotten(self, frame: FrameType) -> None:
        names = forgotten(frame, self._kept.objects if self._kept else {})
        if names:
            self._warn(
                f"{', '.join(names)}: has a state that is not kept, so a resumed run would differ; add it: "
                f"run.keep({', '.join(f'{_last_part(name)}={name}' for name in names)}, …)"
            )

    def _steps(self, total: int) -> Iterator[int]:
        self._total = total
        self._in_steps = True
        self._begin()
        if self._stopped:
            # The program has caught the first one, and goes on.
            raise Stopped
        while self._completed < total:
            # First: a stop saves them.
            self._saver.restore_generators()
            self._note()
            if self._stop_asked or self._completed >= self._until:
                self._stop()
            begun = time.monotonic()
            self._in_step = True
            yield self._completed
            self._in_step = False
            self._completed += 1
            now = time.monotonic()
            self._longest_step_s = max(self._longest_step_s, now - begun)
            self._log.end_row()
            if not self._told:
                self._told = True
                self._order.report("first_step", step=self._completed)
            if self._saver.is_due(self._completed, now):
                self._save()
            else:
                self._log.flush_if_due(now)
        if self._first_step == self._completed:
            # Nothing was left: what comes after the loop draws as it did after the last step.
            self._saver.restore_generators(for_good=False)
        elif not self._saver.has_saved(self._completed):
            # What comes after the loop need not repeat it.
            self._save()
        self._note(is_last=True)

    def log(self, values: Mapping[str, Any], *, step: int | None = None, best: Any = None) -> None:
        """Add numbers to the row of the current step, by name: Python's numbers, or tensors with one element.

        A row holds the number of completed steps: what the body of index s logs counts for s + 1. Calls within a step
        make one row. `step`: another number of completed steps, for a program without `steps`.

        `best`: a network (or a dict) whose weights are written to best.ckpt if `metrics.select` is in `values` and is
        the best so far. Raises RelayError for what is no number.
        """
        if self._saver.saved is not None and not self._begun:
            # Logged by the first attempt, before its first step.
            return
        at = self._completed + self._in_step if step is None else step
        self._log.add(values, at, self._per_epoch, best)
        if not (self._in_step and self._order.function):
            self._log.end_row()
            self._log.flush_if_due(time.monotonic())

    def should_stop(self) -> bool:
        """Whether the run is asked to stop. A program that then saves and returns is resumed later."""
        self._asked += 1
        self._listen()
        # A program that logs no steps is taken to ask once in each.
        at = self._log.step if self._log.step > self._first_step else self._first_step + self._asked
        self._trace.die_if_asked(at)
        if at >= self._until:
            self._stop_asked = True
        return self._stop_asked

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Save a state of the program's own after `step` steps, for `resume`; the global generators are added.

        For loops that `keep` and `steps` do not fit.
        """
        if self._in_steps or (self._kept is not None and not self._by_hand):
            raise RelayError("run.save: is for loops without run.keep and run.steps, which save by themselves")
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= MOST_STEPS:
            raise RelayError(f"run.save: step={step!r}: give the number of completed steps, a whole number")
        self._by_hand = True
        self._kept = self._kept or Kept({"state": {}})
        self._kept.objects["state"] = dict(state)
        self._completed = step
        self._save()
        self._note()

    def resume(self) -> dict[str, Any] | None:
        """The state that the last attempt has saved; None in the first one. Restores the global generators.

        Call it last before the loop.
        """
        self._by_hand = True
        self._begin()
        self._saver.restore_generators()
        saved = self._saver.saved
        return None if saved is None else saved["objects"].get("state")

    # What relay/program/call.py calls.

    def ask_to_stop(self) -> None:
        """Note that the run shall stop at the next step. Safe in a signal handler."""
        self._stop_asked = True

    @property
    def was_stopped(self) -> bool:
        """Whether the program has been told to stop. Its return then is no end of the run."""
        return self._stopped or self._stop_asked

    def end(self, returned: object) -> None:
        """Record that the program has returned: the run is done, or stopped if it was asked to."""
        self._log.end_row()
        self._log.flush()
        facts = {
            "step": self._completed,
            "total": self._total,
            "save_s": round(self._saver.longest_s, 3),
            "longest_step_s": round(self._longest_step_s, 3),
        }
        if self.was_stopped:
            self._order.report("stopped", **facts)
        else:
            elsewhere = imported_from_elsewhere(self._order.folder)
            self._order.report("returned", **facts, columns=columns_of(returned), elsewhere=elsewhere)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        self._listen()
        if self._order.deterministic:
            # Again, for a program that imports torch in its function.
            compute_deterministically()
        self._saver.note_environment()
        if self._kept is None and not self._by_hand:
            self._warn("run.keep was not called: a resumed run would go on at its step with new objects")
        environments = self._saver.environments
        self._order.report("began", step=self._completed, total=self._total, environments=environments)

    def _listen(self) -> None:
        """In a command, whose process has no handler of Relay's from the start: be asked to stop by SIGTERM."""
        is_free = not self._order.function and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if is_free and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: self.ask_to_stop())

    def _stop(self) -> None:
        self._save()
        self._stopped = True
        raise Stopped

    def _save(self) -> None:
        self._saver.save(self._completed, self._kept, self._log)

    def _note(self, *, is_last: bool = False) -> None:
        """Show `verify` the state after the completed steps."""
        kept = self._kept
        self._trace.note(
            self._completed, lambda: {**(kept.states() if kept else {}), **named_states()}, is_last=is_last
        )

    def _warn(self, text: str) -> None:
        self._trace.warn(text)
        print(f"relay: {text}", file=sys.stderr, flush=True)


def _last_part(name: str) -> str:
    """`model` of `self.model`."""
    return name.rpartition(".")[2]
