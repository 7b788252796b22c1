"""Section 1 of the report, the data: D1 to D11, all from checks.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relay.errors import DataError
from src.checking.figures import draw_class_counts
from src.checking.text import call_of
from src.data.sources import source_of
from src.reporting.blocks import Block, Exact, Items, SourceNote, Verdicts
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
    inputs, shape = checks["inputs"], tuple(checks["input_shape"])
    sentence = f"input_type_{inputs['type'] if inputs['images'] else 'values'}"
    facts: dict[str, object] = {
        "dataset": checks["dataset"],
        **_origin(report, checks["dataset"]),
        "input_type": report.texts(sentence, type=inputs["type"]) if report.texts.has(sentence) else inputs["type"],
        "task": report.texts("task"),
        "input_shape" if inputs["images"] else "shape_of_values": shape,
        "classes": checks["classes"],
    }
    yield report.facts(facts)
    yield SourceNote(str(report.checks_file))


def _origin(report: Report, name: str) -> dict[str, str]:
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
    yield report.table(["split", "examples", "per_class"], rows)
    yield report.say("d2", classes=checks["classes"])


def _d3(report: Report) -> Iterator[Block]:
    checks = report.checks()
    split, splits, classes = checks["split"], checks["splits"], checks["classes"]
    for part, source in split["whole"].items():
        yield report.say("d3_whole", part=part, source=source)
    if not split["ratio"]:
        return
    ratio = ", ".join(f"{percent(share)} {part}" for part, share in split["ratio"].items())
    how = report.texts("stratified" if split["stratified"] else "not_stratified")
    yield report.say("d3", source=split.get("from", ""), ratio=ratio, how=how, seed=split["seed"])
    if "train" not in split["whole"]:
        yield report.say("d3_rest")
    goes = []
    for place, part in zip(("first", "next"), (p for p in ("test", "val") if p in split["ratio"]), strict=False):
        counts = {"count": splits.get(part, 0) // classes} if split["even"] else {}
        sentence = "d3_goes" if split["even"] else "d3_goes_uneven"
        goes.append(report.texts(sentence, place=report.texts(f"place_{place}"), part=part, **counts))
    yield report.say("d3_method", goes=", ".join(goes))


def _d4(report: Report) -> Iterator[Block]:
    checks = report.checks()
    counts, rows = checks["class_counts"], checks["class_table"]
    low, high = min(counts, default=0), max(counts, default=0)
    if low == high:
        yield report.say("d4_balanced", each=low)
    else:
        yield report.say("d4_unbalanced", low=low, high=high, ratio=f"{high / low:.2g}" if low else "∞")
    yield from report.drawn("classes", lambda path: draw_class_counts(rows, path))
    if len(rows) <= _MOST_CLASSES:
        columns = ["label", "class", "train", "val", "test"]
        table = [
            [
                str(row["label"]),
                Exact(report.class_name(row["name"])),
                *(str(row[part]) for part in ("train", "val", "test")),
            ]
            for row in rows
        ]
        yield report.table(columns, table)


def _figure(report: Report, name: str) -> Path:
    # Only files beside checks.json, whatever it says.
    return report.checks_file.parent / Path(name).name


def _d5(report: Report) -> Iterator[Block]:
    checks = report.checks()
    images = checks["inputs"]["images"]
    columns = ("modes", "sizes", "changes") if images else ("modes", "sizes")
    used = _used(checks)
    # Where it is a part of a split, the table says of how much it speaks.
    part_only = any(used[source] != facts["count"] for source, facts in checks["source"].items())
    rows = [
        [
            source,
            f"{facts['count']:,}",
            *([f"{used[source]:,}"] if part_only else []),
            *(_counts(facts[name]) for name in columns),
        ]
        for source, facts in checks["source"].items()
    ]
    shown_as = columns if images else ("types", "shapes")
    # A column without a count says nothing.
    empty = {place for place, row in enumerate(zip(*rows, strict=True)) if not any(row)}
    names = ["split", "examples", *(["in_use"] if part_only else []), *shown_as]
    kept = [place for place in range(len(names)) if place not in empty]
    yield report.table([names[place] for place in kept], [[row[place] for place in kept] for row in rows])
    if part_only:
        yield report.say("d5_whole_split")
    yield from _seen_images(report, checks) if images else _seen_values(report, checks)
    shared = [
        f"{part} ∩ {other}: {count:,}"
        for part, each in checks["overlaps"].items()
        for other, count in each.items()
        if count
    ]
    if shared:
        sentence = "d5_overlaps" if images else "d5_overlaps_values"
    else:
        sentence = "d5_no_overlap" if images else "d5_no_overlap_values"
    yield report.say(sentence, **({"overlaps": ", ".join(shared)} if shared else {}))


def _used(checks: Mapping[str, Any]) -> Counter[str]:
    """How many examples of each split of the source are in train, val or test."""
    split, used = checks["split"], Counter[str]()
    for part, count in checks["splits"].items():
        used[split["whole"].get(part) or split.get("from") or ""] += count
    return used


def _seen_values(report: Report, checks: Mapping[str, Any]) -> Iterator[Block]:
    yield report.say("d5_one_shape", shape=tuple(checks["input_shape"]), type=checks["inputs"]["type"])


def _seen_images(report: Report, checks: Mapping[str, Any]) -> Iterator[Block]:
    sizes = {size for facts in checks["source"].values() for size in facts["sizes"]}
    modes = {mode for facts in checks["source"].values() for mode in facts["modes"]}
    mode = report.config.preprocess.mode
    others = ", ".join(sorted(modes - {mode}))
    named = report.texts(f"mode_{mode}") if report.texts.has(f"mode_{mode}") else mode
    yield report.say("d5_one_size" if len(sizes) == 1 else "d5_sizes", count=len(sizes))
    yield report.say("d5_modes", mode=named, modes=others) if others else report.say("d5_all_one_mode", mode=named)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def _d6(report: Report) -> Iterator[Block]:
    checks = report.checks()
    operations, images, rows = checks["preprocessing"], checks["inputs"]["images"], []
    if not operations:
        yield report.say("no_preprocessing")
        return
    for operation in operations:
        sentence = f"purpose_{operation['operation']}{'' if images else '_values'}"
        purpose = report.texts(sentence) if report.texts.has(sentence) else operation.get("purpose", "")
        rows.append([_call(report, operation), str(purpose)])
    yield report.table(["operation", "purpose"], rows)


def _call(report: Report, operation: Mapping[str, Any]) -> Exact:
    """The operation with its parameters, those that are sentences in the language of the report."""
    parameters = {name: _in_words(report, value) for name, value in operation["parameters"].items()}
    return Exact(call_of({**operation, "parameters": parameters}))


def _in_words(report: Report, value: Any) -> Any:
    words = re.sub(r"\W+", "_", value).strip("_") if isinstance(value, str) else ""
    return report.texts(f"words_{words}") if report.texts.has(f"words_{words}") else value


def _d7(report: Report) -> Iterator[Block]:
    checks = report.checks()
    equal = checks["preprocessing_equal"]["equal"]
    yield Verdicts([(equal, report.texts("d7_equal" if equal else "d7_unequal"))])
    how = "d7_how_images" if checks["inputs"]["images"] else "d7_how_values"
    yield report.say(how, count=checks["batch"]["images"][0])


def _d8(report: Report) -> Iterator[Block]:
    operations = report.checks()["augmentations"]
    if not operations:
        yield report.say("no_augmentation")
        return
    rows = [[_call(report, operation), shown(operation["probability"])] for operation in operations]
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
    if not checks["examples"] or "examples" not in checks["figures"]:
        yield report.say("d10_values")
        return
    caption = "examples" if checks["augmentations"] else "examples_plain"
    yield from report.copied("examples", _figure(report, checks["figures"]["examples"]), caption)
    names = ", ".join(_named(report, each) for each in checks["examples"])
    yield report.say("d10", names=names)


def _named(report: Report, each: Mapping[str, Any]) -> str:
    """The name of a class, and its number unless that is its name."""
    name, label = report.class_name(each["name"]), str(each["label"])
    return name if name == label else f"{label}: {name}"


def _d11(report: Report) -> Iterator[Block]:
    checks = report.checks()
    batch, shape = checks["batch"], checks["input_shape"]
    shapes = {name: str(tuple(batch[name])) for name in ("images", "labels")}
    yield report.say("d11_images" if checks["inputs"]["images"] else "d11_values", **shapes)
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
    drawn = bool(checks["split"]["ratio"])
    named = [
        (each["holds"], "whole" if each["name"] == "stratified" and not drawn else each["name"])
        for each in checks["verdicts"]
    ]
    failed = [f"verdict_{name}" for holds, name in named if not holds and report.texts.has(f"verdict_{name}")]
    if failed:
        yield report.say("verdicts_failed", count=len(failed), total=len(named))
        yield Verdicts([(False, report.texts(sentence, **values)) for sentence in failed])
    else:
        yield report.say("verdicts", total=len(named))
