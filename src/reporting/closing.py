"""Sections 0, 10, 11 and 12 of the report: general facts, what went wrong, how to reproduce it, references."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relay import hints
from relay.config.yaml_file import dump_yaml
from relay.errors import RunError
from relay.files import read_lines
from relay.runs.attempt import Attempts, causes_of, kept_s, wasted_s
from relay.runs.lifecycle import last_activity
from relay.runs.rundir import RunDir, SweepDir
from relay.runs.slice_time import slice_time
from src.artifacts import better_training_statements
from src.config.loading import config_of
from src.config.schema import Config
from src.config.validation import key_path, networks_of
from src.models.registry import is_ours, known
from src.reporting.blocks import Block, CodeBlock, Exact, Heading, Items, Paragraph, Verdicts
from src.reporting.drafts import cause_text
from src.reporting.finding import changed_values
from src.reporting.report import MissingRunError, Report, data_name
from src.reporting.training import checkpoint_copy, trained_run

_MOST_ERRORS = 10


def general_section(report: Report, missing: Sequence[str], drafts: Sequence[str]) -> Iterator[Block]:
    """The title and section 0. To be called after the sections whose runs it lists. `missing`: places with gaps.
    `drafts`: comments with a draft that is still one.
    """
    config = report.config
    title = report.texts("title", dataset=data_name(config.dataset.name), network=config.model.type)
    yield Heading(1, title, "top")
    # Not the time of this call: the same runs give the same report.
    days = sorted(str(found.sweep.meta()["created"])[:10] for found in report.used.values())
    if days:
        yield report.say("dated" if days[0] != days[-1] else "dated_one", first=days[0], last=days[-1])
    yield report.say("how_to_read", config=report.config_file)
    if missing:
        yield report.say("parts_missing", places=", ".join(missing))
    if drafts:
        yield report.say("drafts_left", places=", ".join(drafts))
    yield report.heading(2, "section_0")
    model = config.model
    yield report.facts({"dataset": config.dataset.name, "classes": model.num_classes, "network": model.type})
    yield from report.comment("project")
    yield report.heading(3, "environment")
    yield from report.try_to(_environment)
    yield report.heading(3, "commands")
    yield from report.try_to(_commands)


def diary_section(report: Report) -> Iterator[Block]:
    """Section 10."""
    yield report.heading(2, "section_10")
    for name in ("limits", "errors", "ideas"):
        yield report.heading(3, name)
        if name == "errors":
            yield from report.try_to(_interruptions)
        yield from report.comment(name)


def reproducibility_section(report: Report) -> Iterator[Block]:
    """Section 11."""
    yield report.heading(2, "section_11")
    yield report.facts({"seed": report.config.train.seed, "split_seed": report.config.dataset.split.seed})
    yield report.heading(3, "cost")
    yield from report.try_to(_cost)
    yield report.heading(3, "artifacts")
    yield from report.try_to(_artifacts)
    yield report.heading(3, "config")
    yield report.say("config_given", config=report.config_file)
    yield CodeBlock(dump_yaml(_given(report.config.to_dict(), Config().to_dict())), "yaml")


def _given(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults."""
    given: dict[str, Any] = {}
    for name, value in content.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            # Of other axes than those of the default, all: `hparams` names what is searched.
            within = _given(value, default)
            if within:
                given[name] = within
        elif value != default:
            given[name] = value
    return given


def references_section(report: Report) -> Iterator[Block]:
    """Section 12."""
    yield report.heading(2, "section_12")
    yield Items([f"{what}: {where}" for what, where in _references(report).items()])
    yield from report.comment("references")


