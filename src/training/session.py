"""What trainings and LR sweeps share: how a run is opened, resumed, saved and finished."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from relay.log import log
from relay.program.rows import Seen
from relay.program.states import load_newest, restoring, save_state
from relay.progress import Reporter, StopCheck
from relay.runs.environment import Environment, differences, environment_of
from relay.runs.lifecycle import Publish, memory_of_attempts, note_first_step, note_steps, write_provenance
from relay.runs.planned import check_as_planned, frozen_project
from relay.runs.rundir import RunDir
from src.config.keys import Facts, content_key, name_of_images
from src.config.loading import config_of
from src.config.project import linked_digest
from src.config.schema import Config
from src.data.dataset import ImageData, load
from src.training.device import device_facts, packages_of
from src.training.learner import Learner
from src.training.metric_log import MetricsLog


@contextlib.contextmanager
def in_project(run: RunDir) -> Iterator[None]:
    """Inside the block, the current folder is the frozen project, if the run has code of a user: their relative paths
    start there. Raises RunError if that code was changed.
    """
    if not config_of(run).own_code:
        yield
        return
    with contextlib.chdir(frozen_project(run)):
        yield


class Session:
    """One attempt at a run, in its directory; `facts` are those of its work.

    The caller resumes the run, opens the log, works and saves, and finishes, in this order. Nothing is written before
    `resume`.
    """

    log: MetricsLog

    def __init__(self, run: RunDir, facts: Facts, should_stop: StopCheck, reporter: Reporter, publish: Publish) -> None:
        """Read the configuration and the images, and build the learner.

        Raises DataError if the images are missing or not those that the run was planned with, and RunError if its
        config.yaml was edited.
        """
        self.run, self.should_stop, self.reporter, self.publish = run, should_stop, reporter, publish
        self.config: Config = config_of(run)
        self._project = frozen_project(run) if self.config.own_code else None
        self.data: ImageData = load(self.config)
        self.key = content_key(self.config, facts)
        check_as_planned(run, self.key, self.data.digest, name_of_images(self.config))
        self.learner = Learner(self.config, self.data.train)
        # The metrics that the restored state has seen. Later rows belong to steps that are repeated.
        self._seen = Seen()
        self._has_begun = False
        # Those in which the state was computed; the last one is not always that of this process.
        self._environments: list[Environment] = []

    def resume(
        self, problem_of: Callable[[Mapping[str, Any]], str], restore: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Restore the newest usable state, if there is one: the learner here, the caller's own part by `restore`.

        `problem_of` returns why a state cannot be used, or "". Raises CheckpointError if a state cannot be read or does
        not fit the run.
        """
        self._environments = [self._environment()]
        project = {"project": self._project.name, "links": linked_digest(self.config)} if self._project else {}
        write_provenance(self.run, str(self.learner.device), self._environments[0], **project)
        saved = load_newest(self.run.checkpoints, problem_of, log.info)
        if saved is None:
            return
        with restoring(self.run.checkpoints, saved):
            self.learner.load_state_dict(saved)
            restore(saved)
        self._seen = Seen(saved["metrics_bytes"], saved["metrics_digest"])
        environment = self._environment()
        self._environments = saved["environments"]
        changes = [differences(earlier, environment) for earlier in self._environments]
        if all(changes):
            self._environments.append(environment)
            log.warning(
                f"{self.run.label}: resumes in another environment ({changes[-1]}); its last digits can differ from "
                "those of an uninterrupted run, and tables and the report will say so"
            )

    def _environment(self) -> Environment:
        # A resumed run that was compiled is not, if this machine has no compiler.
        compiled = {"compiled": str(self.learner.numerics.compiled)} if self.config.train.compile else {}
        return environment_of({**device_facts(self.learner.device), **packages_of(self.config), **compiled})

    def open_log(self, first_step: int, total_steps: int, *, in_hparams: bool) -> MetricsLog:
        """Record where the attempt begins, and open the metrics log without the rows that the state has not seen.

        `in_hparams`: whether the run takes part in TensorBoard's HParams.
        """
        note_steps(self.run, first_step, total_steps, self._environments)
        self.log = MetricsLog(self.run, self._seen, self.config if in_hparams else None)
        return self.log

    def note_work(self) -> None:
        """Record when the attempt's overhead was over. Called after each step, and before an evaluation."""
        if not self._has_begun:
            self._has_begun = True
            note_first_step(self.run)

    def save(self, step: int, content: Mapping[str, Any], keep: int) -> None:
        """Save the state after `step` steps: the learner's and `content`. Keeps the newest `keep` states."""
        # Flushed before the state is written: a state must not refer to rows that a power cut can lose.
        seen = self.log.flush()
        state = {
            "key": self.key,
            "environments": self._environments,
            **self.learner.state_dict(),
            **content,
            "metrics_bytes": seen.size,
            "metrics_digest": seen.digest,
        }
        save_state(self.run.checkpoints, step, state, keep, self.run.check_owner)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Publish the result, then write it, which makes the run done. A kill in between repeats both.

        The written one also has the environments in which it was computed, and the peak memory of all attempts.
        """
        self.run.check_owner()
        self.publish(result)
        self.run.write_result({**result, "environments": self._environments, **memory_of_attempts(self.run)})
