"""The run as a program sees it: `relay.Run`.

Between two steps it saves what the program keeps, writes the rows that it logs, and ends the loop when the run is asked
to stop. A step that was not saved is repeated by the next attempt, from the same state, so the result is the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from relay.errors import CheckpointError, RelayError
from relay.files import replace_file
from relay.program.contract import Order
from relay.program.environment import compute_deterministically, environment
from relay.program.generators import global_states, set_global_states
from relay.program.kept import Kept, check_plain, forgotten
from relay.program.order import BatchOrder, loader_from
from relay.program.rows import Rows, Seen
from relay.program.serialization import to_bytes
from relay.program.states import load_newest, save_state
from relay.program.values import columns_of, metric_of, read_number

# Of a saved state. A state of another format is refused.
FORMAT = 1
# An attempt saves its first state early: a kill before checkpoint.every_minutes would cost all of it.
_FIRST_SAVE_S = 30.0
# For people who watch the run. A state flushes the rows in any case.
_FLUSH_EVERY_S = 10.0
# The largest number of steps that metrics.jsonl may have, see relay/runs/records.py.
_MOST_STEPS = 10**15


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
        self._completed = self._total = 0
        # Of a program that passes over data: how many steps an epoch has.
        self._per_epoch: int | None = None
        self._in_step = self._in_steps = self._generators_restored = False
        self._best: float | None = None
        self._row: dict[str, Any] = {}
        # Complete rows that are not written yet; a value may be a tensor on a GPU.
        self._waiting: list[dict[str, Any]] = []
        # The best weights of the current step, as the file will have them.
        self._new_best: bytes | None = None
        self._save_s = self._longest_step_s = 0.0
        self._read_back = False
        self._saved_step = -1
        self._by_hand = False
        # The state that this attempt resumes from.
        self._saved = load_newest(Path(order.checkpoints), self._problem_of, self._warn)
        # Those in which the state was computed.
        self._environments: list[dict[str, str]] = []
        seen = Seen()
        if self._saved is not None:
            self._completed, self._best = self._saved["step"], self._saved["best"]
            self._environments = list(self._saved["environments"])
            seen = Seen(self._saved["metrics_bytes"], self._saved["metrics_digest"])
        order.check_owner()
        self._first_step = self._logged_step = self._completed
        self._rows = Rows(Path(order.metrics), seen, order.check_owner)
        self._saved_at = self._flushed_at = time.monotonic()

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
        if self._saved is not None:
            try:
                kept.restore(self._saved["objects"])
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
                f"run.keep({', '.join(f'{name.rpartition(chr(46))[2]}={name}' for name in names)}, …)"
            )

    def _steps(self, total: int) -> Iterator[int]:
        self._total = total
        self._in_steps = True
        self._begin()
        if self._stopped:
            # The program has caught the first one, and goes on.
            raise Stopped
        while self._completed < total:
            if self._stop_asked:
                self._stop()
            self._restore_generators()
            begun = time.monotonic()
            self._in_step = True
            yield self._completed
            self._in_step = False
            self._completed += 1
            now = time.monotonic()
            self._longest_step_s = max(self._longest_step_s, now - begun)
            self._end_row()
            if not self._told:
                self._tell_first_step()
            if self._save_is_due(now):
                self._save()
            elif now - self._flushed_at > _FLUSH_EVERY_S:
                self._flush()
        if self._first_step == self._completed:
            # Nothing was left: what comes after the loop draws as it did after the last step.
            self._restore_generators(for_good=False)
        elif self._saved_step != self._completed:
            # What comes after the loop need not repeat it.
            self._save()

    def log(self, values: Mapping[str, Any], *, step: int | None = None, best: Any = None) -> None:
        """Add numbers to the row of the current step, by name: Python's numbers, or tensors with one element.

        A row holds the number of completed steps: what the body of index s logs counts for s + 1. Calls within a step
        make one row. `step`: another number of completed steps, for a program without `steps`.

        `best`: a network (or a dict) whose weights are written to best.ckpt if `metrics.select` is in `values` and is
        the best so far. Raises RelayError for what is no number.
        """
        row = {name: metric_of(name, value) for name, value in values.items()}
        at = self._completed + self._in_step if step is None else step
        if isinstance(at, bool) or not isinstance(at, int) or not self._logged_step <= at <= _MOST_STEPS:
            raise RelayError(
                f"run.log: step={at!r}: give the number of completed steps, a whole number, and none below the one "
                f"before it ({self._logged_step})"
            )
        if self._saved is not None and not self._begun:
            # Logged by the first attempt, before its first step.
            return
        self._logged_step = at
        if self._row and self._row["step"] != at:
            self._end_row()
        if not self._row:
            epoch = {"epoch": at / self._per_epoch} if self._per_epoch else {}
            self._row = {"step": at, **epoch, "time": round(time.time(), 3)}
        self._row.update(row)
        if best is not None and self._order.select in row:
            self._keep_if_best(row[self._order.select], best, at)
        if not self._in_step:
            self._end_row()

    def should_stop(self) -> bool:
        """Whether the run is asked to stop. A program that then saves and returns is resumed later."""
        return self._stop_asked

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Save a state of the program's own after `step` steps, for `resume`; the global generators are added.

        For loops that `keep` and `steps` do not fit.
        """
        if self._in_steps or (self._kept is not None and not self._by_hand):
            raise RelayError("run.save: is for loops without run.keep and run.steps, which save by themselves")
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= _MOST_STEPS:
            raise RelayError(f"run.save: step={step!r}: give the number of completed steps, a whole number")
        self._by_hand = True
        self._kept = self._kept or Kept({"state": {}})
        self._kept.objects["state"] = dict(state)
        self._completed = step
        self._save()

    def resume(self) -> dict[str, Any] | None:
        """The state that the last attempt has saved; None in the first one. Restores the global generators.

        Call it last before the loop.
        """
        self._by_hand = True
        self._begin()
        self._restore_generators()
        return None if self._saved is None else self._saved["objects"].get("state")

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
        self._end_row()
        self._flush()
        facts = {"step": self._completed, "total": self._total, "save_s": round(self._save_s, 3)}
        if self.was_stopped:
            self._order.report("stopped", **facts, longest_step_s=round(self._longest_step_s, 3))
        else:
            columns = columns_of(returned)
            self._order.report("returned", **facts, longest_step_s=round(self._longest_step_s, 3), columns=columns)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self._order.deterministic:
            # Again, for a program that imports torch in its function.
            compute_deterministically()
        if self._saved is not None and "torch" in sys.modules:
            import torch

            torch.set_num_threads(self._saved["threads"] or torch.get_num_threads())
        if self._kept is None and not self._by_hand:
            self._warn("run.keep was not called: a resumed run would go on at its step with new objects")
        here = environment()
        if here not in self._environments:
            self._environments.append(here)
        self._order.report("began", step=self._completed, total=self._total, environments=self._environments)

    def _restore_generators(self, *, for_good: bool = True) -> None:
        """Restore the generators of the state, once, and last before the first step: what the program draws while it
        builds its objects must not count. Not `for_good`: another loop may follow, which begins with the same states.
        """
        if self._saved is not None and not self._generators_restored:
            set_global_states(self._saved["generators"])
        self._generators_restored = for_good

    def _tell_first_step(self) -> None:
        self._told = True
        self._order.report("first_step", step=self._completed)

    def _stop(self) -> None:
        self._save()
        self._stopped = True
        raise Stopped

    def _save_is_due(self, now: float) -> bool:
        every = self._order
        if every.every_steps is not None and self._completed % every.every_steps == 0:
            return True
        if every.every_minutes is None:
            return False
        interval_s = 60 * every.every_minutes
        return now - self._saved_at >= (interval_s if self._save_s else min(interval_s, _FIRST_SAVE_S))

    def _save(self) -> None:
        begun = time.monotonic()
        # Flushed before the state is written: a state must not refer to rows that a power cut can lose.
        seen = self._flush()
        states = self._kept.states() if self._kept else {}
        # A state that cannot be read back is found when it is saved, and not at the resume.
        check_plain(states)
        if not self._read_back and self._kept is not None:
            self._kept.check_readable()
            self._read_back = True
        state = {
            "format": FORMAT,
            "key": self._order.key,
            "step": self._completed,
            "best": self._best,
            "objects": states,
            "generators": global_states(),
            "environments": self._environments,
            "threads": _threads(),
            "metrics_bytes": seen.size,
            "metrics_digest": seen.digest,
        }
        save_state(Path(self._order.checkpoints), self._completed, state, self._order.keep, self._order.check_owner)
        self._saved_at, self._saved_step = time.monotonic(), self._completed
        self._save_s = max(self._save_s, self._saved_at - begun)

    def _end_row(self) -> None:
        if self._row:
            self._waiting.append(self._row)
            self._row = {}
        if self._new_best is not None:
            # The row first: best.ckpt must not name a step that the metrics do not have.
            self._flush()
            replace_file(Path(self._order.best), self._new_best, check=self._order.check_owner)
            self._new_best = None

    def _flush(self) -> Seen:
        self._flushed_at = time.monotonic()
        for row in self._waiting:
            self._rows.add({name: read_number(value) for name, value in row.items()})
        self._waiting.clear()
        return self._rows.flush()

    def _keep_if_best(self, value: Any, best: Any, step: int) -> None:
        value, select = float(value), self._order.select
        sign = 1 if self._order.direction == "max" else -1
        if value != value or (self._best is not None and sign * value <= sign * self._best):
            return
        self._best = value
        weights = best.state_dict() if hasattr(best, "state_dict") else dict(best)
        content = {"model_state_dict": weights, "step": step, "metrics": {select: value}, "run": self._order.label}
        # As bytes: the program may change the weights before the step ends.
        self._new_best = to_bytes(content)

    def _problem_of(self, state: Mapping[str, Any]) -> str:
        """Why a saved state cannot be used, or "". Raises CheckpointError if the run must not continue without it."""
        # Raised, not returned: a run that skips such states starts over, and its first save removes them.
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{self._order.label}: its checkpoints have format {state.get('format')}, and this version reads "
                f"{FORMAT}; continue with the version that wrote them, or start over with --fresh"
            )
        if state["key"] != self._order.key:
            raise CheckpointError(f"{self._order.checkpoints}: its states are of a run with other parameters")
        size = Path(self._order.metrics).stat().st_size if Path(self._order.metrics).exists() else 0
        seen = state["metrics_bytes"]
        return f"metrics.jsonl has {size} bytes, but the checkpoint has seen {seen}" if size < seen else ""

    def _warn(self, text: str) -> None:
        print(f"relay: {text}", file=sys.stderr, flush=True)


def _threads() -> int | None:
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.get_num_threads()
