"""What the logs command prints of a pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hpc.monitor.logs import show_logs
from hpc.pipeline.directory import make_pipeline
from relay.errors import RunError
from src.config.schema import Config
from tests.conftest import asked


def test_the_output_of_its_jobs_is_shown_without_the_link_in_logs(
    small: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = make_pipeline(asked(small()), fresh=False)
    with pytest.raises(RunError, match="no job that continues it has started yet"):
        show_logs(small().paths, pipeline.name, follow=False)
    pipeline.jobs.mkdir()
    for age_s, job in enumerate(("9", "10")):
        path = pipeline.jobs / f"{job}.out"
        path.write_text(f"printed by {job}\n")
        os.utime(path, (1e9 + age_s, 1e9 + age_s))
    show_logs(small().paths, pipeline.name, follow=False)
    shown = capsys.readouterr().out
    assert shown.index("printed by 9") < shown.index("printed by 10") < shown.index("to see the log of a stage")
