from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from relay.errors import ConfigError, DataError
from relay.runs.sweeps import open_sweep
from src.config.loading import load_config
from src.config.schema import Config
from src.config.validation import axis_name
from src.requests import grid_request, train_request
from src.requests.cells import expand_grid, refine_grid
from tests.conftest import ROOT

# The folders of the report's runs, without the time at their ends.
NAMES = Path(__file__).with_name("names.txt")


@pytest.fixture(scope="module")
def report() -> Config:
    return load_config(ROOT / "configs" / "config.yaml")


def test_the_reports_grid_has_its_48_cells_in_its_order(report: Config) -> None:
    plan = expand_grid(report)
    cells, configs = plan.cells, list(plan.configs.values())
    assert len(cells) == 48
    assert cells[0].name == "k=000_M=4_bc=64-64-64_bs=32_lr=1.00e-04_wd=1e-05"
    assert cells[34].name == "k=034_M=6_bc=64-64-64_bs=32_lr=2.00e-03_wd=1e-05"
    assert cells[47].name == "k=047_M=6_bc=48-72-72_bs=64_lr=2.00e-03_wd=1e-04"
    assert all(config.train.epochs == 2 for config in configs)
    assert configs[34].model.num_modules == 6
    assert len({cell.key for cell in cells}) == 48


def test_names_are_those_of_the_reports_runs(report: Config) -> None:
    assert [f"grid_search_{cell.name}" for cell in expand_grid(report).cells] == NAMES.read_text().splitlines()


def test_the_refined_grid_is_the_reports_around_its_best_cell(report: Config) -> None:
    best = {k: v for k, v in expand_grid(report).cells[34].overrides.items() if k != "train.epochs"}
    configs = refine_grid(report, best).configs.values()
    points = {(c.train.optimizer.lr, c.train.optimizer.weight_decay) for c in configs}
    assert points == {(lr, wd) for lr in (1.5e-3, 2e-3, 2.5e-3) for wd in (1e-5, 5e-6, 1e-6)}
    assert len(configs) == 9
    assert all(c.train.epochs == 8 and c.model.num_modules == 6 for c in configs)


def test_names_show_only_what_differs(small: Callable[..., Config]) -> None:
    names = [cell.name for cell in expand_grid(small(hparams__num_modules=[1])).cells]
    assert names == ["k=000_lr=1.00e-03", "k=001_lr=1.00e-02"]


def test_close_rates_keep_different_names(small: Callable[..., Config]) -> None:
    names = [
        cell.name
        for cell in expand_grid(
            small(hparams={"lr": [0.0012345, 0.0012346], "weight_decay": [1.25e-5, 0.0, 0.1]})
        ).cells
    ]
    assert names[0] == "k=000_lr=1.2345e-03_wd=1.25e-05"
    assert names[4] == "k=004_lr=1.2346e-03_wd=0"
    assert names[5] == "k=005_lr=1.2346e-03_wd=1e-01"
    assert len(set(names)) == 6


def test_a_sweep_of_other_images_is_not_continued(small: Callable[..., Config]) -> None:
    request = grid_request(small())
    names = [cell.name for cell in request.cells]
    made, _ = open_sweep(replace(request, data=dict.fromkeys(names, "0123456789abcdef")))
    assert open_sweep(request) == (made, False)
    with pytest.raises(DataError, match=f"{len(names)} of {len(names)} runs planned on other content"):
        open_sweep(replace(request, data=dict.fromkeys(names, "fedcba9876543210")))


def test_any_key_path_is_an_axis(small: Callable[..., Config]) -> None:
    plan = expand_grid(small(hparams={"train.scheduler.gamma": [0.1, 0.5], "augment.random_flip": [True, False]}))
    cells = plan.cells
    assert [c.train.scheduler.gamma for c in plan.configs.values()] == [0.1, 0.1, 0.5, 0.5]
    assert cells[0].name == "k=000_gamma=0.1_random_flip=true"


def test_a_name_is_one_harmless_directory(small: Callable[..., Config]) -> None:
    cells = expand_grid(small(hparams={"dataset.name": ["synthetic", "../../x; rm -rf $(pwd)\n'\""]})).cells
    assert all("/" not in c.name and "$" not in c.name and "\n" not in c.name and "'" not in c.name for c in cells)