def _references(report: Report) -> dict[str, str]:
    """What the experiment uses: its optimizers and networks, then the methods of the report."""
    config = report.config
    searched = (values for axis, values in config.hparams.axes.items() if key_path(config, axis) == _OPTIMIZER)
    optimizers = {config.train.optimizer.name, *itertools.chain(*searched)}
    networks = sorted(networks_of(config))
    try:
        layers = [layer["layer"] for layer in report.checks()["layers"]]
    except (MissingRunError, RunError):
        layers = []
    normalised = any(map(is_ours, networks)) or any(layer.startswith("BatchNorm") for layer in layers)
    return {
        "PyTorch": "https://docs.pytorch.org/docs/stable/",
        "LR range test: Smith 2017": "arXiv:1506.01186",
        **{what: where for name in _OPTIMIZERS if name in optimizers for what, where in _OPTIMIZERS[name].items()},
        **{what: where for name in networks for what, where in known(name).references.items()},
        **(_BATCH_NORM if normalised else {}),
        **_METHODS,
    }


_OPTIMIZER = "train.optimizer.name"
_OPTIMIZERS = {
    "adam": {"Adam: Kingma & Ba 2015": "arXiv:1412.6980"},
    "adamw": {"AdamW: Loshchilov & Hutter 2019": "arXiv:1711.05101"},
}
_BATCH_NORM = {"Batch normalization: Ioffe & Szegedy 2015": "arXiv:1502.03167"}
_METHODS = {
    "Calibration: Guo et al. 2017": "arXiv:1706.04599",
    "Wilson interval: Wilson 1927": "doi:10.1080/01621459.1927.10502953",
    "Calibrated networks for comparison: Bröcker & Smith 2007": "doi:10.1175/WAF993.1",
    "Paired shares: Agresti & Min 2005": "doi:10.1002/sim.1781",
    "Two shares: Newcombe 1998": "Statistics in Medicine 17:873",
    "Several comparisons: Holm 1979": "Scandinavian Journal of Statistics 6:65",
}


def _runs(sweeps: Sequence[SweepDir]) -> list[RunDir]:
    return [run for sweep in sweeps for run in sweep.runs()]


def _environment(report: Report) -> Iterator[Block]:
    """The versions, devices and slices that the runs of this report were executed with."""
    runs = _runs([found.sweep for found in report.used.values()])
    rows = Counter(row for run in runs for row in _environments(run))
    if not rows:
        yield report.gap("environment", "src.train")
        return
    packages = dict.fromkeys(name for versions, *_ in rows for name, _ in versions)
    columns = [*packages, "device", "slice", "commit", "attempts"]
    table = [
        [*map(Exact, (*(dict(versions).get(name, "") for name in packages), *others)), str(count)]
        for (versions, *others), count in sorted(rows.items())
    ]
    yield report.table(columns, table)


def _environments(run: RunDir) -> Iterator[tuple[Any, ...]]:
    slices: dict[Any, str | None] = {attempt.number: attempt.slice for attempt in run.attempts()}
    for row in read_lines(run.provenance_file):
        versions, code = _mapping(row.get("versions")), _mapping(row.get("code"))
        environment = _mapping(row.get("environment"))
        device = f"{row.get('device')} ({environment.get('gpu') or environment.get('cpu')})"
        commit = str(code.get("commit") or "")[:10] + ("+" if code.get("dirty") else "")
        place = str(slices.get(row.get("attempt")) or "")
        yield tuple((name, str(version)) for name, version in versions.items()), device, place, commit


def _mapping(value: object) -> Mapping[str, Any]:
    # provenance.jsonl has no schema, because nothing but this table reads it.
    return value if isinstance(value, dict) else {}


def _commands(report: Report) -> Iterator[Block]:
    used = sorted((found.sweep for found in report.used.values()), key=lambda sweep: int(sweep.meta()["number"]))
    checks = [hints.command("src.checks")] if report.checks_file.exists() else []
    commands = dict.fromkeys([*checks, *(hints.again(saved=sweep.meta()) for sweep in used)])
    yield CodeBlock("\n".join([*commands, hints.command("src.report", "--lang", report.texts.language)]), "bash")


