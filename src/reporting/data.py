"""Section 1 of the report, the data: D1 to D11, all from checks.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.errors import DataError
from src.checking.text import call_of
from src.data.sources import source_of
from src.reporting.blocks import Block, Items, SourceNote, Verdicts
from src.reporting.report import Report, percent, shown

# Of the table of classes; the figure shows all, and checks.json lists them.
_MOST_CLASSES = 25


def data_section(report: Report) -> Iterator[Block]:
    """Section 1."""
    yield report.heading(2, "section_1")
    yield report.heading(3, "section_1_1")
    yield from report.ask("D1", _d1)
    yield report.heading(3, "section_1_2")
    for name, answer in (("D2", _d2), ("D3", _d3), ("D4", _d4), ("D5", _d5)):
        yield from report.ask(name, answer)
    yield report.heading(3, "section_1_3")
    for name, answer in (("D6", _d6), ("D7", _d7)):
        yield from report.ask(name, answer)
    yield report.heading(3, "section_1_4")
    for name, answer in (("D8", _d8), ("D9", _d9)):
        yield from report.ask(name, answer)
    yield report.heading(3, "section_1_5")
    for name, answer in (("D10", _d10), ("D11", _d11)):
        yield from report.ask(name, answer)


def _d1(report: Report) -> Iterator[Block]:
    checks = report.checks()
    facts: dict[str, object] = {
        "dataset": checks["dataset"],
        **_origin_of_images(report, checks["dataset"]),
        "input_type": report.texts("input_type"),
        "task": report.texts("task"),
        "input_shape": tuple(checks["input_shape"]),
        "classes": checks["classes"],
    }
    yield report.facts(facts)
    yield SourceNote(str(report.checks_file))


def _origin_of_images(report: Report, name: str) -> dict[str, str]:
    """Where the data set `name` comes from: the sentence `source_<kind>` if there is one, and its revision."""
    dataset = report.config.dataset
    try:
        source = source_of(dataset)
    except DataError:
        # The report may be written where the folder is not.
        return {"source": name}
    sentence = f"source_{source.kind}"
    facts = {"source": report.texts(sentence, name=name) if report.texts.has(sentence) else name}
    if "revision" in source.options and dataset.revision:
        facts["revision"] = dataset.revision
    return facts


def _d2(report: Report) -> Iterator[Block]:
    checks = report.checks()
    rows = []
    for part, count in checks["splits"].items():
        each = [row[part] for row in checks["class_table"] if part in row]
        low, high = min(each, default=0), max(each, default=0)
        rows.append([part, f"{count:,}", shown(low) if low == high else f"{low}–{high}"])
    yield report.table(["split", "images", "per_class"], rows)
    yield report.say("d2", classes=checks["classes"])


def _d3(report: Report) -> Iterator[Block]:
    checks = report.checks()
    split, splits, classes = checks["split"], checks["splits"], checks["classes"]
    ratio = ", ".join(f"{percent(share)} {part}" for part, share in split["ratio"].items())
    how = report.texts("stratified" if split["stratified"] else "not_stratified")
    yield report.say("d3", source=split.get("from", ""), ratio=ratio, how=how, seed=split["seed"])
    test, val = splits.get("test", 0) // classes, splits.get("val", 0) // classes
    yield report.say("d3_method", test=test, val=val)


def _d4(report: Report) -> Iterator[Block]:
    checks = report.checks()
    counts, rows = checks["class_counts"], checks["class_table"]
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        yield report.say("d4_balanced", each=low)
    else:
        yield report.say("d4_unbalanced", low=low, high=high, ratio=f"{high / low:.2g}" if low else "∞")
    yield from report.copied("classes", _figure(report, checks["figures"]["classes"]))
    if len(rows) <= _MOST_CLASSES:
        columns = ["label", "class", "train", "val", "test"]
        table = [[*map(str, (row["label"], row["name"], row["train"], row["val"], row["test"]))] for row in rows]
        yield report.table(columns, table)


def _figure(report: Report, name: str) -> Path:
    # Only files beside checks.json, whatever it says.
    return report.checks_file.parent / Path(name).name


def _d5(report: Report) -> Iterator[Block]:
    checks = report.checks()
    rows = [
        [part, f"{facts['count']:,}", _counts(facts["modes"]), _counts(facts["sizes"]), _counts(facts["changes"])]
        for part, facts in checks["source"].items()
    ]
    yield report.table(["split", "images", "modes", "sizes", "changes"], rows)
    sizes = {size for facts in checks["source"].values() for size in facts["sizes"]}
    modes = {mode for facts in checks["source"].values() for mode in facts["modes"]}
    others = ", ".join(sorted(modes - {"RGB"}))
    yield report.say("d5_one_size" if len(sizes) == 1 else "d5_sizes", count=len(sizes))
    yield report.say("d5_modes", modes=others) if others else report.say("d5_all_rgb")
    shared = [
        f"{part} ∩ {other}: {count:,}"
        for part, each in checks["overlaps"].items()
        for other, count in each.items()
        if count
    ]
    yield report.say("d5_overlaps", overlaps=", ".join(shared)) if shared else report.say("d5_no_overlap")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _d6(report: Report) -> Iterator[Block]:
    rows = []
    for operation in report.checks()["preprocessing"]:
        sentence = f"purpose_{operation['operation']}"
        purpose = report.texts(sentence) if report.texts.has(sentence) else operation.get("purpose", "")
        rows.append([call_of(operation), str(purpose)])
    yield report.table(["operation", "purpose"], rows)


def _d7(report: Report) -> Iterator[Block]:
    checks = report.checks()
    equal = checks["preprocessing_equal"]["equal"]
    yield Verdicts([(equal, report.texts("d7_equal" if equal else "d7_unequal"))])
    yield report.say("d7_how", count=checks["batch"]["images"][0])


def _d8(report: Report) -> Iterator[Block]:
    operations = report.checks()["augmentations"]
    if not operations:
        yield report.say("no_augmentation")
        return
    rows = [[call_of(operation), shown(operation["probability"])] for operation in operations]
    yield report.table(["operation", "probability"], rows)


def _d9(report: Report) -> Iterator[Block]:
    operations = report.checks()["augmentations"]
    if not operations:
        yield report.say("no_augmentation")
        return
    yield Items([_keeps(report, operation) for operation in operations])


def _keeps(report: Report, operation: Mapping[str, Any]) -> str:
    """Whether an augmentation keeps the label, and what would have to be so for it not to."""
    name, parameters = operation["operation"], operation["parameters"]
    unless = operation["unless"]
    if name == "RandomCrop" and isinstance(parameters.get("padding"), int) and parameters.get("size"):
        share = parameters["padding"] / parameters["size"][0]
        unless = report.texts("unless_RandomCrop", padding=parameters["padding"], share=percent(share))
    elif report.texts.has(f"unless_{name}"):
        unless = report.texts(f"unless_{name}")
    return report.texts("keeps_label" if operation["keeps_label"] else "may_change_label", name=name, unless=unless)


def _d10(report: Report) -> Iterator[Block]:
    checks = report.checks()
    yield from report.copied("examples", _figure(report, checks["figures"]["examples"]))
    names = ", ".join(f"{each['name']} ({each['label']})" for each in checks["examples"])
    yield report.say("d10", names=names)


def _d11(report: Report) -> Iterator[Block]:
    checks = report.checks()
    batch, shape = checks["batch"], checks["input_shape"]
    shapes = {name: str(tuple(batch[name])) for name in ("images", "labels")}
    yield report.say("d11", **shapes)
    fits = batch["images"][1:] == shape
    yield Verdicts([(fits, report.texts("d11_fits" if fits else "d11_differs", shape=tuple(shape)))])
    yield from _verdicts(report, checks)


def _verdicts(report: Report, checks: Mapping[str, Any]) -> Iterator[Block]:
    batch, counts = checks["batch"], checks["class_counts"]
    values = {
        "low": min(counts, default=0),
        "high": max(counts, default=0),
        "loss": f"{batch['initial_loss']:.4f}",
        "expected": f"{batch['expected_loss']:.4f}",
        "norm": f"{batch['gradient_norm']:.3f}",
        "shape": tuple(batch["images"]),
    }
    named = [each for each in checks["verdicts"] if report.texts.has(f"verdict_{each['name']}")]
    yield report.say("verdicts")
    yield Verdicts([(each["holds"], report.texts(f"verdict_{each['name']}", **values)) for each in named])
