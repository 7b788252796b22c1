"""The examples of scripts: what they are given, and what they write, read without the code of Relay that does so."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.results.foreign.event_files import read_events

# The steps of a run, and between two checkpoints. Every step is logged.
TOTAL, SAVE = 160, 20

# A step and its loss.
Logged = tuple[int, float]


@dataclass(frozen=True)
class Kind:
    """One example. `params`: for steps of a few hundredths of a second. `workers`: the parameter that is the number of
    processes that load data. `pattern`: of its checkpoints. `torn`: which file of a checkpoint is cut off, "" for
    itself. `logged`: what all attempts have logged, in order, repeated steps included. `loss`: the name of the loss
    that is logged at every step; `select`: of the one by which runs are ranked. `command`: in place of the example's.
    """

    script: str
    params: Mapping[str, Any]
    workers: str
    pattern: str
    torn: str
    logged: Callable[[Path], Sequence[Logged]]
    loss: str
    select: str
    command: str | None = None

    def checkpoints(self, work: Path) -> dict[int, Path]:
        """Step -> checkpoint, of those that are complete."""
        found = {int(re.findall(r"\d+", path.name)[-1]): path for path in work.glob(self.pattern)}
        return {step: path for step, path in sorted(found.items()) if _is_complete(path)}


def _is_complete(path: Path) -> bool:
    """Whether all of it can be read. Files of safetensors, which are written first, are not looked at."""
    names = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
    try:
        for file in [path / name for name in names] if path.is_dir() else [path]:
            if file.suffix == ".json":
                json.loads(file.read_text())
            elif zipfile.ZipFile(file).testzip():
                return False
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return True


def _rows(file: Path) -> list[dict[str, str]]:
    """The complete rows of a table, which may not be there yet."""
    text = file.read_text() if file.exists() else ""
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def _logged_by_script(work: Path) -> list[Logged]:
    return [(int(row["step"]), float(row["loss"])) for row in _rows(work / "out" / "log.csv")]


def _logged_by_lightning(work: Path) -> list[Logged]:
    """A file for each attempt. The step 0 is the first one."""
    folders = sorted((work / "out").glob("version_*"), key=lambda folder: int(folder.name.partition("_")[2]))
    rows = [row for folder in folders for row in _rows(folder / "metrics.csv")]
    return [(int(row["step"]) + 1, float(row["train_loss"])) for row in rows if row["train_loss"]]


def _logged_by_trainer(work: Path) -> list[Logged]:
    """A file of TensorBoard for each attempt, with the time of its begin in its name; and one for the evaluation."""
    files = sorted(work.glob("out/runs/*/*tfevents*"), key=lambda file: file.name)
    scalars = [read_events([file]).scalars.get("train/loss", ((), ())) for file in files]
    return [logged for steps, losses in scalars for logged in zip(steps, losses, strict=True)]


_HUGGINGFACE = (
    "python run_clm.py --output_dir out --do_train --do_eval --report_to tensorboard --disable_tqdm true "
    "--enable_jit_checkpoint true --save_total_limit 2 --eval_strategy steps {args}"
)

KINDS = {
    "script": Kind(
        script="train.py",
        params={"steps": TOTAL, "save-every": SAVE, "eval-every": SAVE, "batch": 128},
        workers="workers",
        pattern="out/step-*.pt",
        torn="",
        logged=_logged_by_script,
        loss="loss",
        select="val_loss",
    ),
    "huggingface": Kind(
        script="run_clm.py",
        params={
            "max_steps": TOTAL,
            "save_steps": SAVE,
            "logging_steps": 1,
            "eval_steps": SAVE,
            "per_device_train_batch_size": 32,
        },
        workers="dataloader_num_workers",
        pattern="out/checkpoint-*",
        torn="optimizer.pt",
        logged=_logged_by_trainer,
        loss="loss",
        select="eval_loss",
        # Its history in a checkpoint is that of all attempts; only this log is of one.
        command=_HUGGINGFACE,
    ),
    "lightning": Kind(
        script="fit.py",
        params={"max_steps": TOTAL, "save_steps": SAVE, "log_steps": 1, "batch_size": 128, "width": 256},
        workers="num_workers",
        pattern="out/checkpoints/epoch=*-step=*.ckpt",
        torn="",
        logged=_logged_by_lightning,
        loss="train_loss",
        select="val_loss",
    ),
}
