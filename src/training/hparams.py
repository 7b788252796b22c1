"""The hyperparameters of a run under the names that TensorBoard shows, and what its HParams plugin reads of them.

The plugin takes the schema (an Experiment summary) of the first run in which it finds one, and shows the last value of
each of its metrics. So each run of a sweep has the same schema, and the best epoch's metrics have tags of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.config.sections import Select
from relay.runs.cells import PlannedRun, axis_value, varying_paths
from relay.runs.rundir import RunDir
from src.config.keys import deciding_sections
from src.config.schema import Config
from src.config.validation import axis_name

# The only types that TensorBoard accepts for a hyperparameter.
Hparam = bool | int | float | str
_SEED = "train.seed"


@dataclass(frozen=True)
class LoggedHparams:
    """What TensorBoard's HParams show of a run.

    `values`: all that affect the run, by name. `schema`: the columns, with the values that each has in the sweep: the
    axes that vary and the seed, the same for every run of the sweep; empty if nothing varies. `metrics`: of the best
    epoch, the one that is selected by first.
    """

    values: Mapping[str, Hparam]
    schema: Mapping[str, Sequence[Hparam]]
    metrics: Sequence[str]
    select: Select


def hparams_of(run: RunDir, config: Config) -> LoggedHparams:
    """The hyperparameters of a run, and the schema of its sweep.

    The values are those of `train` and `model` that affect the run, without nulls, and those of the sweep's axes. They
    are more than the schema, so that a page with several sweeps has a value for each run, whichever schema it shows.
    Raises RunError if the manifest is damaged.
    """
    sections = deciding_sections(config.to_dict())
    values = dict(_leaves("train", sections["train"])) | dict(_leaves("model", sections["model"]))
    sweep = run.sweep()
    cells = sweep.cells() if sweep.meta_file.is_file() else ()
    own: Mapping[str, Any] = next((cell.overrides for cell in cells if cell.name == run.name), {})
    values |= {axis_name(path): _shown(value) for path, value in own.items()}
    columns = {path: _column(path, cells, sweep.meta()["config"]) for path in varying_paths(cells)}
    schema = {axis_name(path): list(dict.fromkeys(column.values())) for path, column in columns.items()}
    values |= {axis_name(path): column[run.name] for path, column in columns.items()}
    if schema:
        schema.setdefault(axis_name(_SEED), [config.train.seed])
    return LoggedHparams(values, schema, config.metrics.columns, config.metrics.select)


def _column(path: str, cells: Sequence[PlannedRun], base: Mapping[str, Any]) -> dict[str, Hparam]:
    """The value of a key path in each cell, by the cell's name, all of one type that TensorBoard accepts.

    A cell without an override has the value of `base`, the configuration of the sweep.
    """
    common: Any = base
    for key in path.split("."):
        common = common.get(key) if isinstance(common, Mapping) else None
    values = {cell.name: _shown(cell.overrides.get(path, common)) for cell in cells}
    kinds = {float if type(value) is int else type(value) for value in values.values()}
    return values if len(kinds) == 1 else {name: str(value) for name, value in values.items()}


def _shown(value: Any) -> Hparam:
    """A value in a type that TensorBoard accepts: null as `none`, a section as `size=64 padding=4`."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_shown(item)}" for name, item in value.items())
    shown: Hparam = "none" if value is None else axis_value(value)
    return shown


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Hparam]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(f"{path}.{name}", item)
    elif value is not None:
        yield axis_name(path), _shown(value)


def best_tag(column: str) -> str:
    """The tag of the best epoch's value of a column of the table, `val_best/accuracy` for val/accuracy.

    TensorBoard sorts groups of tags, named by what is before the first slash: points come after the curves of val.
    """
    group, _, name = column.partition("/")
    return f"{group}_best/{name}"


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
