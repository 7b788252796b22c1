"""TensorBoard's HParams show every value that affects a run, without a hand-written list of names."""

from __future__ import annotations

from collections.abc import Callable

from src.config.schema import Config
from src.progress import PlainReporter
from src.requests import grid_request, train_request
from src.runs.hparams import hparams_of
from src.runs.rundir import RunDir
from src.runs.sweeps import open_sweep
from src.training.trainer import train


def shown(run: RunDir) -> dict[str, object]:
    """The HParams as TensorBoard's own reader reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    accumulator = EventAccumulator(str(run.path))
    accumulator.Reload()
    content = accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in values.items()}


def test_cells_of_a_grid_differ_in_all_of_its_axes(small: Callable[..., Config]) -> None:
    hparams = {
        "activation": ["relu", "tanh"],
        "augment.random_flip": [True, False],
        "augment.random_crop": [None, {"size": 16, "padding": 1}],
    }
    sweep, _ = open_sweep(grid_request(small(hparams=hparams)))
    seen = [hparams_of(run, run.config()) for run in sweep.runs()]
    assert [values["activation"] for values in seen] == ["relu"] * 4 + ["tanh"] * 4
    assert [values["augment.random_flip"] for values in seen[:4]] == [True, True, False, False]
    assert [values.get("augment.random_crop.padding") for values in seen[:2]] == [None, 1]
    assert len({repr(values) for values in seen}) == 8


def test_the_base_facts_are_there_in_types_that_tensorboard_takes(small: Callable[..., Config]) -> None:
    run = open_sweep(train_request(small()))[0].runs()[0]
    values = hparams_of(run, run.config())
    assert (
        values.items()
        >= {
            "lr": 0.002,
            "batch_size": 16,
            "weight_decay": 1e-05,
            "optimizer": "adam",
            "scheduler": "none",
            "seed": 42,
            "num_modules": 2,
            "branch_channels": "3-4-5",
            "dropout": 0.2,
            "train.epochs": 3,
        }.items()
    )
    assert {type(value) for value in values.values()} <= {bool, int, float, str}
    assert not [name for name in values if "device" in name or "max_steps" in name]


def test_a_run_writes_them_for_tensorboard(small: Callable[..., Config]) -> None:
    sweep, _ = open_sweep(grid_request(small(hparams={"activation": ["tanh"], "augment.random_flip": [False]})))
    (run,) = sweep.runs()
    train(run, lambda: True, PlainReporter())
    assert (
        shown(run).items() >= {"activation": "tanh", "augment.random_flip": False, "branch_channels": "3-4-5"}.items()
    )


def test_an_axis_is_shown_even_where_it_decides_nothing(small: Callable[..., Config]) -> None:
    sweep, _ = open_sweep(grid_request(small(hparams={"train.device": ["cpu", "auto"]})))
    assert [hparams_of(run, run.config())["train.device"] for run in sweep.runs()] == ["cpu", "auto"]
