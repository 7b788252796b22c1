"""The directory of a pipeline: what was requested, and the state of each stage.

    runs/<pipeline>/    pipeline.yaml  profile.yaml  stages.jsonl  code/  jobs/

A stage is planned when the stage before it is done, because it needs that stage's result.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc.submission.plan import is_job_of
from hpc.submission.profile import Profile
from hpc.works import PIPELINE
from relay import hints
from relay.config import yaml_file
from relay.config.paths import paths_of
from relay.config.sections import Paths
from relay.errors import RelayError, RunError
from relay.files import append_lines, read_lines, replace_file
from relay.log import warn_once
from relay.runs import records
from relay.runs.code_snapshot import keep_code, new_code_hint, snapshot_problem
from relay.runs.numbering import next_number
from relay.runs.planning_lock import folder_lock
from relay.runs.rundir import SweepDir
from relay.runs.sweeps import Request

STAGES = PIPELINE.names


@dataclass(frozen=True)
class StageRecord:
    """How far a stage is: `planned`, `submitted`, `done`, `failed` or `cancelled`.

    `sweep`: the name of its sweep. `result`: of a stage that is done, in a few words; `reason`: why it failed.
    """

    stage: str
    state: str
    sweep: str | None = None
    result: str | None = None
    reason: str | None = None


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
        return self.path / "stages.jsonl"

    @property
    def meta_file(self) -> Path:
        """What was requested, and the snapshot of the code."""
        return self.path / "pipeline.yaml"

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
        replace_file(self.meta_file, yaml_file.dump_yaml(meta))

    def meta(self) -> dict[str, Any]:
        """The content of pipeline.yaml: key, number, created, folder (the working directory), fresh, config and
        options (what was asked for), snapshot and call (the command line and the profile).

        Raises RunError if this is not the directory of a pipeline.
        """
        path = self.meta_file
        if not path.is_file():
            raise RunError(f"{self.path}: not the directory of a pipeline, there is no {path.name} in it")
        return records.PIPELINE.check(path, yaml_file.read_mapping(path))

    def paths(self) -> Paths:
        """Where results go, as in the configuration that the pipeline was started with."""
        return paths_of(self.meta()["config"], self.meta_file)

    def request(self, stage: str) -> Request:
        """The request of a stage. Raises RunError if an earlier stage gave no usable result, or is not planned yet."""
        return PIPELINE[stage].request(self.meta(), _Planned(self))

    def record_stage(self, record: StageRecord) -> None:
        """Append how far a stage is now."""
        self._append({name: value for name, value in asdict(record).items() if value is not None})

    def record_job(self, name: str, *, after: str | None = None, unseen: str | None = None) -> None:
        """Append a job that continues the pipeline `after` a stage, or that it was accepted and never seen."""
        facts = {"job_name": name, "after": after, "unseen": unseen}
        self._append({name: value for name, value in facts.items() if value is not None})

    def _append(self, facts: Mapping[str, Any]) -> None:
        append_lines(self.stages_file, [{**facts, "time": round(time.time(), 3)}])

    def stage_records(self) -> dict[str, StageRecord]:
        """Stage -> how far it is; stages that were never planned are missing. Raises RunError if a line is damaged."""
        newest = {line["stage"]: line for line in self._lines() if "stage" in line}
        return {
            stage: StageRecord(stage, line["state"], line.get("sweep"), line.get("result"), line.get("reason"))
            for stage, line in newest.items()
        }

    def _lines(self) -> list[dict[str, Any]]:
        return read_lines(self.stages_file, records.STAGE)

    def stage_sweep(self, stage: str) -> SweepDir | None:
        """The sweep of a stage. None if the stage is not planned yet."""
        record = self.stage_records().get(stage)
        return SweepDir(self.path.parent / record.sweep) if record and record.sweep else None

    def stage_sweeps(self) -> list[SweepDir]:
        """The sweeps of the stages that are planned, in the order of the stages."""
        return [sweep for stage in STAGES if (sweep := self.stage_sweep(stage))]

    def job_names(self) -> list[str]:
        """The names of the jobs that were submitted to continue the pipeline."""
        names = dict.fromkeys(line.get("job_name", "") for line in self._lines())
        return [name for name in names if is_job_of(self.path, name)]

    def unseen_job(self) -> str:
        """What sbatch said of the newest job that continues the pipeline, if it was accepted and never seen; else "".

        A cancel of the pipeline settles it.
        """
        unseen = ""
        for line in self._lines():
            if "job_name" in line:
                unseen = line.get("unseen", "")
            elif line["state"] == "cancelled":
                unseen = ""
        return unseen


class _Planned(Mapping[str, SweepDir]):
    """The sweeps of a pipeline by stage. A stage that is not planned yet raises RunError."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def __getitem__(self, stage: str) -> SweepDir:
        sweep = self._pipeline.stage_sweep(stage)
        if sweep is None:
            raise RunError(f"{self._pipeline.name}: its stage {stage} is not planned yet")
        return sweep

    def __iter__(self) -> Iterator[str]:
        return (stage for stage in STAGES if self._pipeline.stage_sweep(stage))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def find_same_pipeline(asked: Mapping[str, Any]) -> Pipeline | None:
    """The newest pipeline of which the same was asked. None if there is none."""
    key, runs_dir = _key_of(asked), paths_of(asked["config"], "config").runs
    same = [pipeline for pipeline in all_pipelines(runs_dir) if pipeline.meta()["key"] == key]
    return same[-1] if same else None


def make_pipeline(asked: Mapping[str, Any], *, fresh: bool) -> Pipeline:
    """Make the directory of a new pipeline. With `fresh`, its stages never continue sweeps that exist already."""
    runs_dir, created = paths_of(asked["config"], "config").runs.absolute(), datetime.now(UTC)
    with folder_lock(runs_dir):
        pipeline = Pipeline(_make_directory(runs_dir / f"pipeline_{created:%Y%m%d-%H%M%S}"))
        meta: dict[str, Any] = {
            "key": _key_of(asked),
            "number": next_number(runs_dir),
            "created": created.isoformat(timespec="seconds"),
            "folder": str(Path.cwd()),
            "fresh": fresh,
            "snapshot": keep_code(pipeline.code).name,
            "call": hints.to_keep("pipeline"),
            **asked,
        }
        replace_file(pipeline.meta_file, yaml_file.dump_yaml(meta))
    return pipeline


def _key_of(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(asked), sort_keys=True).encode()).hexdigest()[:16]


def all_pipelines(runs_dir: Path) -> list[Pipeline]:
    """The pipelines in `runs_dir`, oldest first. A damaged one is skipped with a warning."""
    pipelines = []
    for path in runs_dir.absolute().glob("pipeline_*/pipeline.yaml"):
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