def test_values_and_options_that_would_look_equal_do_not(small: Callable[..., Config]) -> None:
    axes = {
        "model.type": ["torchvision/resnet18", "nets:plain"],
        "lr": [0.1],
        "model.options.lr": ["a/b", "a:b", "a-b"],
        "train.optimizer.options.depth": [1, 2],
        "model.options.depth": [True, "true"],
        "seed": [1, 2],
    }
    config = small(model__input_shape="auto", preprocess__resize=[32, 32], augment={}, hparams=axes)
    names = [cell.name for cell in expand_grid(config).cells]
    assert names[0] == "k=000_net=torchvision-resnet18_lr=a-b_depth=1_options.depth=true_seed=1"
    assert names[-1] == "k=047_net=nets-plain_lr=a-b.3_depth=2_options.depth=true.2_seed=2"
    assert len({name.partition("_")[2] for name in names}) == 48
    both = small(model__type="nets:plain", hparams={"lr": [0.1, 0.2], "model.options.lr": [1, 2]})
    assert expand_grid(both).cells[0].name == "k=000_lr=1.00e-01_options.lr=1"


def test_columns_of_options_are_short_and_of_one_meaning() -> None:
    names = {path: axis_name(f"model.options.{path}") for path in ("width", "lr", "epochs", "run", "act.kind")}
    assert names["width"] == "width"
    assert names["act.kind"] == "act.kind"
    # There are other columns of these names.
    assert {name: full for name, full in names.items() if full != name} == {
        name: f"model.options.{name}" for name in ("lr", "epochs", "run")
    }


def test_a_metric_that_is_always_1_selects_nothing(small: Callable[..., Config]) -> None:
    select = {"name": "top5_accuracy"}
    with pytest.raises(ConfigError, match=r"^metrics.select.name: top5_accuracy is always 1 with 4 classes; select by"):
        expand_grid(small(metrics__select=select))
    with pytest.raises(ConfigError, match="always 1 with 4 classes"):
        train_request(small(metrics__select=select, model__num_classes="auto"))
    six = {"dataset__classes": 6, "dataset__split": {"val": 30, "test": 30}, "model__num_classes": "auto"}
    assert len(expand_grid(small(metrics__select=select, **six)).cells) == 4


def test_invalid_cells_are_refused_together(small: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError) as caught:
        expand_grid(small(hparams={"lr": [0.1, -1.0], "num_modules": [0, 2]}))
    message = str(caught.value)
    assert "train.optimizer.lr: -1.0" in message
    assert "model.num_modules: 0" in message
    assert len(message.splitlines()) == 3


def test_a_grid_over_networks_keeps_the_options_of_each(small: Callable[..., Config]) -> None:
    networks = ["inception_multibranch", "residual_cnn"]
    plan = expand_grid(small(hparams={"model.type": networks, "num_modules": [1, 2]}))
    cells = plan.cells
    assert [cell.name for cell in cells] == [
        f"k={index:03d}_net={networks[index // 2]}_M={1 + index % 2}" for index in range(4)
    ]
    assert [config.model.type for config in plan.configs.values()] == [networks[0]] * 2 + [networks[1]] * 2


def test_cells_that_differ_in_nothing_that_their_network_reads_are_refused(small: Callable[..., Config]) -> None:
    networks = ["inception_multibranch", "residual_cnn"]
    axes = {"model.type": networks, "branch_channels": [[3, 4, 5], [4, 4, 4]], "residual": [False, True]}
    with pytest.raises(ConfigError) as caught:
        expand_grid(small(hparams=axes))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[1] == (
        "  hparams: k=004_net=residual_cnn_bc=3-4-5_residual=false and k=005_net=residual_cnn_bc=3-4-5_residual=true "
        "are the same experiment, because residual_cnn does not read model.residual; give model.residual one value, or "
        "search it in a grid without residual_cnn"
    )
    assert "k=004_net=residual_cnn_bc=3-4-5_residual=false and k=006_net=residual_cnn_bc=4-4-4" in lines[2]
    assert len(expand_grid(small(hparams={**axes, "model.type": networks[:1]})).cells) == 4
    assert (
        len(expand_grid(small(hparams={"model.type": networks, "branch_channels": [[3, 4, 5]], "lr": [0.1]})).cells)
        == 2
    )


def test_a_grid_without_axes_and_one_too_large(small: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="no axis"):
        expand_grid(small(hparams={"epochs": 2}))
    with pytest.raises(ConfigError, match="at most 1,000,000"):
        expand_grid(small(hparams={"lr": [i / 1e5 for i in range(1, 2000)], "seed": list(range(1000))}))
