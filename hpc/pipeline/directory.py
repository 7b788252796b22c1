"""The directory of a pipeline: what was requested, and the state of each stage.

    runs/<pipeline>/    chain.yaml  profile.yaml  links.jsonl  code/  jobs/

A stage is planned when the stage before it is done, because it needs that stage's result.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc.submission.plan import is_job_of
from hpc.submission.profile import Profile
from src import hints
from src.config import yaml_file
from src.config.loading import make_config
from src.config.schema import Config
from src.errors import RelayError, RunError
from src.files import append_lines, read_lines, replace_file
from src.log import warn_once
from src.runs import records
from src.runs.code_snapshot import keep_code, new_code_hint, snapshot_problem
from src.runs.numbering import next_number
from src.runs.planning_lock import folder_lock
from src.runs.rundir import SweepDir

# The files on disk keep the words of earlier versions, so that pipelines made then can be continued: a pipeline was
# called a chain (chain.yaml) and a stage a link (links.jsonl, key "link").
STAGES = ("lr_sweep", "grid", "train", "evaluate")


@dataclass(frozen=True)
class Pipeline:
    """The directory of one pipeline."""

    path: Path

    @property
    def name(self) -> str:
        """pipeline_20261122-101502."""
        return self.path.name

    @property
    def code(self) -> Path:
        """Snapshots of the code that plans and submits its stages."""
        return self.path / "code"

    @property
    def jobs(self) -> Path:
        """The output of the jobs that continue the pipeline."""
        return self.path / "jobs"

    @property
    def profile_file(self) -> Path:
        """A copy of the cluster profile: editing the profile does not change a pipeline that is under way."""
        return self.path / "profile.yaml"

    @property
    def stages_file(self) -> Path:
        """One line for each change of a stage's state, and for each job that continues the pipeline."""
        return self.path / "links.jsonl"

    def snapshot(self) -> Path:
        """The snapshot with the code of its stages. Raises RunError if it is missing or was changed."""
        path = self.code / str(self.meta()["snapshot"])
        problem = snapshot_problem(path)
        if problem:
            raise RunError(
                f"{path}: is not the code that {self.name} was made with: {problem}; {new_code_hint(self.meta())}"
            )
        return path

    def use_new_code(self) -> None:
        """Continue with the current code."""
        self._write({**self.meta(), "snapshot": keep_code(self.code).name})

    def use_profile(self, name: str, profile: Profile) -> None:
        """Submit its jobs under this profile from now on, and save the command line for later hints."""
        replace_file(self.profile_file, yaml_file.dump_yaml(profile.model_dump(mode="json")))
        self._write({**self.meta(), "call": hints.to_keep("pipeline", name)})

    def _write(self, meta: Mapping[str, Any]) -> None:
        replace_file(self.path / "chain.yaml", yaml_file.dump_yaml(meta))

    def meta(self) -> dict[str, Any]:
        """The content of chain.yaml: key, number, created, folder (the working directory), fresh, lr_factors, config,
        snapshot and call (the command line and the profile).

        Raises RunError if this is not the directory of a pipeline.
        """
        path = self.path / "chain.yaml"
        if not path.is_file():
            raise RunError(f"{self.path}: not the directory of a pipeline, there is no {path.name} in it")
        return records.PIPELINE.check(path, yaml_file.read_mapping(path))

    def config(self) -> Config:
        """The configuration that the pipeline was started with."""
        return make_config(self.meta()["config"], f"{self.path}/chain.yaml")

    def record(self, **facts: Any) -> None:
        """Append one line about a stage or a job, with the current time."""
        append_lines(self.stages_file, [{**facts, "time": round(time.time(), 3)}])

    def stage_records(self) -> dict[str, dict[str, Any]]:
        """Stage -> its newest line in links.jsonl; stages without a line are missing."""
        return {line["link"]: line for line in self.lines() if "link" in line}

    def lines(self) -> list[dict[str, Any]]:
        """All lines of links.jsonl, in order. Raises RunError if it is damaged."""
        return read_lines(self.stages_file, records.STAGE)

    def stage_sweep(self, stage: str) -> SweepDir | None:
        """The sweep of a stage. None if the stage is not planned yet."""
        name = self.stage_records().get(stage, {}).get("sweep")
        return SweepDir(self.path.parent / str(name)) if name else None

    def stage_sweeps(self) -> list[SweepDir]:
        """The sweeps of the stages that are planned, in the order of the stages."""
        return [sweep for stage in STAGES if (sweep := self.stage_sweep(stage))]

    def job_names(self) -> list[str]:
        """The names of the jobs that were submitted to continue the pipeline."""
        names = dict.fromkeys(line.get("job_name", "") for line in self.lines())
        return [name for name in names if is_job_of(self.path, name)]


def find_same_pipeline(config: Config, lr_factors: Sequence[float]) -> Pipeline | None:
    """The newest pipeline with the same configuration and factors. None if there is none."""
    key = _key_of(config, lr_factors)
    same = [pipeline for pipeline in all_pipelines(Path(config.paths.runs_dir)) if pipeline.meta()["key"] == key]
    return same[-1] if same else None


def make_pipeline(config: Config, lr_factors: Sequence[float], *, fresh: bool) -> Pipeline:
    """Make the directory of a new pipeline. With `fresh`, its stages never continue sweeps that exist already."""
    runs_dir, created = Path(config.paths.runs_dir).absolute(), datetime.now(UTC)
    with folder_lock(runs_dir):
        pipeline = Pipeline(_make_directory(runs_dir / f"pipeline_{created:%Y%m%d-%H%M%S}"))
        meta: dict[str, Any] = {
            "key": _key_of(config, lr_factors),
            "number": next_number(runs_dir),
            "created": created.isoformat(timespec="seconds"),
            "folder": str(Path.cwd()),
            "fresh": fresh,
            "snapshot": keep_code(pipeline.code).name,
            "call": hints.to_keep("pipeline"),
            **_request_of(config, lr_factors),
        }
        replace_file(pipeline.path / "chain.yaml", yaml_file.dump_yaml(meta))
    return pipeline


def _request_of(config: Config, lr_factors: Sequence[float]) -> dict[str, Any]:
    return {"config": config.to_dict(), "lr_factors": [float(factor) for factor in lr_factors]}


def _key_of(config: Config, lr_factors: Sequence[float]) -> str:
    return hashlib.sha256(json.dumps(_request_of(config, lr_factors), sort_keys=True).encode()).hexdigest()[:16]


def all_pipelines(runs_dir: Path) -> list[Pipeline]:
    """The pipelines in `runs_dir`, oldest first. A damaged one is skipped with a warning."""
    pipelines = []
    for path in runs_dir.absolute().glob("pipeline_*/chain.yaml"):
        try:
            pipeline = Pipeline(path.parent)
            pipelines.append((pipeline.meta()["number"], pipeline.name, pipeline))
        except RelayError as error:
            warn_once(f"skipped: {' '.join(str(error).split())}")
    return [pipeline for _, _, pipeline in sorted(pipelines, key=lambda each: each[:2])]


def _make_directory(wanted: Path) -> Path:
    # mkdir fails if the directory exists, so two pipelines started in the same second cannot share one.
    for suffix in ["", *(f"-{number}" for number in range(2, 1000))]:
        path = wanted.with_name(wanted.name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{wanted}: a thousand pipelines of this name exist")
