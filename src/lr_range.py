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

from src.attempts import note_steps, write_provenance
from src.batches import TrainBatches
from src.checkpoint import load_newest, restoring, save_state
from src.checkpoint_names import list_states
from src.config import Config
from src.data import load
from src.device import choose_device, compute_reproducibly, random_state, set_random_state
from src.metrics import MetricsLog
from src.models.registry import build_model
from src.optim import make_optimizer
from src.outcome import Outcome, Publish
from src.planned import check_as_planned
from src.progress import Reporter, StopCheck
from src.run_state import load_optimizer, state_problem
from src.rundir import RunDir
from src.schema import LrFinder

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
    longest stretch of falling losses. Null where the loss never falls.
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


def sweep(run: RunDir, should_stop: StopCheck, reporter: Reporter, publish: Publish = lambda result: None) -> Outcome:
    """Run the range test in `run` and write its result and figure; `publish` is called before it counts as done.

    It keeps no best weights and writes no checkpoint, except its own state when it is asked to stop, which goes when
    the test is complete. Raises DataError and RunError where images or configuration are not as planned.
    """
    config = run.config()
    data, key = load(config), config.content_key("lr_sweep")
    check_as_planned(run, config, "lr_sweep", data.digest)
    device = choose_device(config.train.device)
    write_provenance(run, str(device))

    def unusable(found: Mapping[str, Any]) -> str:
        return state_problem(found, training=False) or ("" if found["key"] == key else "it is of another experiment")

    state = load_newest(run.checkpoints, unusable, reporter.say)
    threads = compute_reproducibly(config.train.seed, state["threads"] if state else None)
    batches = TrainBatches(config, data.train, device)
    network = build_model(config.model).to(device).train()
    optimizer = make_optimizer(network.parameters(), config.train.optimizer)
    losses: list[float] = []
    if state:
        with restoring(run.checkpoints, state):
            network.load_state_dict(state["model_state_dict"])
            load_optimizer(optimizer, state["optimizer"])
            set_random_state(state["random"], device)
        losses = list(state["losses"])
    first, finder = len(losses), config.lr_finder
    note_steps(run, first, finder.num_steps)
    with MetricsLog(run, state["metrics_bytes"] if state else 0, {"seed": config.train.seed}) as log:
        while len(losses) < finder.num_steps and not _diverged(losses, finder):
            if should_stop():
                content = {
                    "key": key,
                    "model_state_dict": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "random": random_state(device),
                    "threads": threads,
                    "losses": losses,
                    "metrics_bytes": log.flush(),
                }
                save_state(run.checkpoints, len(losses), content, keep=1, check=run.check_owner)
                return Outcome("stopped", first, len(losses), finder.num_steps)
            step = len(losses)
            losses.append(_step(network, optimizer, batches, step, rate_at(finder, step)))
            if math.isfinite(losses[-1]):
                row = {"lr_finder/lr": rate_at(finder, step), "lr_finder/loss": losses[-1]}
                row["lr_finder/loss_smoothed"] = smooth(losses, finder.smoothing)[-1]
                log.log(step + 1, (step + 1) / batches.per_epoch, row)
            if len(losses) % _FLUSH_EVERY == 0:
                log.flush()
            reporter.advance(len(losses), finder.num_steps, f"lr {rate_at(finder, step):.2e}  loss {losses[-1]:.4f}")
        log.flush()
    result = _result(run, config, losses)
    run.check_owner()
    publish(result)
    run.write_result(result)
    for left in list_states(run.checkpoints):
        left.unlink()
    return Outcome("done", first, len(losses), finder.num_steps)


def _step(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: TrainBatches, step: int, lr: float
) -> float:
    images, labels = batches.get(*divmod(step, batches.per_epoch))
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss = functional.cross_entropy(network(images), labels)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def _diverged(losses: Sequence[float], finder: LrFinder) -> bool:
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses, finder.smoothing)
    return len(losses) > _FLUSH_EVERY and smoothed[-1] > finder.diverge_factor * min(smoothed)


def _result(run: RunDir, config: Config, losses: list[float]) -> dict[str, Any]:
    finite = [loss for loss in losses if math.isfinite(loss)]
    rates = [rate_at(config.lr_finder, step) for step in range(len(finite))]
    smoothed = smooth(finite, config.lr_finder.smoothing)
    suggestion = suggest(rates, smoothed)
    _draw(run, rates, finite, smoothed, suggestion)
    return {
        "suggestion": suggestion,
        "seed": config.train.seed,
        "diverged": len(losses) < config.lr_finder.num_steps or len(finite) < len(losses),
        "steps": len(losses),
        "lr": rates,
        "loss": finite,
        "loss_smoothed": smoothed,
    }


def _draw(
    run: RunDir, rates: list[float], losses: list[float], smoothed: list[float], marks: dict[str, float | None]
) -> None:
    from src.figures import Curve, draw_curves

    curves = [Curve("loss", rates, losses, faint=True), Curve("smoothed", rates, smoothed)]
    lowest, start = min([*smoothed, *losses], default=0.0), next(iter(smoothed), 1.0)
    # A diverged tail would squeeze the part that matters into a line at the bottom.
    limits = (lowest - 0.1 * (start - lowest) - 0.05, start + 0.6 * abs(start - lowest) + 0.3)
    verticals = {f"{name}: {lr:.2e}": lr for name, lr in marks.items() if lr is not None}
    draw_curves(
        run.figure("lr_finder"), curves, "learning rate", "train loss", log_x=True, verticals=verticals, y_limits=limits
    )