def _interruptions(report: Report) -> Iterator[Block]:
    """Why attempts ended before their run was done, and the errors."""
    causes: Counter[str] = Counter()
    errors: dict[str, str] = {}
    for run in _runs(list(reversed(report.sweeps.all))):
        attempts = run.attempts()
        causes.update(causes_of(attempts))
        for error in (attempt.error for attempt in attempts if attempt.error):
            errors.setdefault(" ".join(error.split())[:300], run.label)
    if not causes:
        yield report.say("no_interruption")
        return
    rows = [[cause, cause_text(report, cause), str(count)] for cause, count in sorted(causes.items())]
    yield report.table(["cause", "meaning", "attempts"], rows)
    if errors:
        rows = [[Exact(error), run] for error, run in list(errors.items())[:_MOST_ERRORS]]
        yield report.table(["error", "run"], rows)


def _cost(report: Report) -> Iterator[Block]:
    """Slice-hours of every sweep on this data: used, spent on steps that were lost, and kept by checkpoints."""
    yield report.say("cost_intro")
    of_sweeps: dict[str, dict[str, float]] = {}
    totals = Counter[str]()
    for sweep in reversed(report.sweeps.all):
        of_runs = {run: run.attempts() for run in sweep.runs()}
        numbers: dict[str, float] = {
            "runs": len(of_runs),
            "attempts": sum(map(len, of_runs.values())),
            "used": slice_time((_closed(run, own) for run, own in of_runs.items()), now=0).used_s / 3600,
            "wasted": sum(map(wasted_s, of_runs.values())) / 3600,
            "saved": sum(map(kept_s, of_runs.values())) / 3600,
        }
        of_sweeps[sweep.name] = numbers
        totals.update(numbers)
    # A column of zeros says nothing.
    columns = [name for name in _COSTS if totals[name] or name == "used"]
    rows = [_cost_row(name, numbers, columns) for name, numbers in of_sweeps.items()]
    total = _cost_row(report.texts("total"), totals, columns)
    yield report.table(["sweep", *columns], [*rows, total], marked=[len(rows)])
    hours = {name: f"{totals[name]:.3g}" for name in ("used", "wasted", "saved")}
    lost = totals["wasted"] or totals["saved"]
    yield report.say("cost_total", **hours) if lost else report.say("cost_total_plain", used=hours["used"])


def _closed(run: RunDir, attempts: Attempts) -> Attempts:
    """The attempts with an end each. One without an end may be running: until its last sign of life."""
    return [each if each.ended else replace(each, end=last_activity(run)) for each in attempts]


_COSTS = ("runs", "attempts", "used", "wasted", "saved")


def _cost_row(name: str, numbers: Mapping[str, float], columns: Sequence[str]) -> list[str]:
    return [name, *(f"{numbers[cost]:.3g}" if cost in _COSTS[2:] else f"{numbers[cost]:.0f}" for cost in columns)]


def _artifacts(report: Report) -> Iterator[Block]:
    """What the report asks for: the runs, the best weights, and a configuration that is that of the final training."""
    run = trained_run(report)
    copy, changed = checkpoint_copy(report, run), changed_values(report.config, config_of(run))
    best = Path(report.config.paths.artifacts_dir) / "best.ckpt"
    runs_dir, count = report.config.paths.runs_dir, len(report.sweeps.all)
    aligned = report.texts("artifact_config_differs", paths=", ".join(changed)) if changed else ""
    yield Verdicts(
        [
            (bool(count), report.texts("artifact_runs", folder=runs_dir, count=count)),
            (bool(copy), report.texts("artifact_best" if copy else "artifact_best_other", file=best, run=run.label)),
            (not changed, aligned or report.texts("artifact_config", file=report.config_file)),
        ]
    )
    for sentence in better_training_statements(report.config.paths, report.config.metrics.select, report.texts):
        yield Paragraph(sentence)
