"""The directory of a chain of sweeps: what was asked, and how its links stand.

    runs/<chain>/    chain.yaml  profile.yaml  links.jsonl  code/  jobs/

A link is planned when the one before it is done, because it reads what that one found.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc.cluster import Profile
from src import records, yaml_file
from src.code_snapshot import NEW_CODE_HINT, keep_code, snapshot_problem
from src.config import Config, make_config
from src.errors import RelayError, RunError
from src.files import append_lines, read_lines, replace_file

LINKS = ("lr_sweep", "grid", "train", "evaluate")


@dataclass(frozen=True)
class Chain:
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
        """What the jobs that go on with the chain print."""
        return self.path / "jobs"

    @property
    def profile_file(self) -> Path:
        """The cluster profile as it was when the chain was made."""
        return self.path / "profile.yaml"

    @property
    def links_file(self) -> Path:
        """A line for everything that became of a link, and for every job that goes on with the chain."""
        return self.path / "links.jsonl"

    def snapshot(self) -> Path:
        """The code of its stages. Raises RunError where it is gone or was changed."""
        if "snapshot" not in self.meta():
            self.use_new_code()  # Made by an earlier version.
        path = self.code / str(self.meta()["snapshot"])
        problem = snapshot_problem(path)
        if problem:
            raise RunError(f"{path}: is not the code that {self.name} was made with: {problem}; {NEW_CODE_HINT}")
        return path

    def use_new_code(self) -> None:
        """Go on with the code as it is now."""
        content = {**self.meta(), "snapshot": keep_code(self.code).name}
        replace_file(self.path / "chain.yaml", yaml_file.dump_yaml(content))

    def meta(self) -> dict[str, Any]:
        """key, created, folder of the call, lr_factors, config, snapshot. Raises RunError where this is no chain."""
        path = self.path / "chain.yaml"
        if not path.is_file():
            raise RunError(f"{self.path}: not the directory of a pipeline, there is no {path.name} in it")
        return records.CHAIN.check(path, yaml_file.read_mapping(path))

    def config(self) -> Config:
        """The experiment as it was asked for."""
        return make_config(self.meta()["config"], f"{self.path}/chain.yaml")

    def record(self, **facts: Any) -> None:
        """Append what became of a link, or of a job."""
        append_lines(self.links_file, [{**facts, "time": round(time.time(), 3)}])

    def standing(self) -> dict[str, dict[str, Any]]:
        """Link -> its newest line."""
        return {line["link"]: line for line in read_lines(self.links_file, records.LINK) if "link" in line}

    def job_names(self) -> list[str]:
        """Of the jobs that were submitted to go on with the chain."""
        return [line["job_name"] for line in read_lines(self.links_file, records.LINK) if "job_name" in line]


def open_chain(config: Config, profile: Profile, lr_factors: Sequence[float], *, fresh: bool) -> tuple[Chain, bool]:
    """The newest chain of the same request, or a new one. True where it is new."""
    runs_dir = Path(config.paths.runs_dir).absolute()
    asked = {"config": config.to_dict(), "lr_factors": [float(factor) for factor in lr_factors]}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    found = [chain for chain in chains(runs_dir) if chain.meta()["key"] == key]
    if found and not fresh:
        replace_file(found[-1].profile_file, yaml_file.dump_yaml(profile.model_dump(mode="json")))
        return found[-1], False
    created = datetime.now()
    chain = Chain(_free(runs_dir / f"pipeline_{created:%Y%m%d-%H%M%S}"))
    replace_file(chain.profile_file, yaml_file.dump_yaml(profile.model_dump(mode="json")))
    meta = {"key": key, "created": created.isoformat(), "folder": str(Path.cwd()), "fresh": fresh, **asked}
    meta["snapshot"] = keep_code(chain.code).name
    replace_file(chain.path / "chain.yaml", yaml_file.dump_yaml(meta))
    return chain, True


def chains(runs_dir: Path) -> list[Chain]:
    """The chains below `runs_dir`, oldest first; damaged ones are passed over with a word."""
    found = []
    for path in runs_dir.glob("pipeline_*/chain.yaml"):
        try:
            Chain(path.parent).meta()
            found.append(Chain(path.parent))
        except RelayError as error:
            print(f"passed over: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return sorted(found, key=lambda chain: (str(chain.meta()["created"]), chain.name))


def _free(wanted: Path) -> Path:
    for suffix in ["", *(f"-{number}" for number in range(2, 1000))]:
        path = wanted.with_name(wanted.name + suffix)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise RunError(f"{wanted}: a thousand pipelines of this name exist")
