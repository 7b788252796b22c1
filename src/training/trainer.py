"""The training loop: step, evaluate, log, save, and stop when asked.

Two numbers give the position of a run: the optimizer step, and the step of the last evaluation. Batches, augmentation
and learning rate are functions of the step, so a resumed run computes exactly what an uninterrupted one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from relay import hints
from relay.errors import CheckpointError
from relay.files import replace_file, size_of
from relay.log import log
from relay.program.trace import Trace, until
from relay.progress import Reporter, StopCheck
from relay.runs.event_file import figure_tag
from relay.runs.lifecycle import Outcome, Publish
from relay.runs.predictions import Predictions
from relay.runs.rundir import RunDir
from src.config.keys import TRAINING
from src.training.columns import training_columns
from src.training.examples import examples_png
from src.training.measures import half_scores
from src.training.metrics import evaluate_split
from src.training.optim import scheduled_lr
from src.training.session import Session, in_project
from src.training.state import FORMAT, TrainingState, state_problem
from src.training.weights import save_weights

# For people who watch the run. A checkpoint flushes the log in any case.
_FLUSH_EVERY_S = 5.0
# An attempt saves its first state early: a kill before checkpoint.every_minutes would cost all of it.
_FIRST_SAVE_S = 30.0


class Trainer:
    """One attempt at a training."""

    def __init__(self, session: Session) -> None:
        self.session, self.run, self.config = session, session.run, session.config
        self.reporter, self.should_stop = session.reporter, session.should_stop
        self.learner, self.loader = session.learner, session.learner.loader
        total = self.config.train.epochs * self.loader.per_epoch
        self.total_steps = min(total, self.config.train.max_steps or total)
        self.state = TrainingState()
        self.save_s = 0.0
        self._trace, self._until = Trace(), until()

    def execute(self) -> Outcome:
        """Train from the newest checkpoint to the end, or to the next step boundary after `should_stop` returns true.

        Saves the state in both cases.
        """
        self._resume()
        first_step = self.state.step
        with self.session.open_log(first_step, self.total_steps, in_hparams=True) as self.log:
            if examples := examples_png(self.config, self.loader):
                self.log.image(figure_tag("before_and_after_augmentation"), examples)
            self._flushed_at = time.monotonic()
            done = self._loop()
            self._save(keep=1 if done else self.config.checkpoint.keep)
            if done:
                self.log.end(self.state.best, diverged=self.state.diverged)
        if done:
            result = self._result()
            self.session.finish({**result, "columns": training_columns(self.config.metrics, result)})
        status: Literal["done", "stopped"] = "done" if done else "stopped"
        return Outcome(status, first_step, self.state.step, self.total_steps, round(self.save_s, 3))

    def _resume(self) -> None:
        """Restore the newest checkpoint, if there is one."""
        self.session.resume(self._problem_of, lambda saved: self.state.load_state_dict(saved, self.learner.device))
        # These files may be of a later epoch than this state, if the previous attempt was killed.
        if self.state.best is not None:
            self._write_best()
            self._write_predictions()
        if self.state.step:
            log.info(f"{self.run.label}: resumes from step {self.state.step} of {self.total_steps}")

    def _loop(self) -> bool:
        """Returns True if the run is complete, False if it was stopped."""
        state = self.state
        self._saved_at = time.monotonic()
        self._restart_clock()
        while True:
            self._trace.note(state.step, self.learner.state_dict)
            if self._evaluation_due() and not self._evaluate():
                return False
            if state.step >= self.total_steps or state.diverged:
                return True
            if self.should_stop() or state.step >= self._until:
                return False
            self._step()
            self.session.note_work()
            if state.step % self.config.metrics.log_every_steps == 0 or self._at_epoch_end():
                self._log_train()
            if self._save_due():
                self._save(self.config.checkpoint.keep)

    def _step(self) -> None:
        state, train, per_epoch = self.state, self.config.train, self.loader.per_epoch
        if state.step % per_epoch == 0:
            state.start_epoch(self.learner.device)
        lr = scheduled_lr(train.scheduler, train.optimizer.lr, state.step, self.total_steps, per_epoch)
        loss, logits, labels = self.learner.step(state.step, lr)
        state.add_step(loss, logits, labels)
        self._window_images += len(labels)

    def _log_train(self) -> None:
        state = self.state
        loss = state.take_mean_loss()
        seconds = time.monotonic() - self._window_start
        state.train_seconds += seconds
        # Checked only here: looking at the loss makes the host wait for the device.
        state.diverged = not math.isfinite(loss)
        values = {
            "train/lr": self.learner.optimizer.param_groups[0]["lr"],
            "train/images_per_s": round(self._window_images / seconds, 1),
        }
        if not state.diverged:
            values["train/loss"] = state.train["loss"] = loss
        if self._at_epoch_end() and not state.diverged:
            means = state.epoch_means()
            state.train |= means
            values |= {f"train/{name}": value for name, value in means.items()}
        self.log.log(state.step, state.step / self.loader.per_epoch, values)
        self._restart_clock()
        if self._window_start - self._flushed_at > _FLUSH_EVERY_S:
            self.log.flush()
            self._flushed_at = time.monotonic()
        self.reporter.advance(state.step, self.total_steps, self._progress_text())
        if state.diverged:
            log.info(f"{self.run.label}: the loss is {loss} at step {state.step}; the run ends as diverged")

    def _restart_clock(self) -> None:
        """Start the interval over which the next row measures images per second. Evaluations are not part of it."""
        self._window_start, self._window_images = time.monotonic(), 0

    def _evaluation_due(self) -> bool:
        state = self.state
        due = state.step == self.total_steps or (state.step > 0 and self._at_epoch_end())
        return due and state.evaluated_step != state.step and not self.config.train.overfit_small and not state.diverged

    def _evaluate(self) -> bool:
        """Evaluate on val, and keep the weights if they are the best so far. Returns False if it was stopped."""
        self.session.note_work()
        with self.learner.with_evaluated_weights():
            return self._evaluate_network()

    def _evaluate_network(self) -> bool:
        state = self.state
        learner = self.learner
        generators = learner.generators()
        measured = evaluate_split(
            learner.network, self.session.data.val, self.config, learner.device, self.should_stop, learner.forward
        )
        if measured is None:
            # It is repeated from its start, and a network may draw from them in evaluation, too.
            learner.set_generators(generators)
            return False
        values, predictions = measured
        state.evaluated_step = state.step
        state.last = values
        epoch = state.step / self.loader.per_epoch
        finite = {f"val/{name}": value for name, value in values.items() if math.isfinite(value)}
        self.log.log(state.step, epoch, finite)
        if math.isfinite(values["loss"]):
            self._keep_if_best(values, predictions)
        shown = "  ".join(f"val/{name} {values[name]:.4f}" for name in self.config.metrics.columns[:2])
        log.info(f"{self.run.label}: epoch {round(epoch, 2):g}  {shown}")
        self._restart_clock()
        return True

    def _keep_if_best(self, values: Mapping[str, float], predictions: Predictions) -> None:
        state, epoch = self.state, self.state.step / self.loader.per_epoch
        is_best = self._is_best(values)
        scores = half_scores(predictions, self.config.metrics.select, self.config.model.classes)
        kept = state.keep_predictions(predictions, scores, is_best=is_best)
        if is_best:
            state.best, state.best_weights = {"step": state.step, "epoch": epoch, **values}, self.learner.copy_weights()
            # Durable first: best.ckpt must not name an epoch that the metrics do not have.
            self.log.flush()
            self._write_best()
        if kept:
            self._write_predictions()

    def _is_best(self, values: Mapping[str, float]) -> bool:
        best, select = self.state.best, self.config.metrics.select
        return best is None or select.score(values[select.name]) > select.score(best[select.name])

    def _write_best(self) -> None:
        state = self.state
        content = {
            "format": FORMAT,
            "model_state_dict": state.best_weights,
            "config": self.config.to_dict(),
            "metrics": state.best,
            "class_names": list(self.session.data.class_names),
            "run": self.run.label,
        }
        save_weights(self.run.best_file, content, self.run.check_owner)

    def _write_predictions(self) -> None:
        predictions = self.state.best_predictions
        assert predictions is not None
        replace_file(self.run.predictions_file, predictions.numpy().tobytes(), check=self.run.check_owner)

    def _save_due(self) -> bool:
        every = self.config.checkpoint
        if every.every_steps is not None and self.state.step % every.every_steps == 0:
            return True
        if every.every_minutes is None:
            return False
        interval_s = 60 * every.every_minutes
        return time.monotonic() - self._saved_at >= (interval_s if self.save_s else min(interval_s, _FIRST_SAVE_S))

    def _save(self, keep: int) -> None:
        begun = time.monotonic()
        content = {"format": FORMAT, "total_steps": self.total_steps, **self.state.state_dict()}
        self.session.save(self.state.step, content, keep)
        self._saved_at = time.monotonic()
        self.save_s = max(self.save_s, self._saved_at - begun)

    def _problem_of(self, state: Mapping[str, Any]) -> str:
        """Why a saved state cannot be used, or "". Raises CheckpointError if the run must not continue without it."""
        # Raised, not returned: a run that skips such states starts over, and its first save removes them.
        if isinstance(state.get("format"), int) and state["format"] != FORMAT:
            raise CheckpointError(
                f"{self.run.label}: its checkpoints have format {state['format']}, but this version reads {FORMAT}; "
                f"continue with the version that wrote them; to start over: {hints.again('--fresh')}"
            )
        if problem := state_problem(state, training=True):
            return problem
        if state["key"] != self.session.key:
            raise CheckpointError(
                f"{self.run.checkpoints}: its states are of another configuration than {self.run.config_file.name}; "
                "restore it, or ask for the changed experiment, which gets a run of its own"
            )
        size = size_of(self.run.metrics_file)
        seen = state["metrics_bytes"]
        return f"metrics.jsonl has {size} bytes, but the checkpoint has seen {seen}" if size < seen else ""

    def _at_epoch_end(self) -> bool:
        return self.state.step % self.loader.per_epoch == 0 or self.state.step == self.total_steps

    def _progress_text(self) -> str:
        state = self.state
        parts = [f"epoch {state.step / self.loader.per_epoch:.2f}/{self.config.train.epochs}"]
        parts += [f"loss {state.train['loss']:.4f}"] if "loss" in state.train else []
        select = self.config.metrics.select
        parts += [f"best {select.column} {state.best[select.name]:.4f}"] if state.best else []
        return "  ".join(parts)

    def _result(self) -> dict[str, Any]:
        state = self.state
        finite = {name: value for name, value in state.last.items() if math.isfinite(value)}
        images = state.step * self.loader.images_per_epoch / self.loader.per_epoch
        return {
            "outcome": "completed" if not state.diverged and len(finite) == len(state.last) else "diverged",
            "train_images": self.loader.images_per_epoch,
            "steps": state.step,
            "epochs": state.step / self.loader.per_epoch,
            "train": state.train,
            "val": finite,
            "best": None if state.best is None else dict(state.best),
            "parameters": self.learner.parameter_count(),
            "train_seconds": round(state.train_seconds, 3),
            "images_per_s": round(images / state.train_seconds, 1) if state.train_seconds else None,
            "device": str(self.learner.device),
        }


def train(run: RunDir, should_stop: StopCheck, reporter: Reporter, publish: Publish = lambda result: None) -> Outcome:
    """Execute the training of `run`, from its newest checkpoint. `publish` is called before the result is written.

    Raises CheckpointError if a state cannot be read or written, DataError if the images are missing or not those that
    the run was planned with, RunError if its config.yaml was edited.
    """
    with in_project(run):
        return Trainer(Session(run, TRAINING, should_stop, reporter, publish)).execute()
