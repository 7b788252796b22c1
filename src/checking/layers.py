"""The layers of a network as tables show them; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Layer = Mapping[str, Any]


def summed_up(layers: Sequence[Layer], most: int) -> list[dict[str, Any]]:
    """The rows of `layer_table`, each with `layers`: 1; with more rows than `most`, one row for each part of the
    network, with the number of its layers, its last output and its parameters.

    The parts are as small as the limit allows. Where the names have no parts, all rows are kept.
    """
    rows = [{**row, "layers": 1} for row in layers]
    if len(rows) <= most:
        return rows
    deepest = max(row["name"].count(".") for row in rows)
    by_depth = [_parts(rows, depth) for depth in range(deepest, 0, -1)]
    return next((parts for parts in by_depth if len(parts) <= most), by_depth[-1] if by_depth else rows)


def in_parts(layers: Sequence[Layer], most_layers: int, most_parts: int) -> list[dict[str, Any]]:
    """The rows of `summed_up` for the largest parts that have no more than `most_layers` layers each, so that each can
    be described; where those are more than `most_parts`, the smallest parts that are not.
    """
    rows = [{**row, "layers": 1} for row in layers]
    for depth in range(1, 1 + max((row["name"].count(".") for row in rows), default=0) + 1):
        parts = _parts(rows, depth)
        if all(part["layers"] <= most_layers for part in parts) and len(parts) <= most_parts:
            return parts
    return summed_up(layers, most_parts)


def _parts(rows: Sequence[dict[str, Any]], depth: int) -> list[dict[str, Any]]:
    """The rows by the first `depth` parts of their names, in the order of their first layers."""
    parts: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = ".".join(row["name"].split(".")[:depth])
        before = parts.get(name)
        if before is None:
            parts[name] = {**row, "name": name}
            continue
        sums = {key: before[key] + row[key] for key in ("layers", "parameters", "frozen")}
        parts[name] = {**before, **sums, "output": row["output"] or before["output"]}
    return list(parts.values())


def parameters_text(layer: Layer) -> str:
    """The parameters of a row, and how many are not trained, if any are."""
    frozen = layer["frozen"]
    return f"{layer['parameters']:,} (+ {frozen:,} frozen)" if frozen else f"{layer['parameters']:,}"
