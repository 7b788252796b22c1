"""What TensorBoard's HParams plugin reads from a run's event file: the schema of the sweep, and the run's own values.

The plugin takes the schema (an Experiment summary) of the first run in which it finds one, and shows the last value of
each of its metrics. So each run of a sweep has the same schema, and the best epoch's metrics have tags of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay.config.sections import Select
from src.training.hparams import Hparam, LoggedHparams


def best_tag(column: str) -> str:
    """The tag of the best epoch's value of a column of the table: `best/val/accuracy`."""
    return f"best/{column}"


def best_scalars(hparams: LoggedHparams, best: Mapping[str, float]) -> dict[str, float]:
    """The metrics of the best epoch, by tag, the selecting one first. Those that it does not have are left out."""
    return {best_tag(f"val/{name}"): best[name] for name in hparams.metrics if best.get(name) is not None}


def start_summaries(hparams: LoggedHparams, label: str) -> list[Any]:
    """The summary_pb2.Summary messages of a run that starts: the sweep's schema, if it has one, and the values."""
    from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb, hparams_pb

    start = hparams_pb(dict(hparams.values), trial_id=label)
    if not hparams.schema:
        return [start]
    axes = [HParam(name, domain=_domain(values)) for name, values in hparams.schema.items()]
    metrics = [
        Metric(
            best_tag(f"val/{name}"),
            display_name=f"val/{name}",
            description=_description(hparams.select),
            dataset_type=Metric.VALIDATION,
        )
        for name in hparams.metrics
    ]
    return [hparams_config_pb(axes, metrics), start]


def end_summary(*, diverged: bool) -> Any:
    """The summary_pb2.Summary of a run that is complete."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    # tensorboard.plugins.hparams.summary, which has a function for it, needs TensorFlow.
    status = api_pb2.STATUS_FAILURE if diverged else api_pb2.STATUS_SUCCESS
    content = metadata.create_summary_metadata(HParamsPluginData(session_end_info=SessionEndInfo(status=status)))
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=content, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])


def _domain(values: Sequence[Hparam]) -> Any:
    from tensorboard.plugins.hparams.summary_v2 import Discrete

    kinds = {type(value) for value in values}
    # The plugin knows no integers.
    if kinds == {int, float} or kinds == {int}:
        return Discrete([float(value) for value in values], dtype=float)
    return Discrete(values, dtype=kinds.pop())


def _description(select: Select) -> str:
    word = "highest" if select.direction == "max" else "lowest"
    return f"of the best epoch, which has the {word} {select.column}"
