"""How far an attempt at a script got, from its checkpoints and metrics: where it began, and what it has saved.

A script says neither. That it has saved something is certain only where a complete checkpoint is newer than before, or
where a later attempt begins further on.
"""

from __future__ import annotations

from collections.abc import Collection

from relay.runs.attempt import Attempts
from relay.scripts.checkpoints import Checkpoint


def restored_step(checkpoint: Checkpoint | None, rows: Collection[int]) -> int | None:
    """The step of a checkpoint, if the number in its name counts what the steps of the rows count. None if it counts
    something else, such as epochs: then the newest number and the last row are far apart.
    """
    if checkpoint is None or checkpoint.number < 0:
        return None
    if rows and not checkpoint.highest <= 2 * max(rows) <= 4 * checkpoint.highest:
        return None
    return checkpoint.number


class Position:
    """The position of one attempt, in steps of its metrics, or, without any, in numbers of its checkpoints.

    `first`: where it began. After `end` also `reached`, the last step that it logged, and `saved`, from where the next
    attempt goes on.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        rows: Collection[int],
        before: Attempts,
        state: int,
        *,
        needs_one: bool = False,
    ) -> None:
        """`checkpoint`: the one that it resumes from. `rows`: the steps that were logged so far. `before`: the earlier
        attempts. `state`: the step of the newest state that was saved through `relay.current()`. `needs_one`: without a
        checkpoint, the script begins again.
        """
        self._checkpoint, self._state, self._needs_one = checkpoint, state, needs_one
        self._begun = [attempt.first_step or 0 for attempt in before]
        # Rows after the checkpoint are dropped before the attempt begins.
        self._highest = max(
            [0, *rows, *(step for each in before for step in (each.reached_step, each.last_step) if step)]
        )
        self.restored = state or restored_step(checkpoint, rows)
        self.first = max(rows, default=0) if self.restored is None else self.restored
        self.reached = self.saved = self.first

    def end(
        self,
        rows: Collection[int],
        own: Collection[int],
        newest: Checkpoint | None,
        state: int,
        *,
        first_seen: int | None = None,
    ) -> None:
        """The attempt has ended. `rows`: the steps of all that count now, of which it has logged `own`, up to
        `first_seen` when it was first looked at; `newest`: the newest complete checkpoint.
        """
        restored = self.restored
        # A script may ignore the checkpoint that it is given. It may also repeat a row, or a whole history at once.
        if own and (restored is None or ((first_seen or 0) <= restored and sum(step <= restored for step in own) > 1)):
            begun = min(own)
            self.first = max((step for step in rows if step < begun), default=0)
        self.reached = max([*own, self.first])
        # One that starts over at every attempt has saved nothing, however far it gets; nor has one without the
        # checkpoint that it should have, unless it begins further on all the same.
        begins_further = all(self.first > each for each in self._begun) and bool(self._begun or not self._needs_one)
        further = self.reached > self._highest and begins_further
        self.saved = self.first
        if state > self._state:
            self.saved = state
        elif newest and newest.is_newer_than(self._checkpoint):
            step = restored_step(newest, rows)
            self.saved = max(self.reached if step is None else step, self.first + 1)
        elif further:
            self.saved = self.reached
        self.reached = max(self.reached, self.saved)
