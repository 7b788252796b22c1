"""Reads single records of TensorBoard's event files: scalars in any style, and the settings of a run."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from relay.config.yaml_file import parse_yaml
from relay.errors import RelayError

# DT_FLOAT and DT_DOUBLE of tensorflow/core/framework/types.proto.
_FLOATS = (1, 2)
# Up to here, a double holds every whole number.
_MOST_WHOLE = 2**53
# Where programs log their settings as a text: JSON, as Hugging Face's Trainer does, or a Markdown table, as CleanRL.
_TEXT = re.compile(r"(args|config|model_config|hparams|hyper_?parameters)/text_summary")
_TABLE_ROW = re.compile(r"^\|([^|]+)\|([^|]*)\|\s*$", re.MULTILINE)


def decoded(record: bytes, hparams: dict[str, Any]) -> Iterator[tuple[str | None, int, float]]:
    """Tag, step and value of the scalars of an Event, whose settings are added to `hparams`.

    The start of a session has no tag. Settings are those of the HParams plugin, and those that programs log as a text.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.util import tensor_util

    try:
        event = Event.FromString(record)
    except DecodeError:
        return
    if event.session_log.status == SessionLog.START:
        yield None, event.step, 0.0
    for value in event.summary.value:
        kind, number = value.WhichOneof("value"), None
        if kind == "simple_value":
            number = value.simple_value
        elif kind == "tensor" and not value.tensor.tensor_shape.dim and value.tensor.dtype in _FLOATS:
            # ValueError: the tensor has no value, or bytes of another size.
            with contextlib.suppress(ValueError):
                number = float(tensor_util.make_ndarray(value.tensor))
        elif value.tag == "_hparams_/session_start_info":
            hparams |= _hparams_of(value.metadata.plugin_data.content)
        elif kind == "tensor" and _TEXT.fullmatch(value.tag):
            # A text does not replace what the plugin has.
            for name, setting in _settings_in(b"".join(value.tensor.string_val[:1]).decode(errors="replace")):
                hparams.setdefault(name, setting)
        if number is not None:
            yield value.tag, event.step, number


def _hparams_of(content: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        given = HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError:
        return {}
    return {name: _plain(value) for name, value in sorted(given.items())}


def _plain(value: Any) -> Any:
    """A protobuf Value as JSON has it; infinity and NaN, which JSON lacks, as texts."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "struct_value":
        return {name: _plain(item) for name, item in sorted(value.struct_value.fields.items())}
    if kind == "number_value":
        return plain_number(value.number_value)
    # bool and string; null_value is 0, and no kind at all has no value.
    return None if kind in (None, "null_value") else getattr(value, kind)


def plain_number(value: float) -> int | float | str:
    """A hyperparameter stored as a double: whole numbers as int, infinity and NaN, which JSON lacks, as text."""
    if not math.isfinite(value):
        return str(value)
    return int(value) if value.is_integer() and abs(value) < _MOST_WHOLE else value


def _settings_in(text: str) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("{"):
        # RecursionError: thousands of nested lists.
        with contextlib.suppress(ValueError, RecursionError):
            yield from flattened("", json.loads(text))
        return
    # The first two rows are the header and its rule.
    for name, value in _TABLE_ROW.findall(text)[2:]:
        yield name.strip(), value_in(value.strip())


def flattened(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The settings in sections, with paths such as `optimizer/lr` as names."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flattened(f"{path}/{name}" if path else str(name), item)
    else:
        yield path, plain_number(value) if isinstance(value, float) else value


def value_in(text: str) -> Any:
    """The number in a text, or the text itself."""
    try:
        value = parse_yaml(text, "")
    except RelayError:
        return text
    # YAML reads 1e-4, without a dot, as a text.
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value):
        value = float(value)
    if isinstance(value, float):
        return plain_number(value)
    return value if isinstance(value, int) else text
