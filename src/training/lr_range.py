"""The learning-rate range test: raise the rate at every step, watch the loss, suggest a rate.

Method: Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.3; smoothing with bias correction
as Adam has it; the valley is the rule of the fastai library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from src.config.schema import LrFinder
from src.data.dataset import load
from src.data.loader import TrainLoader
from src.models.registry import build_model
from src.progress import Reporter, StopCheck
from src.runs.attempts import Outcome, Publish, note_steps, write_provenance
from src.runs.checkpoint_names import list_states
from src.runs.kinds import content_key
from src.runs.planned import check_as_planned
from src.runs.rundir import RunDir
from src.training.checkpoint import load_newest, restoring, save_state
from src.training.device import choose_device, compute_reproducibly
from src.training.metric_log import MetricsLog
from src.training.optim import make_optimizer
from src.training.state import learner_state, load_learner_state, state_problem

_FLUSH_EVERY = 10


def rate_at(finder: LrFinder, step: int) -> float:
    """The learning rate of step `step`, evenly spaced on the log scale from min_lr (step 0) to max_lr (the last)."""
    part = step / (finder.num_steps - 1)
    return float(math.exp(math.log(finder.min_lr) * (1 - part) + math.log(finder.max_lr) * part))


def smooth(losses: Sequence[float], beta: float) -> list[float]:
    """Exponential moving average, divided by 1 - beta^t so that the first values are not drawn to zero."""
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = beta * average + (1 - beta) * loss
        smoothed.append(average / (1 - beta**count))
    return smoothed


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> dict[str, float | None]:
    """Two suggestions from a sweep.

    `steepest`: where the loss falls fastest per log10 of the rate, before its minimum. `valley`: two thirds along the
    longest stretch of falling losses. Null if the loss never falls.
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
    longest = [1] * len(smoothed)
    for i in range(len(smoothed)):
        longest[i] += max((longest[j] for j in range(i) if smoothed[j] > smoothed[i]), default=0)
    end = max(range(len(longest)), key=longest.__getitem__)
    start = end - longest[end] + 1
    return rates[start + (end - start) * 2 // 3]


class LrRangeTest:
    """One range test in its run's directory. Its state, beside the network's, is the list of losses so far."""

    def __init__(self, run: RunDir, should_stop: StopCheck, reporter: Reporter, publish: Publish) -> None:
        self.run, self.should_stop, self.reporter, self.publish = run, should_stop, reporter, publish
        self.config = run.config()
        self.finder = self.config.lr_finder
        data = load(self.config)
        check_as_planned(run, self.config, "lr_sweep", data.digest)
        self.key = content_key(self.config, "lr_sweep")
        self.device = choose_device(self.config.train.device)
        compute_reproducibly(self.config.train.seed)
        self.loader = TrainLoader(self.config, data.train, self.device)
        self.network = build_model(self.config.model).to(self.device).train()
        self.optimizer = make_optimizer(self.network.parameters(), self.config.train.optimizer)
        self.losses: list[float] = []

    def execute(self) -> Outcome:
        """Run the test from where it stands to its end, or to the next step after a stop is asked for."""
        write_provenance(self.run, str(self.device))
        metrics_bytes = self._load()
        first, total = len(self.losses), self.finder.num_steps
        note_steps(self.run, first, total)
        with MetricsLog(self.run, metrics_bytes, {"seed": self.config.train.seed}) as log:
            done = self._loop(log)
            log.flush()
        if done:
            result = self._result()
            self.run.check_owner()
            self.publish(result)
            self.run.write_result(result)
            for left in list_states(self.run.checkpoints):
                left.unlink()
        return Outcome("done" if done else "stopped", first, len(self.losses), total)

    def _load(self) -> int:
        """Restore the newest checkpoint, if there is one. Returns how many bytes of the metrics it has seen."""
        saved = load_newest(self.run.checkpoints, self._unusable, self.reporter.say)
        if saved is None:
            return 0
        with restoring(self.run.checkpoints, saved):
            load_learner_state(saved, self.network, self.optimizer, self.device)
        self.losses = saved["losses"]
        metrics_bytes: int = saved["metrics_bytes"]
        return metrics_bytes

    def _unusable(self, state: Mapping[str, Any]) -> str:
        return state_problem(state, training=False) or (
            "" if state["key"] == self.key else "it is of another experiment"
        )

    def _loop(self, log: MetricsLog) -> bool:
        """True when the test is complete, False when it was stopped."""
        finder, losses = self.finder, self.losses
        smoothed = smooth(losses, finder.smoothing)
        while len(losses) < finder.num_steps and not _diverged(losses, smoothed, finder):
            if self.should_stop():
                self._save(log.flush())
                return False
            step = len(losses)
            lr = rate_at(finder, step)
            loss = self._step(step, lr)
            losses.append(loss)
            # Anew at every step: 8 ms in all for 200 steps, 0.2 s for 1,000.
            smoothed = smooth(losses, finder.smoothing)
            if math.isfinite(loss):
                row = {"lr_finder/lr": lr, "lr_finder/loss": loss, "lr_finder/loss_smoothed": smoothed[-1]}
                log.log(step + 1, (step + 1) / self.loader.per_epoch, row)
            if len(losses) % _FLUSH_EVERY == 0:
                log.flush()
            self.reporter.advance(len(losses), finder.num_steps, f"lr {lr:.2e}  loss {loss:.4f}")
        return True

    def _step(self, step: int, lr: float) -> float:
        images, labels = self.loader.get(*divmod(step, self.loader.per_epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.network(images), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.item()

    def _save(self, metrics_bytes: int) -> None:
        content = {
            "key": self.key,
            **learner_state(self.network, self.optimizer, self.device),
            "losses": self.losses,
            "metrics_bytes": metrics_bytes,
        }
        save_state(self.run.checkpoints, len(self.losses), content, keep=1, check=self.run.check_owner)

    def _result(self) -> dict[str, Any]:
        losses = [loss for loss in self.losses if math.isfinite(loss)]
        rates = [rate_at(self.finder, step) for step in range(len(losses))]
        smoothed = smooth(losses, self.finder.smoothing)
        suggestion = suggest(rates, smoothed)
        _draw(self.run, rates, losses, smoothed, suggestion)
        return {
            "suggestion": suggestion,
            "seed": self.config.train.seed,
            "diverged": len(losses) < self.finder.num_steps,
            "steps": len(self.losses),
            "lr": rates,
            "loss": losses,
            "loss_smoothed": smoothed,
        }


def sweep(run: RunDir, should_stop: StopCheck, reporter: Reporter, publish: Publish = lambda result: None) -> Outcome:
    """Run the range test in `run` and write its result and figure; `publish` is called before it counts as done.

    It keeps no best weights and writes no checkpoint, except its own state when it is asked to stop, which goes when
    the test is complete. Raises DataError and RunError if images or configuration are not as planned.
    """
    return LrRangeTest(run, should_stop, reporter, publish).execute()


def _diverged(losses: Sequence[float], smoothed: Sequence[float], finder: LrFinder) -> bool:
    if losses and not math.isfinite(losses[-1]):
        return True
    return len(losses) > _FLUSH_EVERY and smoothed[-1] > finder.diverge_factor * min(smoothed)


def _draw(
    run: RunDir, rates: list[float], losses: list[float], smoothed: list[float], marks: dict[str, float | None]
) -> None:
    from src.results.figures import Curve, draw_curves

    curves = [Curve("loss", rates, losses, faint=True), Curve("smoothed", rates, smoothed)]
    lowest, start = min([*smoothed, *losses], default=0.0), next(iter(smoothed), 1.0)
    # A diverged tail would squeeze the part that matters into a line at the bottom.
    limits = (lowest - 0.1 * (start - lowest) - 0.05, start + 0.6 * abs(start - lowest) + 0.3)
    verticals = {f"{name}: {lr:.2e}": lr for name, lr in marks.items() if lr is not None}
    draw_curves(
        run.figure("lr_finder"), curves, "learning rate", "train loss", log_x=True, verticals=verticals, y_limits=limits
    )
