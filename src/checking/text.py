"""The answers of the checks before training as text, from checks.json: D1 to D11, M0 to M2 of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relay.terminal import show_value
from src.checking.layers import parameters_text, summed_up

Report = Mapping[str, Any]
# Of the table of classes, in the terminal; checks.json has all.
_CLASSES_SHOWN = 6
# Rows of layers, likewise.
_LAYERS_SHOWN = 60


def lines_of(report: Report) -> Iterator[str]:
    """All answers, one line each; tables take several lines."""
    yield from _data(report)
    yield from _operations(report)
    yield from _model(report)


def _data(report: Report) -> Iterator[str]:
    split, counts, inputs = report["split"], report["class_counts"], report["inputs"]
    what = "images" if inputs["images"] else "inputs"
    kind = f"{inputs['type']} image" if inputs["images"] else inputs["type"]
    yield f"D1   {report['dataset']}, {report['classes']} classes, input {kind} {report['input_shape']}"
    yield "D2   " + ", ".join(f"{name} {count}" for name, count in report["splits"].items())
    for part, source in split["whole"].items():
        yield f"D3   {part} has examples of the split {source!r}"
    if split["ratio"]:
        ratio = " and ".join(f"{share:.0%} {name}" for name, share in split["ratio"].items())
        how = "stratified by class" if split["stratified"] else "NOT stratified"
        yield f"D3   drawn from the split {split['from']!r}: {ratio}, {how}, seed {split['seed']}"
        yield f"     {split['method']}"
    yield f"D4   examples per class in train: {min(counts)} to {max(counts)}"
    yield from _class_rows(report["class_table"])
    for name, facts in report["source"].items():
        changes = f", changed {facts['changes']}" if facts["changes"] else ""
        names = ("modes", "sizes") if inputs["images"] else ("types", "shapes")
        seen = f"{facts['count']} {what}, {names[0]} {facts['modes']}, {names[1]} {facts['sizes']}{changes}"
        yield f"D5   {name} as it came: {seen}"
    for part, others in report["overlaps"].items():
        shared = ", ".join(f"{count} in {other}" for other, count in others.items())
        same = "pixel for pixel" if inputs["images"] else "value for value"
        yield f"D5   {what} of {part} that are also in another split, {same}: {shared}"


def _class_rows(classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    shown = list(classes[:_CLASSES_SHOWN])
    width = max(len(str(row["name"])) for row in shown)
    yield f"     class  {'name'.ljust(width)}  train   val  test"
    for row in shown:
        yield f"     {row['label']:5}  {row['name'].ljust(width)}  {row['train']:5} {row['val']:5} {row['test']:5}"
    if len(classes) > len(shown):
        yield f"     … and {len(classes) - len(shown)} more in checks.json"


def _operations(report: Report) -> Iterator[str]:
    for operation in report["preprocessing"]:
        yield f"D6   {call_of(operation)}: {operation['purpose']}"
    if not report["preprocessing"]:
        yield "D6   no preprocessing"
    equal = report["preprocessing_equal"]
    yield f"D7   train, val and test: {'equal' if equal['equal'] else 'NOT EQUAL'}; measured: {equal['how']}"
    augmentations = report["augmentations"]
    for operation in augmentations:
        yield f"D8   {call_of(operation)}, probability {show_value(operation['probability'])}"
    for operation in augmentations:
        keeps = "keeps the label" if operation["keeps_label"] else "may change the label"
        yield f"D9   {operation['operation']} {keeps}, unless {operation['unless']}"
    if not augmentations:
        yield "D8   no augmentation"
    names = ", ".join(f"{each['name']} (class {each['label']})" for each in report["examples"])
    shown = "examples before and after augmentation" if augmentations else "examples"
    yield f"D10  {shown}: {names}" if names else "D10  the inputs are values, so there is no picture of them"
    batch, what = report["batch"], "images" if report["inputs"]["images"] else "inputs"
    yield f"D11  batch: {what} {batch['images']}, labels {batch['labels']}, logits {batch['logits']}"


def call_of(operation: Mapping[str, Any]) -> str:
    """An operation of checks.json with its parameters: `Resize(size=[64, 64], interpolation=bilinear)`."""
    parameters = ", ".join(f"{name}={_short(value)}" for name, value in operation["parameters"].items())
    return f"{operation['operation']}({parameters})"


def _short(value: Any) -> str:
    return f"[{', '.join(map(_short, value))}]" if isinstance(value, list) else show_value(value)


def _model(report: Report) -> Iterator[str]:
    batch = report["batch"]
    for name, base in report["baselines"].items():
        yield (
            f"M0   {name}: majority class {base['majority_accuracy']:.4f}, "
            f"guesses of one random draw {base['random_accuracy']:.4f}, chance {base['chance']:.4f}"
        )
    frozen = "" if batch["all_parameters"] == batch["parameters"] else f" are trained, of {batch['all_parameters']:,}"
    yield f"M1   parameters: {batch['parameters']:,}{frozen}"
    yield from _layer_rows(report["layers"])
    for option in report["options"]:
        counts = ", ".join(f"{each['value']}: {each['parameters']:,}" for each in option["parameters"])
        role = f": {option['role']}" if option["role"] else ""
        yield f"M1   {option['option']} = {option['value']}{role} (parameters with {counts})"
    yield (
        f"M2   initial loss {batch['initial_loss']:.4f}, log(classes) {batch['expected_loss']:.4f}, "
        f"gradient norm {batch['gradient_norm']:.4f}"
    )


def _layer_rows(layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [
        (
            row["name"],
            row["layer"] if row["layers"] == 1 else f"{row['layers']} layers",
            "" if row["output"] is None else str(row["output"]),
            parameters_text(row),
        )
        for row in summed_up(layers, _LAYERS_SHOWN)
    ]
    cells.insert(0, ("layer", "type", "output", "parameters"))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    for name, layer, output, parameters in cells:
        yield (
            f"     {name.ljust(widths[0])}  {layer.ljust(widths[1])}  {output.ljust(widths[2])}  "
            f"{parameters.rjust(widths[3])}"
        )
