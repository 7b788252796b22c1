"""Sections 6 and 9 of the report: the full training (M6) and the final evaluation (M9)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.files import read_json
from relay.results.statements import last_epoch_statements
from relay.results.tables.table import curve_of
from relay.runs.rundir import RunDir
from src.config.loading import config_of
from src.data.operations import augmentations
from src.evaluation.figures import draw_calibration, draw_confusion
from src.evaluation.files import FIGURES
from src.outcomes.training_figure import draw_training, loss_gaps
from src.reporting.blocks import Block, Exact, Paragraph, TableBlock, Verdicts
from src.reporting.model import training_facts
from src.reporting.records import EVALUATED
from src.reporting.report import Report, percent, shown, signed
from src.training.measures import METRICS

_MOST_PAIRS = 10


def training_section(report: Report) -> Iterator[Block]:
    """Section 6."""
    yield report.heading(2, "section_6")
    yield from report.ask("M6", _m6)


def evaluation_section(report: Report) -> Iterator[Block]:
    """Section 9."""
    yield report.heading(2, "section_9")
    yield from report.ask("M9", _m9)


def trained_run(report: Report) -> RunDir:
    """The full training. Raises MissingRunError if there is none."""
    with_grid = bool(report.config.hparams.axes and report.sweeps.grid)
    found = report.need(report.sweeps.training, "training", "src.train", *(["--best"] if with_grid else []))
    return found.done()[0]


def _m6(report: Report) -> Iterator[Block]:
    run = trained_run(report)
    result = run.result() or {}
    yield from report.about(report.used[run.sweep().name])
    config = config_of(run)
    speed = {"duration": shown(result.get("train_seconds")), "examples_per_s": shown(result.get("images_per_s"))}
    yield report.facts({**training_facts(config), **speed, "checkpoint": run.best_file})
    yield from report.differences(config)
    yield from report.drawn("training", lambda path: draw_training(run, path))
    yield from _epochs(report, run, result)
    yield report.origin(run)


def _epochs(report: Report, run: RunDir, result: Mapping[str, Any]) -> Iterator[Block]:
    """The first, best and last epoch, and what the curves show as facts."""
    select = config_of(run).metrics.select.column
    names = list(dict.fromkeys(["train/loss_epoch", "val/loss", "train/accuracy", "val/accuracy", select]))
    curves = {name: dict(zip(*curve_of(run, name), strict=True)) for name in names}
    val, gaps = curves["val/loss"], loss_gaps(run)
    if not val:
        yield report.say("m6_no_epoch")
        return
    best: float = (result.get("best") or {}).get("epoch", max(val))
    marks = {"first": min(val), "best": best, "last": max(val)}
    rows = [
        [report.texts(f"epoch_{mark}"), f"{epoch:g}", *(shown(curves[name].get(epoch)) for name in names)]
        for mark, epoch in marks.items()
    ]
    yield report.table(["", "epoch", *names], rows)
    for sentence in last_epoch_statements(run.label, {"best_epoch": best, "epochs": max(val)}, report.texts):
        yield Paragraph(sentence)
    lowest, last = min(val, key=lambda epoch: val[epoch]), max(val)
    values = {"epoch": f"{lowest:g}", "loss": shown(val[lowest]), "above": f"{val[last] - val[lowest]:.4f}"}
    yield report.say("m6_lowest_last" if lowest == last else "m6_lowest", **values)
    losses = list(curves["train/loss_epoch"].values())
    falls = sum(after < before for before, after in itertools.pairwise(losses))
    if len(losses) > 1:
        yield report.say("m6_falls", falls=falls, total=len(losses) - 1)
    if gaps:
        augmented = bool(augmentations(config_of(run)))
        yield report.say(
            "m6_gap_augmented" if augmented else "m6_gap", last=signed(gaps[max(gaps)]), best=signed(gaps.get(best))
        )


def _m9(report: Report) -> Iterator[Block]:
    trained = trained_run(report)
    words = ["--checkpoint", str(trained.best_file)]
    found = report.need(report.sweeps.evaluation(trained), "evaluation", "src.evaluate", *words)
    (run,) = found.done()
    result, best = run.result() or {}, (trained.result() or {}).get("best") or {}
    run.check_files()
    content = read_json(run.evaluation_file, EVALUATED)
    facts = {"checkpoint": trained.best_file, "split": result.get("split", ""), "examples": result.get("n")}
    yield report.facts(facts)
    yield _measured(report, result, best)
    if result.get("ece"):
        yield calibration(report, result["ece"])
    if result.get("leak"):
        yield Verdicts([(False, result["leak"])])
    if content:
        yield from against_val(report, content)
        pairs = [
            [
                *(Exact(report.class_name(pair[name])) for name in ("true_name", "predicted_name")),
                shown(pair["n"]),
                percent(pair["share"]),
            ]
            for pair in content["pairs"][:_MOST_PAIRS]
        ]
        yield report.say("m9_pairs" if pairs else "m9_no_pairs")
        if pairs:
            yield report.table(["true", "predicted", "examples", "share_of_class"], pairs)
    drawn = _drawn_again(content) if content and report.texts.language != "en" else {}
    for name in FIGURES:
        if name in drawn:
            yield from report.drawn(name, drawn[name])
        else:
            yield from report.copied(name, run.figure(name))
    yield report.origin(run)


def _drawn_again(content: Mapping[str, Any]) -> dict[str, Callable[[Path], Path | None]]:
    """The figures of an evaluation whose words are to be those of another language, by name."""
    found: dict[str, Callable[[Path], Path | None]] = {}
    if content.get("confusion") and content.get("classes"):
        names = [str(row["name"]) for row in content["classes"]]
        found["confusion"] = lambda path: draw_confusion(content["confusion"], names, path)
    if content.get("ece") and content.get("calibration"):
        found["calibration"] = lambda path: draw_calibration(content["calibration"], content["ece"], path)
    return found


def _measured(report: Report, result: Mapping[str, Any], best: Mapping[str, Any]) -> TableBlock:
    """Each metric of the evaluation with its 95 % interval, beside that of the best epoch on val."""
    intervals = result.get("intervals") or {}
    rows = []
    for name in METRICS:
        if result.get(name) is None:
            continue
        interval = " – ".join(shown(bound) for bound in intervals.get(name) or ())
        val = best.get(name)
        rows.append([name, shown(result[name]), interval, shown(val), signed(result[name] - val) if val else ""])
    return report.table(["metric", "measured", "interval", "on_val", "difference"], rows)


def calibration(report: Report, ece: Mapping[str, Any]) -> Paragraph:
    """The calibration error beside what a calibrated network would have, see src/evaluation/calibration.py."""
    low, high = map(shown, ece["interval"])
    values = {name: shown(ece[name]) for name in ("value", "floor", "bound")}
    return report.say("m9_miscalibrated" if ece["miscalibrated"] else "m9_calibrated", **values, low=low, high=high)


def against_val(report: Report, content: Mapping[str, Any]) -> Iterator[Block]:
    """The gap to val, if evaluation.json, `content`, has one."""
    against = content["against_val"]
    if not against:
        return
    verdicts = {True: "m9_explained", False: "m9_not_explained", None: "m9_chosen_on_val"}
    counts = {"n": content["n"], "val_n": against["n"], "epochs": against["epochs"]}
    low, high = map(signed, against["interval"])
    yield report.say(
        "m9_gap" if against["crossed"] is None else "m9_gap_crossed",
        **{"gap": signed(against["gap"]), "low": low, "high": high},
        verdict=report.texts(verdicts[against["explained"]], **counts),
    )


def checkpoint_copy(report: Report, trained: RunDir) -> Path | None:
    """artifacts/best.ckpt if it has the weights of this training."""
    copy = Path(report.config.paths.artifacts_dir) / "best.ckpt"
    same = copy.is_file() and trained.best_file.is_file() and copy.read_bytes() == trained.best_file.read_bytes()
    return copy if same else None
