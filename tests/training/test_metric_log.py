from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import RunError
from relay.files import read_lines
from relay.runs.rundir import RunDir
from src.training.metric_log import MetricsLog


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def scalars(run: RunDir, tag: str) -> list[tuple[int, float]]:
    """The scalars that TensorBoard's own reader returns."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run.path))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_rows_are_in_the_log_and_in_tensorboard(run: RunDir) -> None:
    with MetricsLog(run) as log:
        log.log(1, 0.5, {"train/loss": 2.0})
        log.log(2, 1.0, {"train/loss": 1.0, "val/accuracy": 0.25})
        log.flush()
    assert [(row["step"], row["train/loss"]) for row in read_lines(run.metrics_file)] == [(1, 2.0), (2, 1.0)]
    assert scalars(run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert scalars(run, "val/accuracy") == [(2, 0.25)]


def test_a_resumed_log_equals_one_of_a_single_attempt(run: RunDir) -> None:
    with MetricsLog(run) as log:
        log.log(1, 0.5, {"train/loss": 2.0})
        kept = log.flush()
        log.log(2, 1.0, {"train/loss": 9.0})
        log.flush()
    with MetricsLog(run, kept) as log:
        log.log(2, 1.0, {"train/loss": 1.0})
        log.flush()
    assert [row["train/loss"] for row in read_lines(run.metrics_file)] == [2.0, 1.0]
    assert scalars(run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 1


def test_a_log_shorter_than_the_state_has_seen_is_refused(run: RunDir) -> None:
    with MetricsLog(run) as log:
        log.log(1, 0.5, {"train/loss": 2.0})
        seen = log.flush()
    with pytest.raises(RunError, match="rows were lost"):
        MetricsLog(run, seen._replace(size=seen.size + 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"train/loss": 2.0', b'"train/loss": 0.2'), (b'"step": 1', b'"step": 2'), (b'"epoch": 0.5', b'"epoch": x.5')],
)
def test_rows_that_were_changed_since_the_state_saw_them_are_refused(run: RunDir, old: bytes, new: bytes) -> None:
    with MetricsLog(run) as log:
        log.log(1, 0.5, {"train/loss": 2.0})
        log.log(2, 1.0, {"train/loss": 1.0})
        seen = log.flush()
        log.log(3, 1.5, {"train/loss": 0.5})
        log.flush()
    whole = run.metrics_file.read_bytes()
    run.metrics_file.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(RunError, match=r"metrics\.jsonl: its first \d+ bytes are not those .* restore the file"):
        MetricsLog(run, seen)
    run.metrics_file.write_bytes(whole[:-3])
    with MetricsLog(run, seen) as log:
        assert log.flush() == seen
