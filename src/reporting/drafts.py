"""Draft answers: sentences that the numbers of the runs support, for the user to accept or to replace.

A draft describes what was measured. Where the runs cannot tell, it says so.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from relay.files import read_json
from relay.results.collection import answer_of_sweep
from relay.results.improvement import improvement
from relay.results.statistics.pairs import difference_of, verdicts
from relay.results.tables.table import curve_of, read_table
from relay.runs.attempt import causes_of
from relay.runs.rundir import RunDir
from src.config.loading import config_of
from src.config.validation import axis_name
from src.outcomes.overfit import LEAST_ACCURACY
from src.outcomes.rates import METHODS, suggested_rates
from src.outcomes.training_figure import loss_gaps
from src.outcomes.variant_files import planned_variants
from src.outcomes.variants import compare_variants
from src.reporting.effects import findings, levels_of_curves
from src.reporting.records import EVALUATED
from src.reporting.report import Report, data_name, percent, shown, signed, verdict_sentence
from src.requests import first_grid_of

Draft = Callable[[Report], Iterator[str]]


def _d1(report: Report) -> Iterator[str]:
    checks = report.checks()
    splits = ", ".join(f"{count:,} {part}" for part, count in checks["splits"].items())
    total = f"{sum(checks['splits'].values()):,}"
    values = {"dataset": data_name(checks["dataset"]), "total": total, "splits": splits, "classes": checks["classes"]}
    yield report.texts("draft_D1", **values, shape=tuple(checks["input_shape"]))
    drawn = [part for part in ("val", "test") if part in checks["split"]["ratio"]]
    if drawn:
        parts = f" {report.texts('and')} ".join(drawn)
        yield report.texts("draft_D1_drawn", parts=parts, source=checks["split"].get("from", ""))


def _d4(report: Report) -> Iterator[str]:
    checks = report.checks()
    counts, rows = checks["class_counts"], checks["class_table"]
    low, high = min(counts, default=0), max(counts, default=0)
    if low != high:
        ratio = f"{high / low:.2g}" if low else "∞"
        bases = checks["baselines"].items()
        majority = ", ".join(f"{base['majority_accuracy']:.4f} ({part})" for part, base in bases)
        yield report.texts("draft_D4_uneven", ratio=ratio)
        yield report.texts("draft_D4_majority", accuracies=majority)
        return
    yield report.texts("draft_D4_even", each=low)
    equal = [part for part in ("val", "test") if checks["splits"].get(part) and len({row[part] for row in rows}) == 1]
    if equal:
        parts, chance = f" {report.texts('and')} ".join(equal), f"{1 / checks['classes']:.4f}"
        yield report.texts("draft_D4_metric", parts=parts, chance=chance)


def _d6(report: Report) -> Iterator[str]:
    checks = report.checks()
    sources, batch = checks["source"].values(), checks["batch"]
    for operation in checks["preprocessing"]:
        name, images = operation["operation"], checks["inputs"]["images"]
        if name == checks["inputs"]["type"] and images:
            others = sum(count for facts in sources for mode, count in facts["modes"].items() if mode != name)
            total = sum(facts["count"] for facts in sources)
            sentence = "draft_D6_converted" if others else "draft_D6_mode"
            yield report.texts(sentence, mode=name, count=f"{others:,}", total=f"{total:,}")
        elif name == "Resize":
            height, width = operation["parameters"]["size"]
            sizes = {size for facts in sources for size in facts["sizes"]}
            # PIL says the width first.
            sentence = "one" if len(sizes) == 1 else "many"
            sentence = "same" if sizes == {f"{width}x{height}"} else sentence
            values = {"count": len(sizes), "size": f"{width}×{height}", "own": next(iter(sizes), "").replace("x", "×")}
            yield report.texts(f"draft_D6_{sentence}", **values)
        elif name == "Normalize":
            seen, expected = batch["initial_loss"], batch["expected_loss"]
            yield report.texts("draft_D6_normalize", loss=f"{seen:.4f}", expected=f"{expected:.4f}")
    if checks["preprocessing"]:
        yield report.texts("draft_D6_untested")


def _d8(report: Report) -> Iterator[str]:
    checks = report.checks()
    operations = checks["augmentations"]
    if not checks["inputs"]["images"]:
        return
    for operation in operations:
        sentence = f"why_{operation['operation']}"
        if report.texts.has(sentence):
            yield report.texts(sentence, padding=operation["parameters"].get("padding", ""))
    if not operations:
        yield report.texts("draft_D8_none")
    gaps = loss_gaps(trained) if (trained := _trained(report)) else {}
    if gaps:
        yield report.texts("draft_gap", gap=signed(gaps[max(gaps)]))
    compared = report.sweeps.comparison
    tested = [cell.name for cell in (compared.sweep.cells() if compared else ()) if any(map(_augments, cell.overrides))]
    yield report.texts("draft_D8_tested", names=", ".join(tested)) if tested else report.texts("draft_D8_untested")


def _augments(path: str) -> bool:
    return path.startswith("augment")


def _d10(report: Report) -> Iterator[str]:
    checks = report.checks()
    if not checks["examples"]:
        return
    seen = [
        report.texts(f"see_{operation['operation']}", padding=operation["parameters"].get("padding", ""))
        for operation in checks["augmentations"]
        if report.texts.has(f"see_{operation['operation']}")
    ]
    yield report.texts("draft_D10", count=len({each["label"] for each in checks["examples"]}))
    if seen:
        yield report.texts("draft_D10_augmented", changes=", ".join(seen))
    yield report.texts("draft_D10_look")


def _m0(report: Report) -> Iterator[str]:
    checks = report.checks()
    bases = checks["baselines"]
    if not bases:
        return
    base = bases.get("val") or next(iter(bases.values()))
    best = max(base["majority_accuracy"], base["chance"])
    yield report.texts("draft_M0_floor", floor=f"{best:.4f}", random=f"{base['random_accuracy']:.4f}")
    trained = _trained(report)
    reached = ((trained.result() or {}).get("best") or {}).get("accuracy") if trained else None
    if trained is None:
        yield report.texts("draft_M0_untrained")
    elif reached is not None:
        yield report.texts("draft_M0_reached", accuracy=shown(reached), ratio=f"{reached / best:.3g}")


def _m1(report: Report) -> Iterator[str]:
    checks = report.checks()
    said = findings(report, report.sweeps.grid.answer) if report.sweeps.grid else {}
    for option in checks["options"]:
        name = axis_name(f"model.{option['option']}")
        counts = {shown(each["value"]): each["parameters"] for each in option["parameters"]}
        if len(counts) > 1:
            least, most = min(counts, key=lambda value: counts[value]), max(counts, key=lambda value: counts[value])
            values = {"axis": name, "least": least, "most": most}
            numbers = {"low": f"{counts[least]:,}", "high": f"{counts[most]:,}"}
            ratio = f"{counts[most] / counts[least]:.3g}" if counts[least] else "∞"
            same = counts[least] == counts[most]
            yield report.texts("draft_M1_same" if same else "draft_M1", **values, **numbers, ratio=ratio)
        if name in said:
            yield report.texts("draft_M1_effect", finding=said[name])


def _m3(report: Report) -> Iterator[str]:
    found = report.sweeps.overfit
    runs = found.done() if found else []
    if not runs:
        return
    run, result = runs[0], runs[0].result() or {}
    losses, accuracies = (curve_of(run, f"train/{name}")[1] for name in ("loss_epoch", "accuracy"))
    if not losses or not accuracies:
        return
    count, classes = result.get("train_images"), config_of(run).model.classes
    values = {"first": shown(losses[0]), "last": shown(losses[-1]), "epochs": len(losses), "count": count}
    yield report.texts("draft_M3_fall", **values, expected=f"{math.log(classes):.4f}")
    proven = result.get("outcome") != "diverged" and accuracies[-1] >= LEAST_ACCURACY
    yield report.texts("draft_M3_proof" if proven else "draft_M3_none", accuracy=shown(accuracies[-1]))


def _m4(report: Report) -> Iterator[str]:
    found = report.sweeps.lr_sweep
    results = [run.result() or {} for run in (found.done() if found else [])]
    if not results:
        return
    lowest = [result["lr"][_place_of_least(result["loss_smoothed"])] for result in results if result.get("lr")]
    trained = _trained(report)
    optimizer = (config_of(trained) if trained else report.config).train.optimizer
    suggested = suggested_rates(results)
    rates = {method: suggested[method]["median"] for method in METHODS if suggested[method]["median"] is not None}
    if lowest:
        yield report.texts("draft_M4_lowest", rate=f"{median(lowest):.2g}")
    diverged = [result["lr"][-1] for result in results if result.get("diverged") and result.get("lr")]
    if diverged:
        yield report.texts("draft_M4_diverged", rate=f"{median(diverged):.2g}")
    if len(rates) == len(METHODS) and rates["valley"] and rates["steepest"]:
        factor = max(rates.values()) / min(rates.values())
        if factor >= 2:
            yield report.texts("draft_M4_apart", factor=f"{factor:.2g}")
    if rates:
        low, high, chosen = min(rates.values()), max(rates.values()), optimizer.lr
        side = "below" if chosen < low else "above" if chosen > high else "between"
        factor = low / chosen if chosen < low else chosen / high
        yield report.texts(f"draft_M4_{side}", lr=f"{chosen:g}", factor=f"{factor:.2g}")
    said = findings(report, report.sweeps.grid.answer) if report.sweeps.grid else {}
    yield report.texts("draft_grid_found", finding=said["lr"]) if "lr" in said else report.texts("draft_M4_lr_untested")
    decay = f"{optimizer.weight_decay:g}"
    if "weight_decay" in said:
        yield report.texts("draft_M4_decay", decay=decay, finding=said["weight_decay"])
    else:
        yield report.texts("draft_M4_decay_untested", decay=decay)


def _place_of_least(values: Sequence[float]) -> int:
    return min(range(len(values)), key=lambda place: values[place])


def _m5(report: Report) -> Iterator[str]:
    grid = report.sweeps.grid
    if grid is None or not grid.done():
        return
    said, select, best_row = findings(report, grid.answer), grid.answer.table.select, grid.answer.best_row()
    if best_row:
        yield report.texts(
            "draft_M5_best", run=best_row["run"], metric=select.column, value=shown(best_row[select.column])
        )
    yield from grid.answer.best_set_sentences(report.texts)[:1]
    for axis, levels in levels_of_curves(grid).items():
        if axis in said:
            yield said[axis]
        if len(levels) < 2:
            continue
        best = max(levels, key=lambda level: select.score(level.first))
        least = min(levels, key=lambda level: select.score(level.first))
        values = {"best": best.value, "least": least.value, "metric": select.column, "axis": axis}
        yield report.texts("draft_M5_speed", **values, high=shown(best.first), low=shown(least.first))
        rises = ", ".join(f"{level.value} ({percent(level.rises)})" for level in levels if level.rises is not None)
        if any(level.rises for level in levels):
            yield report.texts("draft_M5_stability", axis=axis, shares=rises)
        elif rises:
            yield report.texts("draft_M5_stable", axis=axis)
        gaps = ", ".join(f"{level.value} ({signed(level.gap)})" for level in levels if level.gap is not None)
        if gaps:
            yield report.texts("draft_M5_overfit", axis=axis, gaps=gaps)
    yield report.texts("draft_M5_note")


def _m6(report: Report) -> Iterator[str]:
    run = _trained(report)
    if run is None:
        return
    names = ("train/loss_epoch", "val/loss", "train/accuracy", "val/accuracy")
    train, val, seen, measured = (dict(zip(*curve_of(run, name), strict=True)) for name in names)
    if not val:
        return
    best = ((run.result() or {}).get("best") or {}).get("epoch")
    lowest, last = min(val, key=lambda epoch: val[epoch]), max(val)
    # Between epochs, the loss goes up and down by as much as this, whatever the trend is.
    losses = [val[epoch] for epoch in sorted(val)]
    usual = median(abs(after - before) for before, after in itertools.pairwise(losses)) if len(losses) > 1 else 0.0
    rise, values = val[last] - val[lowest], {"epoch": f"{lowest:g}", "last": f"{last:g}"}
    if best == last and last > 1:
        yield report.texts("draft_M6_longer", **values)
        if seen.get(last, 0.0) < LEAST_ACCURACY:
            yield report.texts("draft_M6_under")
    if lowest == last:
        yield report.texts("draft_M6_no_overfit")
    elif rise > usual and train.get(last, 0.0) < train.get(lowest, 0.0):
        fall = shown(train[lowest] - train[last])
        yield report.texts("draft_M6_overfit", **values, rise=shown(rise), fall=fall)
    else:
        yield report.texts("draft_M6_plateau", **values, rise=shown(rise), usual=shown(usual))
    if seen and measured and last in seen and last in measured:
        yield report.texts("draft_M6_fit", train=shown(seen[last]), val=shown(measured[last]))
    steps = list(itertools.pairwise(train[epoch] for epoch in sorted(train)))
    rises = sum(after > before for before, after in steps)
    if steps:
        yield report.texts("draft_M6_stable" if not rises else "draft_M6_rises", rises=rises, total=len(steps))
    yield report.texts("draft_one_seed")


def _m7(report: Report) -> Iterator[str]:
    found = report.sweeps.comparison
    if found is None or not found.done():
        return
    variants = {**planned_variants(found.sweep), **report.config.compare.variants}
    table = read_table(found.sweep)
    rows = compare_variants(found.sweep, table, {name: variant.expect for name, variant in variants.items()})
    for row in rows[1:]:
        yield report.texts("draft_M7", run=row["run"], changed=row["changed"], finding=_held(report, row, table.select))


def _held(report: Report, row: Mapping[str, Any], select: Any) -> str:
    """Whether what was expected of a variant held, did not hold, or cannot be told."""
    if row["difference"] is None:
        return report.texts("draft_M7_no_result")
    if row["low"] is None or row["low"] <= 0 <= row["high"]:
        return report.texts("draft_M7_unknown", metric=select.column)
    better = select.score(row["low"]) > 0
    seen = report.texts("draft_M7_better" if better else "draft_M7_worse", metric=select.column)
    wanted = expected_direction(row["expected"] or "")
    if wanted is None:
        return report.texts("draft_M7_judge" if row["expected"] else "draft_M7_seen", seen=seen)
    return report.texts("draft_M7_held" if wanted == better else "draft_M7_not_held", seen=seen)


def expected_direction(text: str) -> bool | None:
    """Whether an expectation that begins with `better` or `worse` is the former; None if it begins otherwise."""
    first = text.strip().casefold()
    if first.startswith(("better", "meilleur")):
        return True
    return False if first.startswith(("worse", "moins bon")) else None


def _m8(report: Report) -> Iterator[str]:
    found = report.sweeps.refined
    if found and found.done():
        origin, first = found.sweep.meta().get("origin"), first_grid_of(found.sweep)
        if origin:
            yield report.texts("draft_M8_why", run=origin["run"], cells=len(found.sweep.cells()))
        better = improvement(found.sweep, found.answer, first, answer_of_sweep(first)) if first else None
        if better:
            values = {"metric": better["metric"], "difference": signed(better["difference"])}
            yield report.texts("draft_M8_found", **values, verdict=verdict_sentence(report, better))
            if better["first"]["epochs"] != better["refined"]["epochs"]:
                yield report.texts("m8_epochs")
        yield from found.answer.best_set_sentences(report.texts)[:1]
        yield from found.answer.next_steps(report.texts)
    yield from second_trainings(report)


def second_trainings(report: Report) -> Iterator[str]:
    """The other full trainings on the same data, each against the one of M6."""
    base = _trained(report)
    if base is None:
        return
    select = config_of(base).metrics.select
    known = (run for sweep in report.sweeps.all if sweep.kind == "train" for run in sweep.runs() if run.is_done())
    others = [run for run in known if run.path != base.path and not config_of(run).train.overfit_small]
    differences = [difference_of(run, base, select.name) for run in others]
    for run, difference, verdict in zip(others, differences, verdicts(differences), strict=True):
        own, best = (((each.result() or {}).get("best") or {}).get(select.name) for each in (run, base))
        if own is None or best is None:
            continue
        crossed = bool(difference and difference.crossed)
        numbers = {"estimate": difference.value if difference else None, "crossed": crossed}
        bounds = {"low": verdict.low if verdict else None, "high": verdict.high if verdict else None}
        said = verdict_sentence(report, {**numbers, **bounds})
        found = {"run": run.label, "base": base.label, "metric": select.column, "value": shown(own)}
        yield report.texts("draft_M8_second", **found, difference=signed(own - best), verdict=said)


def _m9(report: Report) -> Iterator[str]:
    trained = _trained(report)
    found = report.sweeps.evaluation(trained) if trained else None
    if trained is None or found is None or not found.done():
        return
    run = found.done()[0]
    result, best = run.result() or {}, (trained.result() or {}).get("best") or {}
    run.check_files()
    against = (read_json(run.evaluation_file, EVALUATED) or {}).get("against_val")
    if result.get("accuracy") is not None and best.get("accuracy") is not None:
        yield report.texts("draft_M9", test=shown(result["accuracy"]), val=shown(best["accuracy"]))
    if against:
        verdict = {True: "explained", False: "not_explained", None: "unknown"}[against["explained"]]
        low, high = map(signed, against["interval"])
        yield report.texts(f"draft_M9_{verdict}", low=low, high=high, epochs=against["epochs"])
    train = dict(zip(*curve_of(trained, "train/accuracy"), strict=True)).get(best.get("epoch", 0))
    if train is not None and result.get("accuracy") is not None:
        yield report.texts("draft_M9_train", train=shown(train), difference=signed(train - result["accuracy"]))


def _limits(report: Report) -> Iterator[str]:
    checks = report.checks()
    each = min(checks["class_counts"], default=0)
    yield report.texts(
        "draft_limits_data", classes=checks["classes"], each=f"{each:,}", shape=tuple(checks["input_shape"])
    )
    trained = _trained(report)
    found = report.sweeps.evaluation(trained) if trained else None
    if found and found.done():
        result = found.done()[0].result() or {}
        bounds = (result.get("intervals") or {}).get("accuracy")
        if bounds:
            values = {"count": result.get("n"), "half": percent((bounds[1] - bounds[0]) / 2, 1)}
            yield report.texts("draft_limits_interval", **values)
    if trained:
        config = config_of(trained)
        yield report.texts("draft_limits_model", network=config.model.type, epochs=config.train.epochs)
        yield report.texts("draft_one_seed")


def _errors(report: Report) -> Iterator[str]:
    runs = [run for sweep in report.sweeps.all for run in sweep.runs()]
    attempts = [run.attempts() for run in runs]
    causes = Counter(cause for each in attempts for cause in causes_of(each))
    if not causes:
        yield report.texts("draft_errors_none", attempts=sum(map(len, attempts)), runs=len(runs))
    for cause, count in sorted(causes.items()):
        done = [run for run, each in zip(runs, attempts, strict=True) if cause in causes_of(each)]
        finished = sum(run.is_done() for run in done)
        values = {"count": count, "runs": len(done), "finished": finished}
        yield report.texts("draft_errors", cause=cause, meaning=cause_text(report, cause), **values)
    diverged = [run.label for run in runs if run.is_done() and (run.result() or {}).get("outcome") == "diverged"]
    if diverged:
        names = ", ".join(diverged[:5]) + (", …" if len(diverged) > 5 else "")
        yield report.texts("draft_errors_diverged", count=len(diverged), names=names)


def cause_text(report: Report, cause: str) -> str:
    """What a cause means, in words."""
    return report.texts(f"cause_{cause}") if report.texts.has(f"cause_{cause}") else cause


def _ideas(report: Report) -> Iterator[str]:
    trained = _trained(report)
    if trained:
        result = trained.result() or {}
        best, epochs = (result.get("best") or {}).get("epoch"), result.get("epochs")
        if best is not None and best == epochs and epochs > 1:
            yield report.texts("draft_ideas_longer", epochs=2 * round(epochs))
        yield report.texts("draft_ideas_seeds")
    grid = report.sweeps.refined or report.sweeps.grid
    if grid and grid.done():
        yield from grid.answer.next_steps(report.texts)


def _trained(report: Report) -> RunDir | None:
    """The full training, if there is one."""
    found = report.sweeps.training
    return next(iter(found.done()), None) if found else None


# By the name of the place in comments.yaml.
DRAFTS: Mapping[str, Draft] = {
    "D1": _d1,
    "D4": _d4,
    "D6": _d6,
    "D8": _d8,
    "D10": _d10,
    "M0": _m0,
    "M1": _m1,
    "M3": _m3,
    "M4": _m4,
    "M5": _m5,
    "M6": _m6,
    "M7": _m7,
    "M8": _m8,
    "M9": _m9,
    "limits": _limits,
    "errors": _errors,
    "ideas": _ideas,
}
