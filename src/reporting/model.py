"""Sections 2 and 3 of the report, the network before training: M0 to M3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from src.checking.layers import in_parts, parameters_text
from src.config.loading import config_of
from src.config.schema import Config
from src.config.validation import axis_name
from src.models.registry import known
from src.outcomes.overfit import LEAST_ACCURACY, draw_overfit
from src.reporting.blocks import Block, Exact, SourceNote, Verdicts
from src.reporting.report import Report, shown

# Rows of the table of layers, and layers that are named in one of them; checks.json has all.
_MOST_PARTS = 24
_MOST_IN_A_PART = 14


def model_section(report: Report) -> Iterator[Block]:
    """Section 2."""
    yield report.heading(2, "section_2")
    yield report.heading(3, "section_2_1")
    yield from report.ask("M0", _m0)
    yield report.heading(3, "section_2_2")
    yield from report.ask("M1", _m1)
    yield report.heading(3, "section_2_3")
    yield from report.ask("M2", _m2)


def overfit_section(report: Report) -> Iterator[Block]:
    """Section 3."""
    yield report.heading(2, "section_3")
    yield from report.ask("M3", _m3)


def _m0(report: Report) -> Iterator[Block]:
    checks = report.checks()
    rows = [
        [part, *(f"{base[name]:.4f}" for name in ("majority_accuracy", "random_accuracy", "chance"))]
        for part, base in checks["baselines"].items()
    ]
    yield report.table(["split", "majority", "random", "chance"], rows)
    chance, baselines = f"{1 / checks['classes']:.4f}", checks["baselines"]
    if any(base["majority_accuracy"] > base["chance"] for base in baselines.values()):
        names = {row["label"]: row["name"] for row in checks["class_table"]}
        majority = next(iter(baselines.values()))["majority_class"]
        shares = ", ".join(f"{base['majority_accuracy']:.4f} ({part})" for part, base in baselines.items())
        yield report.say("m0_uneven", name=names.get(majority, majority), accuracies=shares, chance=chance)
    else:
        yield report.say("m0", classes=checks["classes"], chance=chance)
    yield SourceNote(str(report.checks_file))


def _m1(report: Report) -> Iterator[Block]:
    checks = report.checks()
    batch = checks["batch"]
    trained, total = batch["parameters"], batch["all_parameters"]
    facts = {
        "network": report.config.model.type,
        "parameters": f"{trained:,}",
        **({} if total == trained else {"all_parameters": f"{total:,}"}),
        "loss_function": "CrossEntropyLoss",
        "output": tuple(batch["logits"]),
    }
    yield report.facts(facts)
    rows = in_parts(checks["layers"], _MOST_IN_A_PART, _MOST_PARTS)
    layers = [
        [
            row["name"],
            Exact(_content(report, row, checks["layers"])),
            "×".join(map(str, row["output"] or ())),
            parameters_text(row),
        ]
        for row in rows
    ]
    yield report.table(["part", "layer_type", "output", "parameters"], layers)
    if len(rows) < len(checks["layers"]):
        yield report.say("m1_summary", count=len(checks["layers"]))
    if not checks["options"]:
        return
    yield report.say("m1_options")
    options = [
        [axis_name(f"model.{option['option']}"), shown(option["value"]), _role(report, option), _counts(option)]
        for option in checks["options"]
    ]
    yield report.table(["option", "in_config", "role", "parameters_with"], options)


def _content(report: Report, part: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> str:
    """The layers of a part of the network, those of a branch together; only their number if they are many."""
    own = [layer for layer in layers if layer["name"] == part["name"] or layer["name"].startswith(f"{part['name']}.")]
    if len(own) == 1:
        return str(own[0]["layer"])
    if len(own) > _MOST_IN_A_PART:
        return report.texts("m1_layers", count=len(own))
    branches: dict[str, list[str]] = {}
    for layer in own:
        rest = layer["name"].removeprefix(part["name"]).strip(".")
        if rest:
            branches.setdefault(rest.partition(".")[0], []).append(layer["layer"])
    if all(len(branch) == 1 for branch in branches.values()):
        return " → ".join(layer for branch in branches.values() for layer in branch)
    return "; ".join(f"{name}: {' → '.join(branch)}" for name, branch in branches.items())


def _role(report: Report, option: Mapping[str, Any]) -> str:
    name = f"role_{option['option']}"
    return report.texts(name) if report.texts.has(name) else str(option["role"])


def _counts(option: Mapping[str, Any]) -> str:
    return ", ".join(f"{shown(each['value'])} ({each['parameters']:,})" for each in option["parameters"])


def _m2(report: Report) -> Iterator[Block]:
    checks = report.checks()
    batch = checks["batch"]
    expected, seen, norm = batch["expected_loss"], batch["initial_loss"], batch["gradient_norm"]
    rows = [
        [report.texts("m2_expected", classes=checks["classes"]), f"{expected:.4f}"],
        [report.texts("m2_observed", count=batch["images"][0]), f"{seen:.4f}"],
        [report.texts("m2_norm"), f"{norm:.4f}"],
    ]
    yield report.table(["value", "measured"], rows)
    holds = {each["name"]: each["holds"] for each in checks["verdicts"]}
    values = {"loss": f"{seen:.4f}", "expected": f"{expected:.4f}", "norm": f"{norm:.3f}"}
    wanted = [name for name in ("loss", "gradients") if name in holds]
    yield Verdicts([(holds[name], report.texts(f"verdict_{name}", **values)) for name in wanted])
    if batch["weights_without_gradient"]:
        yield report.say("m2_no_gradient", names=", ".join(batch["weights_without_gradient"]))
    shapes = {name: str(tuple(batch[name])) for name in ("images", "labels", "logits")}
    yield report.say("m2_shapes", **shapes)


def _m3(report: Report) -> Iterator[Block]:
    found = report.need(report.sweeps.overfit, "overfit", "src.train", "--overfit-small")
    (run,) = found.done()
    result, config = run.result() or {}, config_of(run)
    yield from report.about(found)
    measured = result.get("train") or {}
    accuracy, loss = measured.get("accuracy"), measured.get("loss_epoch")
    facts = {"examples": shown(result.get("train_images")), **training_facts(config)}
    yield report.facts({**facts, "final_loss": shown(loss), "final_accuracy": shown(accuracy)})
    yield from report.drawn("overfit", lambda path: draw_overfit(run, path))
    memorized = result.get("outcome") != "diverged" and accuracy is not None and accuracy >= LEAST_ACCURACY
    sentence = report.texts("m3_memorized" if memorized else "m3_failed", accuracy=shown(accuracy), loss=shown(loss))
    yield Verdicts([(memorized, sentence)])
    yield report.origin(run)


def training_facts(config: Config) -> dict[str, str]:
    """What the report lists of a training: its rate, weight decay, network options, batch size and length."""
    train, model = config.train, config.model
    facts = {
        "network": model.type,
        "lr": f"{train.optimizer.lr:g}",
        "weight_decay": f"{train.optimizer.weight_decay:g}",
        "optimizer": train.optimizer.name,
        "scheduler": train.scheduler.name,
        "batch_size": shown(train.batch_size),
        "epochs": shown(train.epochs) if train.max_steps is None else f"{train.epochs} (max_steps {train.max_steps})",
        "seed": shown(train.seed),
    }
    plain = model.model_dump(mode="json")
    # A network that is not ours has its own, which may have the name of any of these.
    own = {name: plain[name] for name in known(model.type).main_options} | plain["options"]
    return facts | {f"options.{name}" if name in facts else name: shown(value) for name, value in own.items()}
