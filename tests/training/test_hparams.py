"""TensorBoard's HParams show every value that affects a run, without a hand-written list of names."""

from __future__ import annotations

from collections.abc import Callable

from relay.progress import PlainReporter
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.keys import TRAINING
from src.config.loading import config_of, make_config
from src.config.schema import Config
from src.requests import grid_request, train_request
from src.requests.plan import Plan
from src.training.hparams import hparams_of
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
    seen = [hparams_of(run, config_of(run)) for run in sweep.runs()]
    values = [hparams.values for hparams in seen]
    assert [of_run["activation"] for of_run in values] == ["relu"] * 4 + ["tanh"] * 4
    assert [of_run["augment.random_flip"] for of_run in values[:4]] == [True, True, False, False]
    assert [of_run["augment.random_crop"] for of_run in values[:2]] == ["none", "size=16 padding=1"]
    assert len({repr(of_run) for of_run in values}) == 8
    # One schema, the same for every run: the axes that vary and the seed.
    assert [hparams.schema for hparams in seen] == [
        {
            "activation": ["relu", "tanh"],
            "augment.random_flip": [True, False],
            "augment.random_crop": ["none", "size=16 padding=1"],
            "seed": [42],
        }
    ] * 8


def test_an_axis_of_mixed_types_is_one_of_texts(small: Callable[..., Config]) -> None:
    sweep, _ = open_sweep(grid_request(small(hparams={"train.max_steps": [None, 5], "lr": [0.5]})))
    seen = [hparams_of(run, config_of(run)) for run in sweep.runs()]
    assert [hparams.values["train.max_steps"] for hparams in seen] == ["none", "5"]
    assert seen[0].schema == {"train.max_steps": ["none", "5"], "seed": [42]}


def test_a_seed_that_varies_is_one_column(small: Callable[..., Config]) -> None:
    sweep, _ = open_sweep(grid_request(small(hparams={"seed": [1, 2]})))
    assert hparams_of(sweep.runs()[1], config_of(sweep.runs()[1])).schema == {"seed": [1, 2]}


def test_a_cell_that_does_not_set_an_axis_has_the_value_of_the_sweep(small: Callable[..., Config]) -> None:
    config = small()
    plan = Plan(TRAINING, config)
    for index, overrides in enumerate(({}, {"train.optimizer.lr": 0.5}, {"model.dropout": 0.0})):
        plan.add(f"cell-{index}", overrides, make_config(config.to_dict(), "test", overrides))
    sweep, _ = open_sweep(plan.request("grid", "variants"))
    seen = [hparams_of(run, config_of(run)) for run in sweep.runs()]
    assert [(hparams.values["lr"], hparams.values["dropout"]) for hparams in seen] == [
        (0.002, 0.2),
        (0.5, 0.2),
        (0.002, 0),
    ]
    assert seen[2].schema == {"lr": [0.002, 0.5], "dropout": [0.2, 0.0], "seed": [42]}


def test_the_base_facts_are_there_in_types_that_tensorboard_takes(small: Callable[..., Config]) -> None:
    run = open_sweep(train_request(small()))[0].runs()[0]
    hparams = hparams_of(run, config_of(run))
    values = hparams.values
    # A sweep in which nothing varies has no schema: on a page of all sweeps, it would hide those of the grids.
    assert hparams.schema == {}
    assert (
        values.items()
        >= {
            "lr": 0.002,
            "batch_size": 16,
            "weight_decay": 1e-05,
            "optimizer": "adam",
            "scheduler": "none",
            "seed": 42,
            "num_modules": 1,
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
    assert [hparams_of(run, config_of(run)).values["train.device"] for run in sweep.runs()] == ["cpu", "auto"]
