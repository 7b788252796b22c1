"""The learning-rate range test: raise the rate at every step, record the loss, suggest a rate.

Method: Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from relay.program.states import list_states
from relay.progress import Reporter, StopCheck
from relay.runs.event_file import figure_tag
from relay.runs.lifecycle import Outcome, Publish
from relay.runs.rundir import RunDir
from src.config.keys import LR_SWEEP
from src.config.schema import LrFinder
from src.training.columns import lr_sweep_columns
from src.training.lr_figure import draw_lr_run
from src.training.session import Session, in_project
from src.training.state import state_problem

_FLUSH_EVERY = 10
# Divergence is judged only after more losses than this: at the start, one noisy loss decides the smoothed one.
_MIN_LOSSES = 10


def rate_at(finder: LrFinder, step: int) -> float:
    """The learning rate of step `step`, evenly spaced on the log scale from min_lr (step 0) to max_lr (the last)."""
    part = step / (finder.num_steps - 1)
    return float(math.exp(math.log(finder.min_lr) * (1 - part) + math.log(finder.max_lr) * part))


def smooth(losses: Sequence[float], beta: float) -> list[float]:
    """The exponential moving average of `losses`, one value per loss, corrected for its start at zero.

    The correction, division by 1 - beta^t, is that of Adam (Kingma & Ba 2015, section 3).
    """
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = beta * average + (1 - beta) * loss
        smoothed.append(average / (1 - beta**count))
    return smoothed


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> dict[str, float | None]:
    """Two suggested rates, both None if the loss never falls.

    `steepest`: where the loss falls fastest per log10 of the rate, before its minimum. `valley`: two thirds along the
    longest falling subsequence of losses, which is the rule of the fastai library.
    """
    if not smoothed:
        return {"steepest": None, "valley": None}
    end = min(range(len(smoothed)), key=smoothed.__getitem__) + 1
    slopes = [
        ((smoothed[i + 1] - smoothed[i - 1]) / (math.log10(rates[i + 1]) - math.log10(rates[i - 1])), i)
        for i in range(1, min(end, len(rates) - 1))
    ]
    slope, index = min(slopes, default=(0.0, 0))
    steepest = rates[index] if slope < 0 else None
    return {"steepest": steepest, "valley": _valley(rates, smoothed) if steepest is not None else None}


def _valley(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    # longest[i]: the length of the longest falling subsequence that ends at i.
    longest = [1] * len(smoothed)
    for i in range(len(smoothed)):
        longest[i] += max((longest[j] for j in range(i) if smoothed[j] > smoothed[i]), default=0)
    end = max(range(len(longest)), key=longest.__getitem__)
    start = end - longest[end] + 1
    return rates[start + (end - start) * 2 // 3]


class LrRangeTest:
    """One range test. Besides the learner, its state is the list of losses so far."""

    def __init__(self, session: Session) -> None:
        self.session, self.run, self.config = session, session.run, session.config
        self.finder = self.config.lr_finder
        self.losses: list[float] = []

    def execute(self) -> Outcome:
        """Run from the saved state to the end, or to the next step boundary after `should_stop` returns true."""
        session = self.session
        session.resume(self._problem_of, self._restore)
        first, total = len(self.losses), self.finder.num_steps
        with session.open_log(first, total, in_hparams=False) as self.log:
            done = self._loop()
            self.log.flush()
            result = self._result() if done else {}
            if done:
                # TensorBoard draws scalars over the step only, and the report wants the loss over the rate.
                self.log.image(figure_tag("loss_over_lr"), self.run.figure("lr_finder").read_bytes(), len(self.losses))
        if done:
            session.finish({**result, "columns": lr_sweep_columns(result)})
            # Nothing resumes a run whose result is written.
            for path in list_states(self.run.checkpoints):
                path.unlink()
        return Outcome("done" if done else "stopped", first, len(self.losses), total)

    def _problem_of(self, state: Mapping[str, Any]) -> str:
        if problem := state_problem(state, training=False):
            return problem
        # Skipped, not refused as in a training: a range test is short enough to start over.
        return "" if state["key"] == self.session.key else "it belongs to another experiment"

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.losses = saved["losses"]

    def _loop(self) -> bool:
        """Returns True if the test is complete, False if it was stopped."""
        session, finder, losses = self.session, self.finder, self.losses
        learner = session.learner
        smoothed = smooth(losses, finder.smoothing)
        while len(losses) < finder.num_steps and not _diverged(losses, smoothed, finder):
            if session.should_stop():
                session.save(len(losses), {"losses": losses}, keep=1)
                return False
            step = len(losses)
            lr = rate_at(finder, step)
            loss = learner.step(step, lr)[0].item()
            losses.append(loss)
            session.note_work()
            # Recomputed from the start at every step: 8 ms in total for 200 steps, 0.2 s for 1,000.
            smoothed = smooth(losses, finder.smoothing)
            if math.isfinite(loss):
                row = {"train/lr": lr, "train/loss": loss, "train/loss_smoothed": smoothed[-1]}
                self.log.log(step + 1, (step + 1) / learner.loader.per_epoch, row)
            if len(losses) % _FLUSH_EVERY == 0:
                self.log.flush()
            session.reporter.advance(len(losses), finder.num_steps, f"lr {lr:.2e}  loss {loss:.4f}")
        return True

    def _result(self) -> dict[str, Any]:
        losses = [loss for loss in self.losses if math.isfinite(loss)]
        rates = [rate_at(self.finder, step) for step in range(len(losses))]
        smoothed = smooth(losses, self.finder.smoothing)
        result = {
            "suggestion": suggest(rates, smoothed),
            "seed": self.config.train.seed,
            "diverged": len(losses) < self.finder.num_steps,
            "steps": len(self.losses),
            "lr": rates,
            "loss": losses,
            "loss_smoothed": smoothed,
        }
        draw_lr_run(result, self.run.figure("lr_finder"))
        return result


def sweep_rates(
    run: RunDir, should_stop: StopCheck, reporter: Reporter, publish: Publish = lambda result: None
) -> Outcome:
    """Run the range test of `run`, and write its result and figure. `publish` is called before the result is written.

    It saves its state only when it is stopped, and removes it when it is complete. Raises DataError and RunError if
    images or configuration are not as planned, CheckpointError if its state cannot be read or written.
    """
    with in_project(run):
        return LrRangeTest(Session(run, LR_SWEEP, should_stop, reporter, publish)).execute()


def _diverged(losses: Sequence[float], smoothed: Sequence[float], finder: LrFinder) -> bool:
    if losses and not math.isfinite(losses[-1]):
        return True
    return len(losses) > _MIN_LOSSES and smoothed[-1] > finder.diverge_factor * min(smoothed)
