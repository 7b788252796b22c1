"""Runs with a user's code: exact when they are resumed, with the code that was frozen, whatever is edited since."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from relay.errors import ConfigError, RunError
from relay.files import read_lines
from relay.runs.project_snapshot import is_snapshot
from relay.runs.rundir import RunDir
from relay.runs.sweeps import open_sweep
from src.config.loading import config_of, load_config
from src.config.schema import Config
from src.data.found import with_found
from src.requests import train_request
from src.training.pretrained import load_pretrained
from tests.conftest import differences, final_state, small_config
from tests.own_code.test_networks import relay_yaml
from tests.training.test_trainer import execute

NETWORKS: list[dict[str, Any]] = [
    {"type": "nets:plain", "options": {"width": 4}},
    {"type": "nets:Mlp", "options": {"hidden": [6], "drop": 0.4}},
    {"type": "nets:Frozen"},
    {"type": "nets:checked"},
    {"type": "nets:reads_values"},
    {"type": "torchvision/shufflenet_v2_x0_5"},
    {"type": "inception_multibranch"},
]
OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "torch.optim.NAdam", "options": {"momentum_decay": 0.01}},
    {"name": "torch.optim.Adafactor"},
    {"name": "torch.optim.Rprop", "weight_decay": 0.0},
    {"name": "opts:Sign", "options": {"beta": 0.5}},
    {"name": "sgd", "options": {"nesterov": True}},
    {"name": "adamw", "decay_norm_bias": False},
]

HALF = {"mean": [0.5] * 3, "std": [0.3] * 3}
SPLITS: list[dict[str, Any]] = [
    {"val": 20, "test": 20},
    {"valid": None, "val": 0.2, "test": 7},
    {"val": "valid", "test": 0},
]


# What a function returns, with a network for it.
OF_FUNCTIONS: list[dict[str, Any]] = [
    {"dataset__name": "tables:load", "model__type": "nets:Mlp", "preprocess": {"normalize": "auto"}},
    {"dataset__name": "tables:tokens", "model__type": "nets:Words", "preprocess": {"normalize": None}},
    {
        "dataset__name": "tables:grey",
        "model__type": "nets:plain",
        "preprocess": {"mode": "L", "normalize": "auto", "resize": [9, 12]},
        "train__mixup": 0.3,
    },
]
SPLITS_OF_FUNCTIONS: list[dict[str, Any]] = [{"val": "val", "test": "test"}, {"valid": None, "val": 0.2, "test": 9}]


def new_run(config: Config, name: str = "train") -> RunDir:
    """A run of the configuration, in a sweep of its own, planned as the commands do."""
    sweep, _ = open_sweep(train_request(config), fresh=True)
    return sweep.runs()[0]


def of_images(draw: random.Random) -> dict[str, Any]:
    model = draw.choice(NETWORKS)
    mode = draw.choice(["RGB", "RGB", "L"]) if "/" not in model["type"] else "RGB"
    return {
        **{f"model__{name}": value for name, value in model.items()},
        "preprocess__mode": mode,
        "preprocess__normalize": "auto" if mode == "L" else draw.choice(["auto", HALF]),
        "augment__color_jitter": None if mode == "L" else {"brightness": 0.1, "hue": 0.02},
        "dataset__split": draw.choice(SPLITS),
        "train__mixup": draw.choice([0.0, 0.3]),
    }


def of_a_function(draw: random.Random) -> dict[str, Any]:
    both = {"augment": {}, "dataset__classes": None, "dataset__split": draw.choice(SPLITS_OF_FUNCTIONS)}
    return {**both, "model__num_classes": "auto", **draw.choice(OF_FUNCTIONS)}


def combination(data_root: Path, project: Path, seed: int) -> Config:
    """A random experiment of a user."""
    draw = random.Random(seed)
    given = of_images(draw) if draw.random() < 0.7 else of_a_function(draw)
    given |= {
        "model__input_shape": "auto",
        "train__optimizer": {"lr": 0.003, **draw.choice(OPTIMIZERS)},
        "train__ema_decay": draw.choice([0.0, 0.9]),
        "train__batch_size": draw.choice([9, 16]),
        "train__scheduler": {"name": draw.choice(["none", "cosine"])},
        "train__epochs": 2,
        "project__path": str(project),
    }
    return small_config(data_root, project.parent, **given)


@pytest.mark.parametrize("seed", range(40))
def test_a_run_resumes_exactly(data_root: Path, project: Path, seed: int) -> None:
    config = combination(data_root, project, seed)
    straight, resumed = new_run(config), new_run(config)
    assert execute(straight) == "done"
    draw = random.Random(seed)
    for questions in sorted(draw.sample(range(1, 5), 2)):
        assert execute(resumed, questions) == "stopped"
    assert execute(resumed) == "done"
    first, second = final_state(straight), final_state(resumed)
    assert len(first["rows"]) > 2
    assert differences(first, second) == []


@pytest.fixture
def planned(project: Path) -> Callable[..., RunDir]:
    def plan(text: str = "") -> RunDir:
        return new_run(relay_yaml(project, f"model: {{type: nets:plain}}\ntrain: {{epochs: 1, device: cpu}}\n{text}"))

    return plan


def test_the_frozen_code_is_executed_whatever_is_edited(planned: Callable[..., RunDir], project: Path) -> None:
    run, other = planned(), planned()
    (project / "nets.py").write_text("raise SystemExit('edited')\n")
    assert execute(run) == "done"
    (project / "nets.py").unlink()
    assert execute(other) == "done"
    assert differences(final_state(run), final_state(other)) == []
    frozen = Path(config_of(run).project.path)
    assert frozen.is_relative_to(run.sweep().path.absolute())
    (line,) = read_lines(run.provenance_file)
    assert line["project"] == frozen.name


def test_changed_frozen_code_is_refused(planned: Callable[..., RunDir]) -> None:
    run = planned()
    file = Path(config_of(run).project.path, "nets.py")
    file.chmod(0o644)
    file.write_text(file.read_text() + "\n")
    with pytest.raises(RunError, match=r"nets\.py was changed; restore it"):
        execute(run)


def test_the_packages_of_a_network_are_part_of_the_environment(
    planned: Callable[..., RunDir], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "nets.py").write_text("import scipy\n" + (project / "nets.py").read_text())
    run = planned()
    assert execute(run) == "done"
    environment = (run.result() or {})["environments"][0]
    assert environment["scipy"]
    assert environment["pydantic"]
    assert "random" not in environment


def test_no_code_of_the_user_freezes_nothing(small: Callable[..., Config]) -> None:
    run = new_run(small(project__links=["no such thing"]))
    assert "project" not in run.sweep().meta()


def test_a_link_that_is_not_there_is_refused(project: Path) -> None:
    config = relay_yaml(project, "model: {type: nets:plain}\nproject: {links: [weights]}\n")
    with pytest.raises(ConfigError, match=r"project.links: weights: .* does not exist"):
        train_request(config)


def test_an_evaluation_builds_the_network_that_was_trained(planned: Callable[..., RunDir], project: Path) -> None:
    run = planned()
    assert execute(run) == "done"
    nets = (project / "nets.py").read_text()
    (project / "nets.py").write_text(nets.replace("nn.ReLU(), nn.MaxPool2d", "nn.Tanh(), nn.MaxPool2d"))
    config = relay_yaml(project, f"model: {{type: nets:plain}}\nevaluation: {{checkpoint: {run.best_file}}}\n")
    network = load_pretrained(with_found(config)).network
    assert any(isinstance(module, nn.ReLU) for module in network.modules())
    shutil.rmtree(run.sweep().project)
    said: list[str] = []
    network = load_pretrained(with_found(config), said.append).network
    assert any(isinstance(module, nn.Tanh) for module in network.modules())
    assert any("was trained with is not here" in line for line in said)


def test_a_relative_path_starts_at_the_frozen_project(planned: Callable[..., RunDir], project: Path) -> None:
    (project / "width.txt").write_text("5")
    begin = "    layers, channels = [], shape[0]\n"
    text = (
        (project / "nets.py")
        .read_text()
        .replace(begin, f"    width = int(__import__('pathlib').Path('width.txt').read_text())\n{begin}")
    )
    (project / "nets.py").write_text(text)
    run = planned()
    (project / "width.txt").write_text("7")
    assert execute(run) == "done"
    state: Any = final_state(run)["best"]
    assert state["0.weight"].shape[0] == 5


def test_a_run_with_other_linked_files_is_not_reused(planned: Callable[..., RunDir], project: Path) -> None:
    (project / "weights").mkdir()
    (project / "weights" / "a.txt").write_text("1")
    links = "project: {links: [weights]}\n"
    run = planned(links)
    assert execute(run) == "done"

    def why_other() -> str:
        sweep, _ = open_sweep(
            request := train_request(load_config(project / "relay.yaml", paths_beside(project))), fresh=True
        )
        assert request.why_other
        return request.why_other(run, sweep)

    assert why_other() == ""
    (project / "weights" / "a.txt").write_text("12")
    assert why_other() == "trained with other files in project.links"
    (project / "weights" / "a.txt").write_text("1")
    (project / "opts.py").write_text("")
    assert why_other() == "trained with other code of the project"


def paths_beside(project: Path) -> list[str]:
    return [f"paths.{name}_dir={project.parent / name}" for name in ("runs", "artifacts", "logs")]


def test_a_file_beside_the_project_makes_it_no_snapshot(project: Path) -> None:
    project.with_name(f"{project.name}.sha256").touch()
    assert not is_snapshot(project)
