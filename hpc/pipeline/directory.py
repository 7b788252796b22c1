"""The directory of a chain of sweeps: what was asked, and how its links stand.

    runs/<chain>/    chain.yaml  profile.yaml  links.jsonl  code/  jobs/

A link is planned when the one before it is done, because it reads what that one found.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

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

STAGES = ("lr_sweep", "grid", "train", "evaluate")


@dataclass(frozen=True)
class Pipeline:
    """One chain's directory."""

    path: Path

    @property
    def name(self) -> str:
        """pipeline_20261122-101502."""
        return self.path.name

    @property
    def code(self) -> Path:
        """The code that its links are planned and submitted with."""
        return self.path / "code"

    @property
    def jobs(self) -> Path:
        """What the jobs that continue with the chain print."""
        return self.path / "jobs"

    @property
    def profile_file(self) -> Path:
        """The cluster profile as it was when the chain was made."""
        return self.path / "profile.yaml"

    @property
    def stages_file(self) -> Path:
        """A line for everything that became of a link, and for every job that continues the chain."""
        return self.path / "links.jsonl"

    def snapshot(self) -> Path:
        """The code of its stages. Raises RunError if it is gone or was changed."""
        if "snapshot" not in self.meta():
            self.use_new_code()  # Made by an earlier version.
        path = self.code / str(self.meta()["snapshot"])
        problem = snapshot_problem(path)
        if problem:
            raise RunError(
                f"{path}: is not the code that {self.name} was made with: {problem}; {new_code_hint(self.meta())}"
            )
        return path

    def use_new_code(self) -> None:
        """Go on with the code as it is now."""
        self._write({**self.meta(), "snapshot": keep_code(self.code).name})

    def use_profile(self, name: str, profile: Profile) -> None:
        """Submit its jobs under this profile from here on, and keep the command that asks for it."""
        replace_file(self.profile_file, yaml_file.dump_yaml(profile.model_dump(mode="json")))
        self._write({**self.meta(), "profile": name, "call": hints.to_keep()})

    def _write(self, meta: Mapping[str, Any]) -> None:
        replace_file(self.path / "chain.yaml", yaml_file.dump_yaml(meta))

    def meta(self) -> dict[str, Any]:
        """key, created, folder of the call, lr_factors, config, snapshot, profile, call.

        Raises RunError if this is no chain.
        """
        path = self.path / "chain.yaml"
        if not path.is_file():
            raise RunError(f"{self.path}: not the directory of a pipeline, there is no {path.name} in it")
        return records.PIPELINE.check(path, yaml_file.read_mapping(path))

    def config(self) -> Config:
        """The experiment as it was asked for."""
        return make_config(self.meta()["config"], f"{self.path}/chain.yaml")

    def record(self, **facts: Any) -> None:
        """Append what became of a link, or of a job."""
        append_lines(self.stages_file, [{**facts, "time": round(time.time(), 3)}])

    def standing(self) -> dict[str, dict[str, Any]]:
        """Link -> its newest line."""
        return {line["link"]: line for line in read_lines(self.stages_file, records.STAGE) if "link" in line}

    def job_names(self) -> list[str]:
        """Of the jobs that were submitted to continue with the chain."""
        return [line["job_name"] for line in read_lines(self.stages_file, records.STAGE) if "job_name" in line]


def find_same_pipeline(config: Config, lr_factors: Sequence[float]) -> Pipeline | None:
    """The newest chain of the same request."""
    key = _key_of(config, lr_factors)
    found = [pipeline for pipeline in all_pipelines(Path(config.paths.runs_dir)) if pipeline.meta()["key"] == key]
    return found[-1] if found else None


def make_pipeline(config: Config, lr_factors: Sequence[float], *, fresh: bool) -> Pipeline:
    """A new chain; with `fresh`, none of its sweeps is one that was made before."""
    created = datetime.now()
    pipeline = Pipeline(_free(Path(config.paths.runs_dir).absolute() / f"pipeline_{created:%Y%m%d-%H%M%S}"))
    meta: dict[str, Any] = {
        "key": _key_of(config, lr_factors),
        "created": created.isoformat(),
        "folder": str(Path.cwd()),
    }
    meta |= {"fresh": fresh, "snapshot": keep_code(pipeline.code).name, **_asked(config, lr_factors)}
    replace_file(pipeline.path / "chain.yaml", yaml_file.dump_yaml(meta))
    return pipeline


def _asked(config: Config, lr_factors: Sequence[float]) -> dict[str, Any]:
    return {"config": config.to_dict(), "lr_factors": [float(factor) for factor in lr_factors]}


def _key_of(config: Config, lr_factors: Sequence[float]) -> str:
    return hashlib.sha256(json.dumps(_asked(config, lr_factors), sort_keys=True).encode()).hexdigest()[:16]


def all_pipelines(runs_dir: Path) -> list[Pipeline]:
    """The chains below `runs_dir`, oldest first; damaged ones are skipped with a word."""
    found = []
    for path in runs_dir.absolute().glob("pipeline_*/chain.yaml"):
        try:
            found.append((Pipeline(path.parent).meta()["created"], path.parent.name, Pipeline(path.parent)))
        except RelayError as error:
            warn_once(f"skipped: {' '.join(str(error).split())}")
    return [pipeline for _, _, pipeline in sorted(found, key=lambda each: each[:2])]


def _free(wanted: Path) -> Path:
    for suffix in ["", *(f"-{number}" for number in range(2, 1000))]:
        path = wanted.with_name(wanted.name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{wanted}: a thousand pipelines of this name exist")
