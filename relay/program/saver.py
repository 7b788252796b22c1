"""When and how the state of a program is saved, and which one an attempt resumes from."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relay.errors import CheckpointError
from relay.program.contract import Order
from relay.program.environment import environment
from relay.program.generators import global_states, set_global_states
from relay.program.kept import Kept, check_plain
from relay.program.logbook import Logbook
from relay.program.rows import Seen
from relay.program.states import load_newest, save_state

# Of a saved state. A state of another format is refused.
FORMAT = 1
# An attempt saves its first state early: a kill before checkpoint.every_minutes would cost all of it.
_FIRST_SAVE_S = 30.0


class Saver:
    """The states of one run. `saved`: the one that this attempt resumes from; None if it begins.

    `environments`: those in which the state was computed. `longest_s`: the longest time that saving took.
    """

    def __init__(self, order: Order, warn: Callable[[str], None]) -> None:
        """Raises CheckpointError if there is a state that cannot be used, and the run must not start over."""
        self._order = order
        self.saved = load_newest(Path(order.checkpoints), self._problem_of, warn)
        self.environments: list[dict[str, str]] = list(self.saved["environments"]) if self.saved else []
        self.longest_s = 0.0
        self._saved_at, self._saved_step, self._read_back = time.monotonic(), -1, False
        self._generators_restored = False

    @property
    def step(self) -> int:
        """The step of the state that the attempt resumes from; 0 without one."""
        return int(self.saved["step"]) if self.saved else 0

    @property
    def best(self) -> float | None:
        """The best value that the state knows."""
        return self.saved["best"] if self.saved else None

    @property
    def seen(self) -> Seen:
        """The rows that the state has seen."""
        return Seen(self.saved["metrics_bytes"], self.saved["metrics_digest"]) if self.saved else Seen()

    def note_environment(self) -> None:
        """Add that of this process, which computes from here on, and compute with as many threads as before."""
        if self.saved and "torch" in sys.modules:
            import torch

            torch.set_num_threads(self.saved["threads"] or torch.get_num_threads())
        here = environment()
        if here not in self.environments:
            self.environments.append(here)

    def restore_generators(self, *, for_good: bool = True) -> None:
        """Restore the generators of the state, once, and last before the first step: what the program draws while it
        builds its objects must not count. Not `for_good`: another loop may follow, which begins with the same states.
        """
        if self.saved and not self._generators_restored:
            set_global_states(self.saved["generators"])
        self._generators_restored = for_good

    def is_due(self, step: int, now: float) -> bool:
        """Whether the state after `step` steps shall be saved."""
        every = self._order
        if every.every_steps is not None and step % every.every_steps == 0:
            return True
        if every.every_minutes is None:
            return False
        interval_s = 60 * every.every_minutes
        return now - self._saved_at >= (interval_s if self.longest_s else min(interval_s, _FIRST_SAVE_S))

    def save(self, step: int, kept: Kept | None, log: Logbook) -> None:
        """Save the state after `step` steps. Raises CheckpointError if it could not be read back."""
        begun = time.monotonic()
        # Flushed before the state is written: a state must not refer to rows that a power cut can lose.
        seen = log.flush()
        states = kept.states() if kept else {}
        # A state that cannot be read back is found when it is saved, and not at the resume.
        check_plain(states)
        if not self._read_back and kept is not None:
            kept.check_readable()
            self._read_back = True
        state = {
            "format": FORMAT,
            "key": self._order.key,
            "step": step,
            "best": log.best,
            "objects": states,
            "generators": global_states(),
            "environments": self.environments,
            "threads": _threads(),
            "metrics_bytes": seen.size,
            "metrics_digest": seen.digest,
        }
        save_state(Path(self._order.checkpoints), step, state, self._order.keep, self._order.check_owner)
        self._saved_at, self._saved_step = time.monotonic(), step
        self.longest_s = max(self.longest_s, self._saved_at - begun)

    def has_saved(self, step: int) -> bool:
        """Whether this attempt has saved the state after `step` steps last."""
        return self._saved_step == step

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


def _threads() -> int | None:
    if "torch" not in sys.modules:
        return None
    import torch

    return torch.get_num_threads()
